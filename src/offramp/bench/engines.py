"""The engines that can be measured: where their workers are, in which precisions they run, and who is installed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from offramp.errors import InvalidParameter, did_you_mean

WORKERS = Path(__file__).parent / "peers"
ISAS = ("portable", "avx2", "avx512")

BITS: Mapping[str, int] = {
    "int4": 4,
    "q4_0": 4,
    "q4_1": 4,
    "int8": 8,
    "q8_0": 8,
    "f16": 16,
    "float16": 16,
    "bfloat16": 16,
    "float32": 32,
}


class Peer(NamedTuple):
    """A kind of engine: its worker program, packages of which any one will do, and the precisions it is measured in.

    `held` has what the environment must say to hold it to an instruction set; `no_t5`, why it runs no encoder-decoder,
    if it does not.
    """

    script: str
    packages: tuple[str, ...]
    precisions: tuple[str, ...]
    allowed: tuple[str, ...]
    reads_gguf: bool = False
    held: Mapping[str, Mapping[str, str]] = {}
    no_t5: str | None = None


PEERS: Mapping[str, Peer] = {
    "llama.cpp": Peer(
        "run_llama_cpp.py",
        ("xllamacpp", "llama_cpp"),
        ("q8_0", "q4_0", "q4_1", "f16"),
        ("q8_0", "q4_0", "q4_1", "f16"),
        True,
        no_t5="it reads GGUF files, and none is written of an encoder-decoder",
    ),
    "transformers": Peer(
        "run_transformers.py",
        ("transformers",),
        ("float32",),
        ("float32", "bfloat16", "float16"),
        held={"avx2": {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}},
    ),
    "vllm": Peer(
        "run_vllm.py",
        ("vllm",),
        ("float32", "bfloat16"),
        ("float32", "bfloat16", "float16"),
        no_t5="vLLM has no T5",
    ),
    "openvino": Peer(
        "run_openvino.py",
        ("openvino_genai",),
        ("q8_0", "q4_0"),
        ("q8_0", "q4_0", "q4_1", "f16"),
        True,
        held={"avx2": {"OV_CPU_MAX_ISA": "AVX2"}},
        no_t5="its continuous batching takes decoder-only models",
    ),
}
OURS = "offramp"
OUR_PRECISIONS = ("int8", "int4", "float32", "float16", "bfloat16")


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine in one precision. `variant` is an instruction set to hold it to, or the executor `torch`."""

    peer: str
    precision: str
    variant: str = ""

    @property
    def name(self) -> str:
        """As tables show it."""
        return f"{self.peer} {self.precision}" + (f"@{self.variant}" if self.variant else "")

    @property
    def ours(self) -> bool:
        """Whether this is offramp."""
        return self.peer == OURS

    @property
    def bits(self) -> int:
        """Bits of a weight, scales not counted."""
        return BITS[self.precision]

    @property
    def environment(self) -> Mapping[str, str]:
        """What holds a peer to its instruction set; offramp's worker is told."""
        return {} if self.ours or not self.variant else PEERS[self.peer].held[self.variant]

    @property
    def script(self) -> Path:
        """Its worker program."""
        return WORKERS / ("run_offramp.py" if self.ours else PEERS[self.peer].script)


def our_engines(names: Sequence[str]) -> list[Engine]:
    """Offramp in each of `names`: `int8`, `int8@avx2` (held to an instruction set), `float32@torch`.

    Raises:
        InvalidParameter: a precision or a variant that does not exist.
    """
    engines = []
    for name in names:
        precision, _, variant = name.partition("@")
        _check("dtype", precision, OUR_PRECISIONS)
        if variant:
            _check("dtype", variant, (*ISAS, "torch"))
        engines.append(Engine(OURS, precision, variant))
    return _distinct("dtype", engines)


def peer_engines(names: Sequence[str]) -> list[Engine]:
    """The peers in each of `names`: `openvino` (in all its precisions), `openvino:q8_0`, `openvino:q8_0@avx2`.

    Raises:
        InvalidParameter: a peer, a precision or an instruction set that does not exist, or that it cannot be held to.
    """
    engines = []
    for name in names:
        whole, _, variant = name.partition("@")
        peer, _, precision = whole.partition(":")
        _check("peers", peer, tuple(PEERS))
        if precision:
            _check("peers", precision, PEERS[peer].allowed)
        if variant and variant not in PEERS[peer].held:
            raise InvalidParameter(
                f"`--peers` cannot hold `{name}`: {peer} cannot be held to `{variant}`",
                param="peers",
                hint="these can: " + ", ".join(f"`{p}@{v}`" for p, kind in PEERS.items() for v in kind.held),
            )
        engines += [Engine(peer, p, variant) for p in ([precision] if precision else PEERS[peer].precisions)]
    return _distinct("peers", engines)


def variable(peer: str) -> str:
    """The environment variable that names a peer's interpreter."""
    return "OFFRAMP_BENCH_PYTHON_" + "".join(c if c.isalnum() else "_" for c in peer).upper()


def given_pythons(pairs: Sequence[tuple[str, str]], engines: Sequence[Engine]) -> dict[str, str]:
    """The interpreters that were given for peers among `engines`; see `given_paths`."""
    return given_paths("peer_python", pairs, tuple(PEERS), {engine.peer for engine in engines})


def given_paths(
    param: str, pairs: Sequence[tuple[str, str]], allowed: tuple[str, ...], measured: Collection[str]
) -> dict[str, str]:
    """What a flag that may be repeated gives for peers.

    Raises:
        InvalidParameter: a peer that does not exist, that is not to be measured, or that is named twice.
    """
    given: dict[str, str] = {}
    flag = param.replace("_", "-")
    for peer, path in pairs:
        _check(param, peer, allowed)
        if peer not in measured:
            raise InvalidParameter(
                f"`--{flag}` names {peer}, which is not to be measured",
                param=param,
                hint=f"add {peer} to `--peers`, or leave out `--{flag} {peer}=...`",
            )
        if peer in given:
            raise InvalidParameter(f"`--{flag}` names {peer} twice", param=param)
        given[peer] = path
    return given


def interpreter(peer: str, given: Mapping[str, str]) -> str:
    """The Python that has a peer: as given, as its environment variable says, else this one."""
    return given.get(peer) or os.environ.get(variable(peer)) or sys.executable


def why_absent(peer: str, python: str, t5: bool = False) -> str | None:
    """Why a peer cannot be measured with this interpreter, on a `t5` or another model, with the way out where there is
    one; None if it can."""
    if t5 and PEERS[peer].no_t5:
        return PEERS[peer].no_t5
    packages = PEERS[peer].packages
    code = f"import importlib.util as u; print(any(u.find_spec(m) for m in {packages!r}))"
    try:
        done = subprocess.run([python, "-c", code], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        return f"`{python}` cannot be run: {error}"
    if done.returncode:
        return f"`{python}` fails: {done.stderr.strip().splitlines()[-1:]}"
    if done.stdout.strip() == "True":
        return None
    wanted = " or ".join(f"`{package}`" for package in packages)
    return f"{wanted} is not installed for {python}; install it, or give `--peer-python {peer}=PYTHON`"


def _check(param: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        flag = param.replace("_", "-")
        raise InvalidParameter(f"`--{flag}` cannot hold `{value}`", param=param, hint=did_you_mean(value, allowed))


def _distinct(param: str, engines: list[Engine]) -> list[Engine]:
    for engine in engines:
        if engines.count(engine) > 1:
            raise InvalidParameter(f"`--{param}` names {engine.name} twice", param=param)
    return engines
