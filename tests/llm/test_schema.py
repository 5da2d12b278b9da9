"""JSON schemas over a tiny vocabulary of bytes: what may be said, what is refused, and why."""

from __future__ import annotations

import json
import math
import random
import sys
from typing import Any

import pytest

from offramp.errors import InvalidParameter, MissingDependency, Unsupported
from offramp.llm import schema
from offramp.llm.schema import SchemaCompiler, SchemaConstraint
from offramp.tokenizer import Tokenizer, tokenizer_from_folder
from offramp.types.executor import ModelShape
from offramp.types.sampling import SamplingParams
from tests.executors.masks import tokens_of
from tests.models.toys import VOCAB, save_model

END = 0
PADDED = len(VOCAB) + 30
"""Models have more tokens than their tokenizers."""
POINT: dict[str, Any] = {
    "type": "object",
    "properties": {"x": {"type": "integer", "minimum": -3, "maximum": 12}, "kind": {"enum": ["a", "ab"]}},
    "required": ["x", "kind"],
    "additionalProperties": False,
}


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "integer"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("toy")
    save_model(folder)
    backend = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    end = {"id": END, "content": "<|end|>", "special": True, "normalized": False}
    backend["added_tokens"] = [{**end, "single_word": False, "lstrip": False, "rstrip": False}]
    (folder / "tokenizer.json").write_text(json.dumps(backend), encoding="utf-8")
    return tokenizer_from_folder(folder)


def shape(eos: tuple[int, ...] = (END,)) -> ModelShape:
    return ModelShape(2, (1,), PADDED, 64, eos, 4, 16)


@pytest.fixture(scope="module")
def compiler(tokenizer: Tokenizer) -> SchemaCompiler:
    return SchemaCompiler(tokenizer, shape())


def may_say(compiler: SchemaCompiler, schema: dict[str, Any], text: str) -> bool:
    """Whether `text`, byte by byte, is what a schema allows, and the end may follow."""
    (constraint,) = compiler.constraints(schema, 1)
    for byte in text.encode():
        token = next(t for t, piece in enumerate(VOCAB) if t and compiler._tokenizer.token_bytes(t) == bytes([byte]))
        if token not in tokens_of(constraint.allowed()):
            return False
        constraint.push(token)
    return END in tokens_of(constraint.allowed())


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ('{"x":3,"kind":"ab"}', True),
        ('{"x": -3, "kind": "a"}', True),
        ('{\n  "x": 12,\n  "kind": "a"\n}', True),
        ('{"x":13,"kind":"a"}', False),
        ('{"x":3,"kind":"b"}', False),
        ('{"x":3}', False),
        ('{"x":3,"kind":"a"', False),
        ('{"x":3,"kind":"a","y":1}', False),
        ('{\n\n\n"x":3,"kind":"a"}', False),
        ("[]", False),
    ],
)
def test_only_what_satisfies_the_schema_may_be_said(compiler: SchemaCompiler, text: str, good: bool) -> None:
    # Where one token must come, it is the one that the model itself would write: "ab" is one.
    free = {**POINT, "properties": {**POINT["properties"], "kind": {"enum": ["a", "ac"]}}}
    text = text.replace('"ab"', '"ac"')
    assert may_say(compiler, free, text) is good


@pytest.mark.parametrize("schema", [{}, {"type": "object"}])
def test_an_empty_schema_is_any_object(compiler: SchemaCompiler, schema: dict[str, Any]) -> None:
    assert may_say(compiler, schema, '{"a": [1, null, {"b": "\u00e9"}]}') and may_say(compiler, schema, "{}")
    assert not may_say(compiler, schema, "3") and not may_say(compiler, schema, "[]")


def test_once_all_is_said_only_the_end_may_follow(compiler: SchemaCompiler) -> None:
    (constraint,) = compiler.constraints({"const": 7}, 1)
    constraint.push(VOCAB.index("7"))
    assert tokens_of(constraint.allowed()) == {END}


def test_a_special_token_is_no_text(compiler: SchemaCompiler, tokenizer: Tokenizer) -> None:
    (constraint,) = compiler.constraints({"enum": ["<|end|>"]}, 1)
    constraint.push(VOCAB.index('"'))
    for char in "<|end|>":
        assert tokens_of(constraint.allowed()) == {VOCAB.index(char)}
        constraint.push(VOCAB.index(char))
    (constraint,) = compiler.constraints({"type": "string"}, 1)
    constraint.push(VOCAB.index('"'))
    allowed = tokens_of(constraint.allowed())
    assert END not in allowed and max(allowed) < len(VOCAB) and len(allowed) > 90


def test_text_that_must_come_is_spelled_as_the_model_would(compiler: SchemaCompiler) -> None:
    (constraint,) = compiler.constraints({"const": "abc"}, 1)
    constraint.push(VOCAB.index('"'))
    assert tokens_of(constraint.allowed()) == {VOCAB.index("ab")}


def test_outputs_have_a_constraint_each_and_rolling_back_gives_the_same_masks(compiler: SchemaCompiler) -> None:
    one, two = compiler.constraints(POINT, 2)
    masks = []
    for char in '{"x":3':
        masks.append(one.allowed())
        one.push(VOCAB.index(char))
    assert two.allowed() == masks[0]
    for count in (1, 3, 2):
        one.rollback(count)
        masks, behind = masks[:-count], masks[-count]
        assert one.allowed() == behind
    assert one.allowed() == two.allowed()


