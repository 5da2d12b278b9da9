"""Requests that can never be served: each refusal, word for word."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from offramp.engine.request import Request
from offramp.errors import OfframpError, QueueFull
from offramp.types.exits import ExitParams
from offramp.types.sampling import SamplingParams
from tests.engine.toy_engine import Run, make_engine, request

on_each_executor = pytest.mark.usefixtures("each_executor")


def told(make: Callable[[], Request], **engine: object) -> str:
    with pytest.raises(OfframpError) as error:
        make_engine(**engine).submit(make())  # type: ignore[arg-type]
    return str(error.value)


@on_each_executor
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: request(()), "the prompt is empty\nhint: give at least one token"),
        (
            lambda: request([1] * 64),
            "the prompt has 64 tokens, the context holds 64 and must fit at least one more\n"
            "hint: shorten the prompt, or raise `max_model_len` up to the model's own limit",
        ),
        (lambda: request([48]), "prompt token 48 is not a token id, a whole number below 48"),
        (lambda: request(logit_bias={50: 1.0}), "`logit_bias` names token 50, the vocabulary has 48"),
        (lambda: request(stop_token_ids=[99]), "`stop_token_ids` names token 99, the vocabulary has 48"),
        (
            lambda: request(exit=ExitParams(threshold={3: 0.5})),
            "`threshold` names layer 3, which is not an exit\nhint: the exits are at layers 2, 4, 6",
        ),
        (
            lambda: request(exit=ExitParams(min_layer=7)),
            "`min_layer` is 7, above the last exit\nhint: the exits are at layers 2, 4, 6",
        ),
        (
            lambda: request(exit=ExitParams(criterion="classifier")),
            "criterion `classifier` needs `classifier`, which the exit at layer 2 lacks\n"
            "hint: use an exit pack that has it, or another criterion",
        ),
        (
            lambda: request(exit=ExitParams(criterion="fixed", options={"layer": 5})),
            "criterion `fixed` names layer 5, which is not an exit of this request\n"
            "hint: the exits are at layers 2, 4, 6; `threshold` and `min_layer` may leave some out",
        ),
        (
            lambda: request(exit=ExitParams(criterion="fixed", threshold={2: 1.0}, options={"layer": 4})),
            "criterion `fixed` names layer 4, which is not an exit of this request\n"
            "hint: the exits are at layers 2, 4, 6; `threshold` and `min_layer` may leave some out",
        ),
    ],
)
def test_a_request_that_does_not_fit_the_model(make: Callable[[], Request], message: str) -> None:
    assert told(make) == message


@on_each_executor
def test_a_request_larger_than_the_whole_cache() -> None:
    assert told(lambda: request(max_tokens=20), num_blocks=5) == (
        "the request may grow to 23 tokens, the KV cache holds 20\n"
        "hint: lower `max_tokens`, shorten the prompt, or raise `kv_tokens`"
    )


@on_each_executor
def test_an_output_without_a_limit_ends_where_the_whole_cache_is_full() -> None:
    engine = make_engine(num_blocks=5)
    Run(engine, [request(max_tokens=None, ignore_eos=True)])
    assert (engine.sequences[0].finish_reason, engine.sequences[0].length) == ("length", 20)
    assert told(lambda: request([1] * 20, max_tokens=None), num_blocks=5) == (
        "the request may grow to 21 tokens, the KV cache holds 20\n"
        "hint: lower `max_tokens`, shorten the prompt, or raise `kv_tokens`"
    )


@on_each_executor
def test_exits_asked_of_a_model_without_any() -> None:
    assert told(lambda: request(exit=ExitParams()), exits=()) == (
        "the model has no exits\nhint: give exit layers, such as `exits=[10, 20]`, or an exit pack"
    )


@on_each_executor
@pytest.mark.parametrize("kv", ["verify", "recompute"])
def test_lockstep_serves_fill_only(kv: str) -> None:
    assert told(lambda: request(exit=ExitParams(kv=kv)), batching="lockstep") == (  # type: ignore[arg-type]
        f"`lockstep` batching cannot serve KV policy `{kv}`: it fills the KV of skipped layers before each iteration "
        "ends\nhint: use kv `fill`, or batching `compact` or `depth`"
    )


@on_each_executor
def test_a_full_queue() -> None:
    engine = make_engine(max_queue=2, max_num_seqs=1)
    engine.submit(request())
    engine.submit(request())
    with pytest.raises(QueueFull, match=r"^1 outputs wait already, at most 2 may\nhint: try again later$"):
        engine.submit(request(n=2))
    engine.step()
    engine.submit(request())


@on_each_executor
def test_whoever_finds_a_place_does_not_wait() -> None:
    engine = make_engine(max_queue=1, max_num_seqs=4)
    for _ in range(5):
        engine.submit(request())
    with pytest.raises(QueueFull, match=r"^1 outputs wait already, at most 1 may"):
        engine.submit(request())


@on_each_executor
def test_more_outputs_than_the_queue_could_ever_hold() -> None:
    assert told(lambda: request(n=7), max_queue=2, max_num_seqs=4) == (
        "`n` is 7, 4 outputs run at once and 2 may wait\nhint: ask for at most 6, or raise `max_queue`"
    )


@on_each_executor
def test_saturation_may_be_asked_for_although_the_first_exit_cannot_have_it() -> None:
    assert make_engine().submit(request(exit=ExitParams(criterion="saturation"))) == [0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SamplingParams(temperature=-1), "`temperature` must be a number at least 0, not -1"),
        (lambda: SamplingParams(temperature=float("nan")), "`temperature` must be a number at least 0, not nan"),
        (lambda: SamplingParams(top_p=0), "`top_p` must be a number greater than 0 and at most 1, not 0"),
        (lambda: SamplingParams(top_k=-1), "`top_k` must be a whole number of at least 0, not -1"),
        (lambda: SamplingParams(min_p=2), "`min_p` must be a number at least 0 and at most 1, not 2"),
        (
            lambda: SamplingParams(repetition_penalty=0),
            "`repetition_penalty` must be a number at least 0.01 and at most 100, not 0",
        ),
        (
            lambda: SamplingParams(presence_penalty=3),
            "`presence_penalty` must be a number at least -2 and at most 2, not 3",
        ),
        (lambda: SamplingParams(n=0), "`n` must be a whole number of at least 1 and at most 128, not 0"),
        (lambda: SamplingParams(max_tokens=0), "`max_tokens` must be a whole number of at least 1, not 0"),
        (
            lambda: SamplingParams(max_tokens=2, min_tokens=3),
            "`min_tokens` is 3, more than `max_tokens` 2",
        ),
        (lambda: SamplingParams(temperature=10**400), "`temperature` must be a number at least 0, not 1000"),
        (lambda: SamplingParams(stop=5), "`stop` must be non-empty strings"),  # type: ignore[arg-type]
        (
            lambda: SamplingParams(stop_token_ids=5),  # type: ignore[arg-type]
            "`stop_token_ids` must be a list of token ids",
        ),
        (lambda: SamplingParams(stop=("",)), "`stop` must be non-empty strings"),
        (
            lambda: SamplingParams(logit_bias={1: 101.0}),
            "`logit_bias` must be a number at least -100 and at most 100, not 101.0",
        ),
        (
            lambda: SamplingParams.from_dict({"temprature": 1}),
            "unknown sampling parameter `temprature`\nhint: did you mean `temperature`?",
        ),
        (lambda: ExitParams(threshold=1.5), "`threshold` must be a number at least 0 and at most 1, not 1.5"),
        (
            lambda: ExitParams(threshold={10: -0.1}),
            "`threshold` must be a number at least 0 and at most 1, not -0.1",
        ),
        (lambda: ExitParams(threshold={}), "`threshold` names no exit layer"),
        (lambda: ExitParams(kv="fil"), "`kv` cannot be 'fil'\nhint: did you mean `fill`?"),  # type: ignore[arg-type]
        (lambda: ExitParams(max_draft=65), "`max_draft` must be a whole number of at least 1 and at most 64, not 65"),
        (
            lambda: ExitParams(draft_threshold=2),
            "`draft_threshold` must be a number at least 0 and at most 1, not 2",
        ),
        (lambda: ExitParams(decay=-1), "`decay` must be a number at least 0, not -1"),
        (
            lambda: ExitParams.from_dict({"treshold": 1}),
            "unknown exit parameter `treshold`\nhint: did you mean `threshold`?",
        ),
    ],
)
def test_a_parameter_out_of_its_range(make: Callable[[], object], message: str) -> None:
    with pytest.raises(OfframpError) as error:
        make()
    assert str(error.value).startswith(message)


def test_a_schema_that_nothing_would_hold() -> None:
    assert told(lambda: request(json_schema={}, ignore_eos=False)) == (
        "the request has a JSON schema and no constraints that hold it\nhint: generate with `LLM`, which makes them"
    )
