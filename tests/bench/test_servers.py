"""`offramp bench servers`: rounds with made-up servers, processes that hold still, a small run of the real thing."""

from __future__ import annotations

import json
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from offramp.bench.load.samples import Sample
from offramp.bench.quiet import Disturbance, Watch, descendants
from offramp.bench.servers.kinds import Server, given_programs, our_servers, peer_servers, program, variable
from offramp.bench.servers.members import Member
from offramp.bench.servers.process import ServerFailed, ServerProcess, free_port
from offramp.bench.servers.prompts import Prompts
from offramp.bench.servers.run import REPORT, ServersReport, ServersRun
from offramp.bench.servers.settings import METRICS, ServersSettings
from offramp.bench.servers.tables import better, server_tables
from offramp.cli.main import main
from offramp.errors import InvalidParameter, OfframpError
from offramp.serve.fake_output import byte_tokenizer
from tests.bench.toys import LOUD, FakeWatch
from tests.models.toys import save_model

SETTINGS = ServersSettings(users=(1, 2), requests=2, repeats=3, new_tokens=4)
SERVERS = [*our_servers(["int8"], ["off", "lossless"]), *peer_servers(["vllm"])]


class MadeUp:
    """Makes `speed` tokens/s for each user, and says what its prompts were; fails at run number `fails_at`."""

    def __init__(self, speed: float, fails_at: int = 99, tpot: float = 10.0) -> None:
        self.speed, self.fails_at, self.tpot = speed, fails_at, tpot
        self.asked: list[tuple[int, list[Sample]]] = []

    def run(self, samples: Any, users: int) -> tuple[dict[str, float], dict[str, Any]]:
        self.asked.append((users, list(samples)))
        if len(self.asked) == self.fails_at:
            raise ServerFailed("a request failed: gone")
        values = {"throughput": users * self.speed, "ttft": 1000 / self.speed, "tpot": self.tpot, "itl_p99": 20.0}
        exit = {"num_layers": 4, "mean_exit_layer": 3.0, "drafts_proposed": 8, "drafts_accepted": 2}
        texts = [str(sample.prompt[-1]) for sample in samples]
        return values, {"texts": texts, "exit": exit, "cpu_seconds": 0.1, "duration": 2.0}


def prompts(folder: Path) -> Prompts:
    path = folder / "prompts.jsonl"
    path.write_text('{"prompt": "one"}\n{"prompt": "two"}\n' + json.dumps({"prompt": "x" * 300}))
    return Prompts(str(path), byte_tokenizer(), 64, 4)


def run(
    folder: Path, members: dict[str, Any], settings: ServersSettings = SETTINGS, watch: Watch | None = None, **more: Any
) -> ServersReport:
    def opened(server: Server, stack: ExitStack) -> Member:
        member = members.get(server.name, ServerFailed("it is not here"))
        if isinstance(member, OfframpError):
            raise member
        made: Member = member
        return made

    facts = settings.identity("toy", 2)
    measuring = ServersRun(
        SERVERS, settings, folder, facts, open_server=opened, update=lambda *_: None, watch=watch or FakeWatch()
    )
    return measuring.run(prompts(folder), **more)


def made_up() -> dict[str, Any]:
    return {
        "offramp int8 off": MadeUp(100),
        "offramp int8 in process": MadeUp(125),
        "vllm float32": MadeUp(50),
    }


def test_every_round_has_everybody_with_the_same_prompts_and_none_twice(tmp_path: Path) -> None:
    members = made_up()
    report = run(tmp_path, members)
    asked = [member.asked for member in members.values()]
    counted = [[samples for _, samples in runs if len(samples) == 4] for runs in asked]
    assert counted[0] == counted[1] == counted[2]
    assert len(counted[0]) == 2 * 3
    all_prompts = [tuple(sample.prompt) for samples in counted[0] for sample in samples]
    assert len(set(all_prompts)) == len(all_prompts)
    assert {cell.task for cell in report.cells} == {f"{metric}/{users}" for metric in METRICS for users in (1, 2)}
    assert report.record("offramp int8 lossless").absent == "it is not here"


