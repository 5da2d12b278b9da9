"""`offramp serve` as a person runs it: a process, with the engine in another."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.models.toys import save_model
from tests.serve.engines import LONG, toy_options


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    save_model(folder)
    return folder


@contextmanager
def serving(folder: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "offramp", "serve", str(folder), "--exits", "1", "--port", "0", *words]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def url_of(process: subprocess.Popen[str]) -> str:
    """Where it says that it serves; it says so once it does."""
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("Serving "):
            return line.split(" at ")[1].strip()
    raise AssertionError("it has ended")


def test_it_serves_until_it_is_told_to_end(folder: Path) -> None:
    with serving(folder, "--served-model-name", "toy", "--exit", "lossless") as process:
        url = url_of(process)
        assert httpx.get(f"{url}/health/ready").json() == {"status": "ready"}
        body = {"model": "toy", "prompt": "abc", "max_tokens": 5, "ignore_eos": True, "temperature": 0}
        said = httpx.post(f"{url}/v1/completions", json=body).json()
        full = httpx.post(f"{url}/v1/completions", json={**body, "exit": "off"}).json()
        assert said["choices"] == full["choices"]
        assert (said["exit"]["asked"], full["exit"]["asked"]) == ("lossless", "off")
        assert "offramp_requests_total" in httpx.get(f"{url}/metrics").text
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def addresses(process: int) -> set[str]:
    """The local addresses at which a process and its children listen, as the kernel writes them."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    folders = [Path(f"/proc/{number}/fd") for number in (process, *children)]
    held = {os.readlink(link) for folder in folders for link in folder.iterdir() if link.exists()}
    rows = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    listening = "0A"
    return {row[1].partition(":")[0] for row in rows if row[3] == listening and f"socket:[{row[9]}]" in held}


@pytest.mark.parametrize(("words", "address"), [((), "0100007F"), (("--host", "0.0.0.0"), "00000000")])
def test_it_listens_beyond_this_machine_only_where_it_is_told_to(
    folder: Path, words: tuple[str, ...], address: str
) -> None:
    with serving(folder, *words) as process:
        url_of(process)
        assert addresses(process.pid) == {address}


def test_a_request_that_runs_is_finished_first(folder: Path) -> None:
    body = {"prompt": "abc", "max_tokens": 20, "ignore_eos": True, "stream": True}
    with serving(folder) as process, httpx.stream("POST", f"{url_of(process)}/v1/completions", json=body) as answer:
        lines = answer.iter_lines()
        next(lines)
        process.send_signal(signal.SIGTERM)
        assert [line for line in lines if line][-1] == "data: [DONE]"
        assert process.wait(30) == 0


def test_it_ends_with_an_engine_that_cannot_be_started_again(tmp_path: Path) -> None:
    toy_options(tmp_path)
    body = {"prompt": [65, 66, 67], "max_tokens": LONG - 8, "ignore_eos": True, "stream": True, "temperature": 0}
    with serving(tmp_path) as process, httpx.stream("POST", f"{url_of(process)}/v1/completions", json=body) as answer:
        lines = answer.iter_lines()
        next(lines)
        (tmp_path / "model.safetensors").unlink()
        os.kill(engine_of(process), signal.SIGKILL)
        assert "the engine's process ended" in [line for line in lines if line][-1]
        assert process.wait(60) == 1
        assert process.stderr is not None
        written = process.stderr.read()
    assert " engine_down level=error reason=" in written
    assert "\nerror: " in written and "Traceback" not in written


def engine_of(server: subprocess.Popen[str]) -> int:
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text(encoding="ascii").split()
    (engine,) = [int(child) for child in children if b"serve.worker" in Path(f"/proc/{child}/cmdline").read_bytes()]
    return engine


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--max-model-len", "1000000"), "error: `max_model_len` is 1000000"),
        (("--exits", "99"), "error: "),
        (("--host", "no.such.host.invalid"), "cannot be listened on"),
        (("--exit", "losless"), "error: `exit` cannot be 'losless'"),
        (("--exit", "0.02"), "error: the exit pack has no calibration"),
        (("--criterion", "nope"), "error: "),
        (("--threshold", "0.9", "--min-layer", "2"), "error: `min_layer` is 2, above the last exit"),
        (("--exit", "0.2", "--max-risk", "0.05"), "error: `exit` is 0.2, `max_risk` allows at most 0.05"),
    ],
)
def test_what_cannot_be_served_ends_it_with_a_sentence(folder: Path, words: tuple[str, ...], says: str) -> None:
    with serving(folder, *words) as process:
        _, written = process.communicate(timeout=60)
        assert process.returncode == 1
        assert says in written
        assert "Traceback" not in written
