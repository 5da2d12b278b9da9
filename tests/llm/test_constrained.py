"""JSON schemas through `LLM`, over a tiny random checkpoint, which would never write JSON of its own accord."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from offramp import LLM, ExitParams, OfframpError, SamplingParams
from tests.models.toys import save_model

POINT: dict[str, Any] = {
    "type": "object",
    "properties": {"x": {"type": "integer", "minimum": -3, "maximum": 12}, "kind": {"enum": ["a", "b"]}},
    "required": ["x", "kind"],
    "additionalProperties": False,
}
ONE_OF_TWO: dict[str, Any] = {"enum": ["left", "right"]}


@pytest.fixture(scope="module", params=["torch", "native"])
def llm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LLM]:
    folder = tmp_path_factory.mktemp("toy")
    save_model(folder, num_hidden_layers=4, max_position_embeddings=512)
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|end|>"}), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OFFRAMP_CACHE", str(tmp_path_factory.mktemp("cache")))
        dtype = "float64" if request.param == "torch" else "auto"
        with LLM(str(folder), exits=[1, 2], executor=request.param, dtype=dtype, profitability=False) as llm:
            yield llm


@pytest.mark.parametrize("exit", ["off", ExitParams(threshold=0.0, kv="verify"), ExitParams(threshold=0.3)])
def test_every_output_satisfies_its_own_schema(llm: LLM, exit: Any) -> None:
    ways = [
        SamplingParams(n=4, temperature=1.0, seed=2, max_tokens=None, json_schema=POINT),
        SamplingParams(n=4, temperature=1.0, seed=3, json_schema=ONE_OF_TWO),
        SamplingParams(max_tokens=5),
    ]
    points, words, free = llm.generate(["abc", "abc", "xyz"], ways, exit)
    for output in (points, *points.alternatives):
        point = json.loads(output.text)
        assert output.finish_reason == "stop"
        assert set(point) == {"x", "kind"} and point["x"] in range(-3, 13) and point["kind"] in ("a", "b")
    assert {json.loads(o.text) for o in (words, *words.alternatives)} <= {"left", "right"}
    assert len({o.text for o in (points, *points.alternatives)}) > 1
    assert free == llm.generate("xyz", ways[2], exit)


def test_lossless_equals_off_under_a_schema(llm: LLM) -> None:
    sampling = SamplingParams(temperature=0.8, seed=4, max_tokens=None, json_schema=POINT)
    off = llm.generate("abc", sampling)
    for max_draft in (1, 3, 8):
        drafted = llm.generate("abc", sampling, ExitParams(threshold=0.0, kv="verify", max_draft=max_draft))
        assert drafted.token_ids == off.token_ids and drafted.report.drafts_accepted > 0


def test_a_stream_under_a_schema_adds_up(llm: LLM) -> None:
    sampling = SamplingParams(json_schema=ONE_OF_TWO)
    text = "".join(chunk.text for chunk in llm.stream("abc", sampling))
    assert text == llm.generate("abc", sampling).text and json.loads(text) in ("left", "right")


def test_an_output_that_is_cut_off_is_the_beginning_of_one_that_satisfies_it(llm: LLM) -> None:
    whole = llm.generate("abc", SamplingParams(max_tokens=None, json_schema=POINT))
    cut = llm.generate("abc", SamplingParams(max_tokens=3, json_schema=POINT))
    assert cut.finish_reason == "length" and cut.token_ids == whole.token_ids[:3]


def test_a_bad_schema_is_refused_before_anything_starts(llm: LLM) -> None:
    good, bad = SamplingParams(json_schema=POINT), SamplingParams(json_schema={"type": "objekt"})
    with pytest.raises(OfframpError, match=r"^`json_schema` cannot be used: Invalid type: objekt\n"):
        llm.generate(["abc", "abc"], [good, bad])
    assert not llm.engine.has_work and not llm.engine.sequences