def test_ahead_is_above_one_whether_more_or_less_is_better(tmp_path: Path) -> None:
    report = run(tmp_path, made_up())
    for metric in ("throughput", "ttft"):
        seen = better(report, "vllm float32", metric, 2)
        assert seen is not None and seen.median == 2


def test_times_of_nothing_are_compared_with_nothing(tmp_path: Path) -> None:
    at_once = MadeUp(100, tpot=0.0)
    report = run(tmp_path, made_up() | {"offramp int8 off": at_once})
    assert better(report, "vllm float32", "tpot", 2) is None
    assert server_tables(report)


def test_tables(tmp_path: Path) -> None:
    tables = {table.title.partition(":")[0]: table for table in server_tables(run(tmp_path, made_up()))}
    assert ("offramp int8 off", "100 (100-100)", "200 (200-200)") in tables[
        "output tokens/s of all users together"
    ].rows
    cost = tables["what HTTP costs of the engine's throughput, client included"]
    assert cost.rows[1] == ("lost by offramp int8 off", "20.0%", "20.0%")
    exits = tables["what exits did"].rows
    assert ("offramp int8 off", *["layer 3.0 of 4, 25% of drafts accepted"] * 2) in exits
    assert ("offramp int8 off: equal answers", "100.0%", "100.0%") in exits


def test_disturbed_runs_are_done_again_with_other_prompts(tmp_path: Path) -> None:
    members = {"offramp int8 off": MadeUp(100)}
    settings = ServersSettings(users=(1,), repeats=1, new_tokens=4)
    watch = FakeWatch(LOUD, Disturbance(0.0, 0.5, False))
    report = run(tmp_path, members, settings, watch)
    cell = report.cells[0]
    assert cell.rejected == 2 and len(cell.clean) == 1
    asked = [[tuple(sample.prompt) for sample in samples] for _, samples in members["offramp int8 off"].asked]
    # The warming up, and what wakes the server before each of three tries.
    assert [len(prompts) for prompts in asked] == [1, 1, 4, 1, 4, 1, 4]
    assert asked[1] == asked[3] == asked[5]
    assert len({prompt for prompts in asked for prompt in prompts}) == 1 + 1 + 3 * 4


def test_a_server_that_fails_is_named_and_the_others_go_on(tmp_path: Path) -> None:
    report = run(tmp_path, made_up() | {"vllm float32": MadeUp(50, fails_at=3)})
    assert report.record("vllm float32").absent == "it failed: a request failed: gone"
    assert {cell.engine for cell in report.cells} == {"offramp int8 off", "offramp int8 in process"}


def test_without_ours_there_is_nothing_to_compare(tmp_path: Path) -> None:
    with pytest.raises(OfframpError, match="offramp itself cannot be measured: it is not here"):
        run(tmp_path, {"vllm float32": MadeUp(50)})


def test_a_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    first = run(tmp_path, made_up(), ServersSettings(users=(1,), requests=2, repeats=3, new_tokens=4))
    members = made_up()
    report = run(tmp_path, members, resume=True)
    assert {users for users, _ in members["vllm float32"].asked} == {2}
    assert report.cells[: len(first.cells)] == first.cells
    assert set(report.record("vllm float32").facts["client"]) == {"1", "2"}
    assert json.loads((tmp_path / REPORT).read_text())["kind"] == "servers"
    with pytest.raises(InvalidParameter, match="measured otherwise: new_tokens"):
        run(tmp_path, made_up(), ServersSettings(new_tokens=9, repeats=3), resume=True)


