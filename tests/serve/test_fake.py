"""The fake engine keeps the protocol."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest

from offramp.errors import EngineDown, InvalidParameter, PackError, QueueFull
from offramp.serve.fake import FakeClient
from offramp.serve.fake_output import byte_tokenizer, plainest
from offramp.serve.protocol import EngineClient, Job, Piece, Rescored
from offramp.types.exits import ExitParams
from offramp.types.sampling import SamplingParams

T = TypeVar("T")
TOKENIZER = byte_tokenizer()


def job(text: str = "abcd", exit: Any = "off", prompt_logprobs: int | None = None, **sampling: Any) -> Job:
    prompt = tuple(TOKENIZER.encode(text))
    return Job("one", prompt, SamplingParams(**sampling), exit, prompt_logprobs)


def run(what: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(asyncio.wait_for(what, 10))


async def ready(**options: Any) -> FakeClient:
    client = FakeClient(TOKENIZER, **options)
    await client.start()
    await client.wait_ready()
    return client


async def pieces(client: EngineClient, asked: Job) -> list[Piece]:
    return [piece async for piece in client.generate(asked)]


async def answered(asked: Job, **options: Any) -> list[Piece]:
    return await pieces(await ready(**options), asked)


def texts(said: list[Piece]) -> dict[int, str]:
    joined: dict[int, str] = defaultdict(str)
    for piece in said:
        joined[piece.index] += piece.text
    return dict(joined)


def test_outputs_repeat_the_prompt_and_end() -> None:
    said = run(answered(job(n=2)))
    assert texts(said) == {0: "abcd", 1: "bcda"}
    assert [piece.finish_reason for piece in said if piece.finish_reason] == ["stop", "stop"]


def test_the_same_job_gets_the_same_answer() -> None:
    asked = job("What is a layer?", "lossless", n=3, logprobs=4)
    assert run(answered(asked)) == run(answered(asked))


def test_max_tokens_and_stop_strings_end_an_output() -> None:
    assert [(p.text, p.finish_reason) for p in run(answered(job(max_tokens=2)))] == [("a", None), ("b", "length")]
    assert texts(run(answered(job(stop=("cd",))))) == {0: "ab"}


@pytest.mark.parametrize("kv", ["fill", "recompute", "verify"])
def test_a_report_adds_up(kv: Any) -> None:
    said = run(answered(job("some longer text", ExitParams(kv=kv))))
    report = said[-1].report
    assert report is not None
    parts = zip(report.layers_run, report.layers_filled, report.layers_skipped, strict=True)
    assert {sum(part) for part in parts} == {12}
    layers = [layer for piece in said for layer in piece.exit_layers]
    assert sum(report.exit_histogram.values()) == len(layers) == len(report.layers_run)
    assert report.mean_exit_layer == sum(layers) / len(layers) < 12


def test_off_runs_every_layer() -> None:
    assert {layer for piece in run(answered(job())) for layer in piece.exit_layers} == {12}


def test_log_probabilities_of_output_and_prompt() -> None:
    said = run(answered(job(prompt_logprobs=1, logprobs=2)))
    told = said[0].prompt_logprobs
    assert told is not None and [len(entry) for entry in told] == [0, 2, 2, 2]
    assert all(piece.logprobs is not None and len(piece.logprobs[0]) == 3 for piece in said)


def test_a_full_queue_refuses() -> None:
    async def scene() -> None:
        client = await ready(max_num_seqs=1, max_queue=1, delay=60)
        waiting = [asyncio.create_task(pieces(client, job())) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(QueueFull):
            await pieces(client, job())
        assert (await client.stats()).running == 1
        assert (await client.stats()).waiting == 1
        for task in waiting:
            task.cancel()

    run(scene())


def test_leaving_the_generator_cancels_the_job() -> None:
    async def scene() -> None:
        client = await ready()
        stream = client.generate(job())
        await anext(stream)
        assert (await client.stats()).kv_used_blocks == 1
        await stream.aclose()
        stats = await client.stats()
        assert (stats.running, stats.aborted, stats.kv_used_blocks) == (0, 1, 0)

    run(scene())


def test_a_crash_fails_what_runs_and_it_comes_back() -> None:
    async def scene() -> None:
        client = await ready()
        stream = client.generate(job())
        await anext(stream)
        await client.crash()
        with pytest.raises(EngineDown):
            await anext(stream)
        await client.wait_ready()
        assert texts(await pieces(client, job())) == {0: "abcd"}
        assert (await client.stats()).restarts == 1

    run(scene())


def test_closing_lets_running_jobs_end() -> None:
    async def scene() -> None:
        client = await ready(delay=0.001)
        stream = client.generate(job())
        said = [await anext(stream)]
        closing = asyncio.create_task(client.close(drain_seconds=10))
        said += [piece async for piece in stream]
        await closing
        assert texts(said) == {0: "abcd"}
        assert client.state == "down"
        with pytest.raises(EngineDown):
            await pieces(client, job())

    run(scene())


def test_what_cannot_be_served_is_refused() -> None:
    with pytest.raises(PackError, match=r"a risk of 0\.3"):
        run(answered(job(exit=0.3)))
    with pytest.raises(InvalidParameter, match="`exit` cannot be 'fast'"):
        run(answered(job(exit="fast")))
    with pytest.raises(InvalidParameter, match="8 tokens, the context holds 8"):
        run(answered(job("abcdefgh"), max_model_len=8))


def test_shadow_samples_are_told_when_their_job_has_ended() -> None:
    told: list[Rescored] = []

    async def scene() -> None:
        client = await ready(shadow=1.0, on_rescored=told.append)
        for exit in ("lossless", 0.02, ExitParams()):
            await pieces(client, job("some longer text", exit))
        stream = client.generate(job(temperature=1.0))
        await anext(stream)
        await stream.aclose()

    run(scene())
    assert [(one.label, one.outcome, one.promised) for one in told] == [
        ("lossless", "rescored", 0.0),
        ("0.02", "rescored", 0.02),
        ("criterion", "rescored", None),
        ("off sampled", "unfinished", 0.0),
    ]
    assert told[0].differ == 0 < told[1].differ < told[1].tokens


def test_the_plainest_value_of_a_schema() -> None:
    schema = {
        "type": "object",
        "properties": {"kind": {"enum": ["a", "b"]}, "size": {"$ref": "#/$defs/size"}, "more": {"type": "string"}},
        "required": ["kind", "size"],
        "$defs": {"size": {"type": "integer"}},
    }
    assert plainest(schema, schema) == {"kind": "a", "size": 1}
