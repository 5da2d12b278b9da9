"""`offramp bench serve` against the real server over a fake engine, and flags that make no sense."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path
from typing import Any

import pytest

from offramp.bench.load import bench
from offramp.bench.load.client import Target, exchange
from offramp.bench.load.run import run_load
from offramp.cli.main import main
from tests.models.toys import save_model
from tests.serve.live import Live, stage


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a model that has one."""
    folder = tmp_path_factory.mktemp("toy")
    save_model(folder)
    return str(folder)


@pytest.fixture
def prompts(tmp_path: Path) -> str:
    path = tmp_path / "prompts.jsonl"
    path.write_text("\n".join(json.dumps({"prompt": f"prompt number {i}"}) for i in range(6)))
    return str(path)


def bench_live(*words: str, engine: dict[str, Any] | None = None) -> Any:
    """The exit code of a run against a server of its own, and the jobs that its engine was given."""

    async def scene(here: Live) -> Any:
        return await asyncio.to_thread(main, ["bench", "serve", "--base-url", here.url, *words]), here.client.jobs

    return stage(scene, engine=engine)


def custom(prompts: str) -> list[str]:
    return ["--dataset-name", "custom", "--dataset-path", prompts, "--num-prompts", "6", "--output-len", "8"]


def test_the_table(prompts: str, tokenizer: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*custom(prompts), "--skip-chat-template", "--tokenizer", tokenizer, "--max-concurrency", "2"]
    code, jobs = bench_live(*words, "--num-warmups", "3", "--exit", "lossless", "--goodput", "ttft:60000", "e2el:60000")
    out = capsys.readouterr().out
    assert code == 0
    assert "Successful requests:                     6" in out
    assert "Total generated tokens:                  48" in out
    assert "Layers run (%):" in out and "Mean exit layer (of 12):" in out
    assert len(jobs) == 1 + 3 + 6, "one to see that it works, three to warm up"
    assert {job.exit for job in jobs} == {"lossless"}


def test_json_has_the_names_of_vllm_and_files_are_written(
    prompts: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--save-result", "--save-detailed", "--result-dir", str(tmp_path / "out"), "--result-filename", "r.json"]
    words = [*custom(prompts), "--backend", "openai-chat", "--metadata", "a=b", "--json", *out]
    assert bench_live(*words)[0] == 0
    result = json.loads(capsys.readouterr().out)
    assert {"duration", "completed", "output_throughput", "mean_ttft_ms", "p99_itl_ms", "max_concurrency"} <= set(
        result
    )
    assert (result["a"], result["completed"], result["model_id"]) == ("b", 6, "fake")
    assert result == json.loads((tmp_path / "out" / "r.json").read_text())
    assert len(result["ttfts"]) == len(result["generated_texts"]) == 6


def test_agreement_with_full_depth(prompts: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*custom(prompts), "--skip-chat-template", "--agreement", "--exit", "0.02", "--json"]
    code, jobs = bench_live(*words)
    result = json.loads(capsys.readouterr().out)
    assert code == 0
    assert result["agreement"] == {"requests": 6, "equal_requests": 1, "equal_tokens": 1, "unit": "character"}
    assert [job.exit for job in jobs].count("off") == 6 + 1


def test_requests_that_fail_are_told(prompts: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*custom(prompts), "--skip-chat-template", "--ready-check-timeout-sec", "0", "--model", "another"]
    code, _ = bench_live(*words)
    told = capsys.readouterr()
    assert code == 1 and "Failed requests:                         6" in told.out
    assert "a request failed: 404: there is no model `another`" in told.err


def test_a_server_that_refuses_is_told_at_once(prompts: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench_live(*custom(prompts), "--skip-chat-template", "--model", "another")[0] == 1
    assert "refused the first request: 404" in capsys.readouterr().err


def test_a_server_that_is_not_there(prompts: str, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    words = ["bench", "serve", "--port", str(port), *custom(prompts), "--ready-check-timeout-sec", "0.1"]
    assert main(words) == 1
    told = capsys.readouterr().err
    assert f"127.0.0.1:{port} cannot be measured" in told and "is it running?" in told


def test_a_server_that_starts_is_waited_for(prompts: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "PAUSE", 0.01)

    async def scene(here: Live) -> int:
        await here.client.crash()
        return await asyncio.to_thread(
            main, ["bench", "serve", "--base-url", here.url, *custom(prompts), "--skip-chat-template"]
        )

    assert stage(scene, engine={"load_seconds": 0.2}) == 0


def test_no_more_run_together_than_asked_for() -> None:
    async def scene(here: Live) -> list[int]:
        seen: list[int] = []
        target = Target.from_url(here.url)
        request = target.request("/v1/completions", {"prompt": "abc", "max_tokens": 9, "stream": True})

        async def look() -> None:
            while True:
                seen.append((await here.client.stats()).running)
                await asyncio.sleep(0.001)

        looking = asyncio.create_task(look())
        load = await run_load(target, [request] * 12, [0.0] * 12, 3, lambda done: None)
        looking.cancel()
        assert all(recorded.error is None for recorded in load.recorded)
        return seen

    assert max(stage(scene, engine={"delay": 0.002})) == 3


def test_an_answer_that_takes_too_long() -> None:
    async def scene(here: Live) -> Any:
        target = Target.from_url(here.url)
        request = target.request("/v1/completions", {"prompt": "abc", "max_tokens": 9, "stream": True})
        return await exchange(target, request, timeout=0.05)

    assert "no end of the answer" in stage(scene, engine={"delay": 5.0}).error


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--base-url", "localhost"], "`localhost` is not the address of a server"),
        (["--max-concurrency", "0"], "`max_concurrency` must be"),
        (["--request-rate", "-1"], "`request_rate` must be"),
        (["--percentile-metrics", "ttft,tpt"], "`--percentile-metrics` cannot hold `tpt`"),
        (["--goodput", "itl:3"], "`--goodput` cannot hold `itl`"),
        (["--agreement", "--temperature", "1"], "answers drawn by chance"),
        (["--result-dir", "x"], "`--result-dir` needs `--save-result`"),
        (["--header", "a=b", "--header", "a=c"], "`--header` names something twice"),
        (["--ramp-up-strategy", "linear"], "`--ramp-up-strategy` needs"),
    ],
)
def test_flags_that_make_no_sense(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "serve", *words]) == 1
    assert capsys.readouterr().err.startswith(f"error: {message}")


@pytest.mark.parametrize(
    "words", [["--lora-modules", "a"], ["--hf-name=x"], ["--goodput", "3"], ["--dataset-name", "a"]]
)
def test_wrong_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["bench", "serve", *words])
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_a_flag_of_vllm_that_is_not_offered_is_refused_with_the_reason(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["bench", "serve", "--use-beam-search"])
    assert "`--use-beam-search` is not offered: tokens are drawn" in capsys.readouterr().err
