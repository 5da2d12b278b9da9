"""The engine behind the pipe: the same outputs as `LLM`, limits, cancelling, and requests that fail alone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from offramp import LLM, ExitParams, OfframpError, SamplingParams
from offramp.errors import InvalidParameter, PackError, QueueFull
from offramp.serve.protocol import Job, Piece
from tests.serve.engines import LONG, NAN, Running, collect, endless, job

PROMPTS = [(65, 66, 67), (70, 71), (80,), tuple(range(30, 90))]
DIALS: list[Any] = ["off", "lossless", ExitParams(threshold=0.2), "off"]


@pytest.fixture(scope="module")
def running(options: dict[str, Any]) -> Iterator[Running]:
    running = Running(options)
    try:
        running.run(running.client.start())
        running.run(running.client.wait_ready())
        yield running
    finally:
        running.close()


@pytest.fixture(scope="module")
def llm(options: dict[str, Any]) -> Iterator[LLM]:
    with LLM(**options) as llm:
        yield llm


def text_of(pieces: list[Piece], index: int = 0) -> str:
    return "".join(piece.text for piece in pieces if piece.index == index)


def together(running: Running, *jobs: Job) -> list[list[Piece]]:
    async def all_of_them() -> list[list[Piece]]:
        return await asyncio.gather(*(collect(running.client.generate(one)) for one in jobs))

    return running.run(all_of_them())


def test_a_mixed_batch_gives_what_the_llm_gives(running: Running, llm: LLM) -> None:
    sampling = SamplingParams(max_tokens=30, ignore_eos=True, logprobs=2)
    warm = SamplingParams(max_tokens=20, ignore_eos=True, temperature=1.0, seed=5)
    params = [sampling, sampling, sampling, warm]
    jobs = [Job(str(i), *both) for i, both in enumerate(zip(PROMPTS, params, DIALS, strict=True))]
    expected = llm.generate(PROMPTS, params, DIALS)
    for pieces, output in zip(together(running, *jobs), expected, strict=True):
        assert text_of(pieces) == output.text
        assert tuple(t for p in pieces for t in p.token_ids) == output.token_ids
        assert tuple(t for p in pieces for t in p.exit_layers) == output.exit_layers
        assert tuple(t for p in pieces for t in p.confidences) == output.confidences
        if output.logprobs is None:
            assert {p.logprobs for p in pieces} == {None}
        else:
            assert tuple(t for p in pieces for t in p.logprobs or ()) == output.logprobs
        assert [p.finish_reason for p in pieces] == [None] * (len(pieces) - 1) + ["length"]
        assert pieces[-1].report is not None and pieces[-1].report.exits == output.report.exits
        assert len(pieces[-1].report.layers_run) == len(output.token_ids)


def test_n_outputs_are_told_apart(running: Running, llm: LLM) -> None:
    sampling = SamplingParams(n=3, temperature=1.0, seed=7, max_tokens=12, ignore_eos=True)
    pieces = running.pieces(Job("n", PROMPTS[0], sampling))
    first = llm.generate([PROMPTS[0]], sampling)[0]
    assert [text_of(pieces, i) for i in range(3)] == [o.text for o in (first, *first.alternatives)]
    assert sorted(p.index for p in pieces if p.finish_reason) == [0, 1, 2]


def test_a_stop_string_ends_the_output(running: Running, llm: LLM) -> None:
    whole = llm.generate([PROMPTS[0]], SamplingParams(max_tokens=20, ignore_eos=True))[0].text
    stop = whole[5:8]
    pieces = running.pieces(job(PROMPTS[0], max_tokens=20, ignore_eos=True, stop=(stop,), exit="lossless"))
    assert text_of(pieces) == whole[: whole.index(stop)] and pieces[-1].finish_reason == "stop"


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        (job(()), InvalidParameter, "the prompt is empty\nhint: give at least one token"),
        (job((1, 2), exit="loseless"), InvalidParameter, "`exit` cannot be 'loseless'\nhint: allowed: "),
        (job((1, 2), exit=0.02), PackError, "the exit pack has no calibration\nhint: "),
        (job((9999,)), InvalidParameter, "prompt token 9999 is not a token id, a whole number below 263"),
        (job([1] * LONG), InvalidParameter, f"the prompt has {LONG} tokens, the context holds {LONG} and must fit"),
        (job((1, 2), n=8), InvalidParameter, "`n` is 8, 4 outputs run at once and 3 may wait\nhint: ask for at most 7"),
        (job((1, 2), json_schema={"type": "thing"}), InvalidParameter, "`json_schema` "),
        (job((1, 2), prompt_logprobs=500), InvalidParameter, "`prompt_logprobs` must be a whole number of at least 0 "),
    ],
)
def test_what_cannot_be_served_is_refused_with_its_reason(
    running: Running, asked: Job, error: type[OfframpError], message: str
) -> None:
    with pytest.raises(OfframpError) as refused:
        running.pieces(asked)
    assert type(refused.value) is error and str(refused.value).startswith(message)


def test_a_schema_binds_the_output(running: Running) -> None:
    schema = {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"], "additionalProperties": False}
    pieces = running.pieces(job(PROMPTS[0], max_tokens=30, json_schema=schema, exit="lossless"))
    assert json.loads(text_of(pieces))["a"] in (1, 2) and pieces[-1].finish_reason == "stop"


def test_a_closed_generator_gives_its_blocks_back(running: Running) -> None:
    before = running.stats()

    async def leave_early() -> int:
        pieces = running.client.generate(endless(n=2))
        await anext(pieces)
        used = (await running.client.stats()).kv_used_blocks
        await pieces.aclose()
        return used

    used = running.run(leave_early())
    after = running.stats()
    assert used >= 1 and before.kv_used_blocks == after.kv_used_blocks == 0
    assert (after.running, after.waiting, after.aborted - before.aborted) == (0, 0, 2)


def test_a_full_queue_refuses_at_once_and_those_before_go_on(running: Running) -> None:
    async def crowd() -> tuple[int, list[str]]:
        jobs = [running.client.generate(endless(i)) for i in range(9)]
        waiting = [asyncio.ensure_future(anext(pieces)) for pieces in jobs]
        refused = []
        for one in waiting[7:]:
            with pytest.raises(QueueFull) as error:
                await one
            refused.append(str(error.value))
        await asyncio.gather(*waiting[:4])
        stats = await running.client.stats()
        for one in waiting:
            one.cancel()
        await asyncio.wait(waiting)
        for pieces in jobs:
            await pieces.aclose()
        return stats.running + stats.waiting, refused

    held, refused = running.run(crowd())
    assert held == 7
    assert refused == ["3 outputs wait already, at most 3 may\nhint: try again later"] * 2


def test_a_slow_reader_holds_nobody_up(running: Running, llm: LLM) -> None:
    sampling: dict[str, Any] = {"max_tokens": 200, "ignore_eos": True}

    async def one_waits() -> tuple[str, str]:
        slow = running.client.generate(job(PROMPTS[0], 0, **sampling))
        pieces = [await anext(slow)]
        other = text_of(await collect(running.client.generate(job(PROMPTS[1], 1, **sampling))))
        while (await running.client.stats()).running:
            await asyncio.sleep(0.01)
        pieces += [piece async for piece in slow]
        return text_of(pieces), other

    expected = llm.generate(PROMPTS[:2], SamplingParams(**sampling))
    assert running.run(one_waits()) == (expected[0].text, expected[1].text)


def test_a_poisoned_request_fails_alone(running: Running, llm: LLM) -> None:
    healthy = [job(prompt, i, max_tokens=20, ignore_eos=True) for i, prompt in enumerate(PROMPTS[:2])]
    good, bad, also_good = together(running, healthy[0], job((65, NAN, 66), 9, exit="lossless"), healthy[1])
    expected = llm.generate(PROMPTS[:2], SamplingParams(max_tokens=20, ignore_eos=True))
    assert [text_of(good), text_of(also_good)] == [output.text for output in expected]
    assert [(p.token_ids, p.finish_reason) for p in bad] == [((), "error")]
    assert bad[0].error == "the model's numbers are not finite here, or every token is banned"
    assert running.stats().kv_used_blocks == 0


@pytest.mark.parametrize("length", [1, 2, 90])
def test_a_prompt_is_told_how_likely_its_own_tokens_are(running: Running, llm: LLM, length: int) -> None:
    prompt = tuple((17 * i) % 200 + 10 for i in range(length))
    (piece,) = running.pieces(job(prompt, prompt_logprobs=2, echo_only=True))
    assert (piece.text, piece.token_ids, piece.finish_reason) == ("", (), "length")
    assert piece.report is not None and piece.report.layers_run == ()
    assert piece.prompt_logprobs is not None and len(piece.prompt_logprobs) == length
    assert piece.prompt_logprobs[0] == ()
    for i in {1, length // 2, length - 1} - {0, length}:
        (output,) = llm.generate([prompt[:i]], SamplingParams(max_tokens=1, logprobs=100))
        assert output.logprobs is not None
        known = dict(output.logprobs[0])
        (token, value), *likely = piece.prompt_logprobs[i]
        assert token == prompt[i] and tuple(likely) == output.logprobs[0][1:3]
        assert value == pytest.approx(known[token], abs=1e-4) if token in known else value < min(known.values())


def test_a_prompt_is_told_beside_what_it_gives(running: Running, llm: LLM) -> None:
    alone = running.pieces(job(PROMPTS[3], prompt_logprobs=0, echo_only=True))[0].prompt_logprobs
    pieces = running.pieces(job(PROMPTS[3], prompt_logprobs=0, n=2, max_tokens=9, ignore_eos=True, exit="lossless"))
    assert pieces[0].index == 0 and pieces[0].prompt_logprobs == alone
    assert all(len(told) == (i > 0) for i, told in enumerate(alone or ()))
    assert {p.prompt_logprobs for p in pieces[1:]} == {None}
    assert text_of(pieces) == llm.generate([PROMPTS[3]], SamplingParams(max_tokens=9, ignore_eos=True))[0].text


def test_statistics_count_what_was_done(running: Running) -> None:
    before = running.stats()
    pieces = running.pieces(job(PROMPTS[3], max_tokens=40, ignore_eos=True, exit=ExitParams(threshold=0.2), n=2))
    after = running.stats()
    reports = [piece.report for piece in pieces if piece.report]
    assert len(reports) == 2
    assert after.prompt_tokens - before.prompt_tokens == 60
    assert 0 <= after.cached_prompt_tokens - before.cached_prompt_tokens < 60
    assert after.output_tokens - before.output_tokens == 80 == sum(len(p.token_ids) for p in pieces)
    for name in ("layers_run", "layers_filled", "layers_skipped"):
        told = getattr(after, name) - getattr(before, name)
        assert told == sum(sum(getattr(report, name)) for report in reports)
    layers = [layer for piece in pieces for layer in piece.exit_layers]
    counts = {layer: after.exit_tokens[layer] - before.exit_tokens.get(layer, 0) for layer in after.exit_tokens}
    assert {layer: count for layer, count in counts.items() if count} == {x: layers.count(x) for x in set(layers)}
    assert after.steps > before.steps and after.rss_bytes > 10**7 and after.kv_total_blocks == 1024
    assert set(after.seconds) == {"encoder", "layers", "checks", "fill", "top", "other"}
    assert all(after.seconds[part] > before.seconds[part] for part in ("layers", "checks", "top", "other"))


def test_an_engine_says_what_it_is(running: Running, options: dict[str, Any]) -> None:
    info = running.client.info
    assert info is not None
    assert (info.model, info.executor, info.dtype) == (Path(options["model"]).name, "native", "float32")
    assert (info.exit_layers, info.num_layers, info.vocab_size, info.kv_tokens) == ((2, 4), 6, 263, 16384)
    assert (info.max_model_len, info.max_num_seqs, info.pack, dict(info.risks)) == (LONG, 4, None, {})
    assert list(info.resolved) == ["lossless"] and info.resolved["lossless"]["kv"] == "verify"
