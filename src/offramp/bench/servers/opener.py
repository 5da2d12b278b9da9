"""Starting what takes part, each with what it needs of the model."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from offramp.bench.engine_run import start_process
from offramp.bench.engines import Engine
from offramp.bench.inputs import ModelInput
from offramp.bench.load.client import Target
from offramp.bench.load.samples import Sample
from offramp.bench.servers.kinds import IN_PROCESS, PEERS, Exits, Room, Server, ours, program, why_absent
from offramp.bench.servers.members import EngineMember, Member, ServerMember, wait_until_ready
from offramp.bench.servers.process import ServerFailed, ServerProcess, free_port
from offramp.bench.servers.vllm_folder import vllm_folder


@dataclass
class Opener:
    """Starts servers, one after the other. Servers of the same process share it.

    `exits` is given to offramp as it stands; `folder` is where logs go.
    """

    model: ModelInput
    room: Room
    exits: Exits
    programs: Mapping[str, str]
    folder: Path
    first: Sample
    _started: dict[str, tuple[ServerProcess, Target, str]] = field(default_factory=dict)

    def __call__(self, server: Server, stack: ExitStack) -> Member:
        """Start what `server` stands for; the stack ends it.

        Raises:
            OfframpError: it cannot be started, with the reason.
        """
        if server.label == IN_PROCESS:
            return self._engine(server, stack)
        if server.process not in self._started:
            self._started[server.process] = self._start(server, stack)
        return ServerMember(*self._started[server.process], server.extra)

    def _start(self, server: Server, stack: ExitStack) -> tuple[ServerProcess, Target, str]:
        path, port = program(server.kind, self.programs), free_port()
        if path is None:
            raise ServerFailed(why_absent(server.kind))
        if server.ours:
            words, environment = ours(server.precision, self.exits, str(self.model.path), self.room, port)
        else:
            files = self._files(server, path)
            words, environment = PEERS[server.kind].start(server.precision, files, self.room, port)
        env = {"OMP_NUM_THREADS": str(self.room.threads), "TOKENIZERS_PARALLELISM": "false", **environment}
        process = ServerProcess([path, *words], env, self.folder / f"{server.process.replace(' ', '-')}.log")
        stack.callback(process.close)
        target = Target("127.0.0.1", port)
        name = wait_until_ready(process, target, self.first)
        process.pause()
        return process, target, name

    def _files(self, server: Server, path: str) -> dict[str, Any]:
        files = self.model.for_workers([server.precision], self.room.users, lambda text: None)
        if server.kind == "vllm":
            return {**files, "hf": vllm_folder(files, path)}
        if server.precision not in files["gguf"]:
            raise ServerFailed(f"there is no {server.precision} file of the model: it takes a GGUF model to start from")
        return files

    def _engine(self, server: Server, stack: ExitStack) -> Member:
        engine = Engine(server.kind, server.precision)
        path = program(server.kind, self.programs)
        assert path is not None
        log = self.folder / f"{server.name.replace(' ', '-')}.log"
        worker = start_process(engine, path, log, self.room.threads)
        stack.callback(worker.close)
        files = {**self.model.for_workers([], self.room.users, lambda text: None), "exits": self.exits}
        arguments = {"precision": server.precision, "threads": self.room.threads, "context": self.room.context}
        worker.ask("load", model=files, **arguments)
        return EngineMember(worker, str(server.extra["exit"]))