def test_masks_computed_together_are_those_computed_alone(compiler: SchemaCompiler) -> None:
    (costly,) = compiler.constraints({"type": "string", "pattern": "^.*a.{40}$"}, 1)
    some = [*compiler.constraints(POINT, 3), *compiler.constraints({}, 1), costly]
    for number, said in enumerate(('{"x":', '{"x":1', "", '{"a"')):
        for char in said:
            some[number].push(VOCAB.index(char))
    alone = [tokens_of(one.copy().allowed()) for one in some]

    def together(*asked: SchemaConstraint) -> list[set[int] | str]:
        masks = asked[0].allowed_beside(asked[1:])
        return [tokens_of(mask) if isinstance(mask, bytes) else str(mask) for mask in masks]

    assert together(*some) == alone and together(some[2]) == [alone[2]]
    costly.push(VOCAB.index('"'))
    pick = random.Random(1)
    for _ in range(3000):
        costly.push(VOCAB.index(pick.choice("ab")))
        first, last = together(some[0], costly)
        assert first == alone[0]
        if isinstance(last, str):
            break
    assert "too many states" in last


def test_a_token_that_is_not_allowed_is_an_error_and_stays_one(compiler: SchemaCompiler) -> None:
    (constraint,) = compiler.constraints(POINT, 1)
    for use in (lambda: constraint.push(VOCAB.index("x")), constraint.allowed, lambda: constraint.rollback(1)):
        with pytest.raises(ValueError, match="doesn't satisfy the grammar"):
            use()


def told(compiler: SchemaCompiler, schema: Any) -> str:
    with pytest.raises(InvalidParameter) as error:
        compiler.constraints(schema, 1)
    assert error.value.param == "json_schema"
    return error.value.message


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"type": "objekt"}, "Invalid type: objekt"),
        ({"type": "object", "properties": 3}, "properties must be an object"),
        ({"type": "object", "not": {}}, 'Unimplemented keys: ["not"]'),
        (
            {"minimum": 3, "maximum": 2, "type": "integer"},
            "Unsatisfiable schema: minimum (3) is greater than maximum (2)",
        ),
        ({"$ref": "#/definitions/x"}, "Pointer '/definitions/x' does not exist"),
        ({"$ref": "#"}, "NoExtensionBias"),
        (
            {"type": "array", "uniqueItems": True, "x-guidance": {"lenient": True}},
            'Unimplemented keys: ["uniqueItems"]',
        ),
    ],
)
def test_a_bad_schema_is_refused_with_the_reason(compiler: SchemaCompiler, schema: Any, reason: str) -> None:
    assert told(compiler, schema).startswith(f"`json_schema` cannot be used: {reason}")


def test_schemas_that_are_too_much_are_refused(compiler: SchemaCompiler) -> None:
    both = {"anyOf": [{"$ref": "#/$defs/1"}, {"$ref": "#/$defs/1"}]}
    doubling = {"$defs": {str(i): json.loads(json.dumps(both).replace("1", str(i + 1))) for i in range(30)}}
    doubling["$defs"] = {k: {"allOf": [v, v]} for k, v in doubling["$defs"].items()} | {"30": {"type": "string"}}
    wide = {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(2000)}}
    assert "schema too large" in told(compiler, {**doubling, "$ref": "#/$defs/0"})
    assert "number of symbols) too big" in told(compiler, wide)


def test_what_costs_too_much_later_breaks_off_then(compiler: SchemaCompiler) -> None:
    """The states of this pattern double with every character."""
    (constraint,) = compiler.constraints({"type": "string", "pattern": "^.*a.{40}$"}, 1)
    constraint.push(VOCAB.index('"'))
    with pytest.raises(ValueError, match="too many states"):
        pick = random.Random(1)
        for _ in range(3000):
            constraint.push(VOCAB.index(pick.choice("ab")))
            constraint.allowed()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"json_schema": [1]}, "`json_schema` must be a JSON object, not [1]"),
        (
            {"json_schema": {"const": math.nan}},
            "`json_schema` is not JSON: Out of range float values are not JSON compliant",
        ),
        ({"json_schema": {"const": b"x"}}, "`json_schema` is not JSON: Object of type bytes is not JSON serializable"),
        (
            {"json_schema": nested(10_000)},
            "`json_schema` is nested too deeply, at most 100 levels are allowed",
        ),
        ({"json_schema": {"const": "x" * 2**16}}, "`json_schema` has 65549 bytes, at most 65536 are allowed"),
        (
            {"json_schema": {}, "ignore_eos": True},
            "`json_schema` cannot be given with `ignore_eos`: only the end may follow what satisfies it\n"
            "hint: leave out `ignore_eos`",
        ),
        (
            {"json_schema": {}, "min_tokens": 3},
            "`json_schema` cannot be given with `min_tokens`: only the end may follow what satisfies it\n"
            "hint: leave out `min_tokens`",
        ),
    ],
)
def test_parameters_that_cannot_be(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidParameter) as error:
        SamplingParams.from_dict(values)
    assert str(error.value) == message


def test_preparing_reads_the_vocabulary_unless_there_can_be_no_schema(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = SchemaCompiler(tokenizer, shape())
    prepared.prepare()
    assert "_workshop" in vars(prepared)
    endless = SchemaCompiler(tokenizer, shape(()))
    endless.prepare()
    monkeypatch.setattr(schema, "find_spec", lambda name: None)
    alone = SchemaCompiler(tokenizer, shape())
    alone.prepare()
    assert "_workshop" not in vars(endless) | vars(alone)


def test_a_model_without_an_end_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(Unsupported, match="has no end-of-sequence token"):
        SchemaCompiler(tokenizer, shape(())).constraints({}, 1)


def test_without_llguidance_the_error_names_the_extra(
    compiler: SchemaCompiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(MissingDependency) as error:
        compiler.constraints({}, 1)
    assert str(error.value) == (
        "`json_schema` needs llguidance, which is not installed\nhint: pip install 'offramp[server]'"
    )
