"""JSON schemas on the default model: what it writes satisfies them, whatever the dial."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from offramp import LLM, ExitParams, SamplingParams
from tests.real.conftest import open_llm

PERSON: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "home": {
            "type": "object",
            "properties": {
                "kind": {"enum": ["house", "flat", "boat"]},
                "rooms": {"type": "integer", "minimum": 1, "maximum": 9},
            },
            "required": ["kind"],
            "additionalProperties": False,
        },
    },
    "required": ["name", "home"],
    "additionalProperties": False,
}
AGE = {"type": "integer", "minimum": 18, "maximum": 65}
COLOURS = {"type": "array", "items": {"type": "string", "maxLength": 8}, "minItems": 2, "maxItems": 3}
PROMPTS = (
    (PERSON, "Tell me about a person, in JSON."),
    (AGE, "How old are you?"),
    (COLOURS, "Name colours, as a JSON array."),
)
DIALS: dict[str, Any] = {
    "off": "off",
    "lossless": ExitParams(threshold={20: 0.5, 26: 0.4}, kv="verify", max_draft=6),
    "fill": ExitParams(threshold=0.2, kv="fill"),
    "recompute": ExitParams(threshold=0.2, kv="recompute"),
}


def satisfies(schema: dict[str, Any], value: Any) -> bool:
    """By hand, for the three schemas above."""
    if schema is AGE:
        return type(value) is int and 18 <= value <= 65
    if schema is COLOURS:
        return isinstance(value, list) and 2 <= len(value) <= 3 and all(type(v) is str and len(v) <= 8 for v in value)
    home = value["home"]
    return (
        list(value) == ["name", "home"]
        and type(value["name"]) is str
        and len(value["name"]) <= 12
        and set(home) <= {"kind", "rooms"}
        and home["kind"] in ("house", "flat", "boat")
        and home.get("rooms", 1) in range(1, 10)
    )


@pytest.fixture(scope="module")
def shipped() -> Iterator[LLM]:
    """As users have it, with the pack that comes with offramp: its exit knows some words only, and "other"."""
    with LLM(exits="smollm2-135m", max_model_len=1024, profitability=False) as llm:
        yield llm


def generate(llm: LLM, exit: Any, temperature: float) -> list[Any]:
    conversations = [[{"role": "user", "content": text}] for _, text in PROMPTS]
    samplings = [
        SamplingParams(temperature=temperature, seed=5, max_tokens=120, n=2 if temperature else 1, json_schema=schema)
        for schema, _ in PROMPTS
    ]
    first = llm.chat(conversations, samplings, exit)
    return [
        (output, schema) for one, (schema, _) in zip(first, PROMPTS, strict=True) for output in (one, *one.alternatives)
    ]


@pytest.mark.parametrize("temperature", [0.0, 0.9])
@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_outputs_satisfy_their_schemas_under_every_kv_policy(dtype: str, temperature: float) -> None:
    with open_llm(dtype=dtype) as llm:
        told = {name: generate(llm, exit, temperature) for name, exit in DIALS.items()}
    for outputs in told.values():
        assert all(output.finish_reason == "stop" for output, _ in outputs)
        assert all(satisfies(schema, json.loads(output.text)) for output, schema in outputs)
    tokens = {name: [output.token_ids for output, _ in outputs] for name, outputs in told.items()}
    assert tokens["lossless"] == tokens["off"]
    assert sum(output.report.drafts_accepted for output, _ in told["lossless"]) > 10
    assert {layer for output, _ in told["fill"] for layer in output.exit_layers} >= {20}


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_the_shipped_exit_drafts_under_a_schema(shipped: LLM, temperature: float) -> None:
    off, drafted = generate(shipped, "off", temperature), generate(shipped, "lossless", temperature)
    assert [o.token_ids for o, _ in drafted] == [o.token_ids for o, _ in off]
    assert all(satisfies(schema, json.loads(output.text)) for output, schema in drafted)
    assert sum(output.report.drafts_accepted for output, _ in drafted) > 10


def test_any_object_is_an_object_on_the_torch_executor_too() -> None:
    with open_llm(executor="torch") as llm:
        for exit in (DIALS["off"], DIALS["lossless"]):
            output = llm.chat(
                [{"role": "user", "content": "A cat, as JSON with a name."}],
                SamplingParams(max_tokens=60, json_schema={}),
                exit,
            )
            text = output.text
            assert output.finish_reason == "length" or isinstance(json.loads(text), dict)
            assert text.startswith("{")