def test_prompts_that_are_all_too_long(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text(json.dumps({"prompt": "x" * 300}))
    with pytest.raises(InvalidParameter, match="no prompt of"):
        Prompts(str(path), byte_tokenizer(), 64, 4)


@pytest.mark.parametrize("names", [["lama"], ["vllm:int8"], ["vllm", "vllm:float32"]])
def test_peers_that_make_no_sense(names: list[str]) -> None:
    with pytest.raises(InvalidParameter):
        peer_servers(names)


def test_where_a_program_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "my-server"
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", "")
    assert program("llama-server", {}) is None
    monkeypatch.setenv(variable("llama-server"), str(tool))
    assert program("llama-server", {}) == str(tool)
    assert program("llama-server", {"llama-server": "/nowhere"}) is None
    assert program("vllm", {"vllm": str(tool)}) == str(tmp_path / "python")
    with pytest.raises(InvalidParameter, match="which is not to be measured"):
        given_programs([("vllm", "x")], [])


COUNTING = """
import sys, time, subprocess
child = subprocess.Popen([sys.executable, "-c", sys.argv[2], sys.argv[1]])
child.wait()
"""
WRITES = """
import sys, time
while True:
    open(sys.argv[1], "a").write("x")
    time.sleep(0.005)
"""


def test_a_process_holds_still_with_its_children_and_ends_with_them(tmp_path: Path) -> None:
    written = tmp_path / "written"
    process = ServerProcess([sys.executable, "-c", COUNTING, str(written), WRITES], {}, tmp_path / "log")
    try:
        until(lambda: written.exists())
        process.pause()
        time.sleep(0.05)  # a write that had begun may end
        size = written.stat().st_size
        time.sleep(0.2)
        assert written.stat().st_size == size
        process.resume()
        until(lambda: written.stat().st_size > size)
        family = descendants(process._process.pid)
        assert len(family) == 2
    finally:
        process.close()
    until(lambda: not any(Path(f"/proc/{pid}/stat").exists() for pid in family))
    process.close()


def test_a_process_that_ended_says_what_it_printed(tmp_path: Path) -> None:
    code = "import sys; print('no such model'); sys.exit(3)"
    process = ServerProcess([sys.executable, "-c", code], {}, tmp_path / "log")
    process._process.wait()
    with pytest.raises(ServerFailed, match="it ended with code 3: no such model"):
        process.check()
    process.close()
    with pytest.raises(ServerFailed, match="cannot be run"):
        ServerProcess([str(tmp_path / "none")], {}, tmp_path / "log")
    assert 0 < free_port() < 65536


def until(holds: Any) -> None:
    """Wait until something holds, which it must do soon."""
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_the_real_server_beside_the_real_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Watch, "read", lambda self: None)
    monkeypatch.setattr(Watch, "wait_until_quiet", lambda self, most: True)
    monkeypatch.setenv("PATH", "")
    save_model(tmp_path / "toy", num_hidden_layers=3, max_position_embeddings=512)
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "ab"}\n{"prompt": "ba"}\n')
    words = ["-m", str(tmp_path / "toy"), "--dtype", "float32", "--exits", "1", "--dial", "off,lossless"]
    words += ["--dataset", str(tmp_path / "prompts.jsonl"), "--peers", "llama-server", "--threads", "1"]
    words += ["--batch", "2", "--repeats", "1", "--new-tokens", "4", "--json", "--out", str(tmp_path / "out")]
    assert main(["bench", "servers", *words]) == 0
    told = capsys.readouterr()
    report = json.loads(told.out)
    assert "llama-server q8_0: `llama-server` is not on the path" in told.err
    medians = {(cell["engine"], cell["task"]): cell["median"] for cell in report["cells"]}
    assert all(median > 0 for (_, task), median in medians.items() if task.startswith("throughput"))
    assert len(medians) == 2 * len(METRICS) + 1
    lossless = next(engine for engine in report["engines"] if engine["name"] == "offramp float32 lossless")
    assert lossless["facts"]["equal_answers"] == {"2": 1}
    assert lossless["facts"]["exit"]["2"]["num_layers"] == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--resume"], "`--resume` needs `--out`"),
        (["--dtype", "int8@avx2"], "`bench servers` takes types alone"),
        (["--peers", "lama"], "`--peers` cannot hold `lama`"),
        (["--batch", "2,2"], "`--batch` must name numbers of users"),
        (["--requests", "0"], "`requests` must be"),
        (["--peers", "none", "--program", "vllm=/x"], "`--program` names vllm, which is not to be measured"),
    ],
)
def test_flags_that_make_no_sense(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "servers", *words]) == 1
    assert capsys.readouterr().err.startswith(f"error: {message}")
