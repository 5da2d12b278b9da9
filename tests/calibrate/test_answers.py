"""When an output is the right completion."""

from __future__ import annotations

import pytest

from offramp.calibrate.answers import check_room, same_answer
from offramp.errors import InvalidParameter
from offramp.llm import LLM


@pytest.mark.parametrize(
    ("text", "completion", "right"),
    [
        ("two", " two\n", True),
        ("two.", "two", False),
        ("Two", "two", False),
        ("", "two", False),
        ('{"b": [1, 2], "a": null}', ' {"a":null,"b":[1,2]}', True),
        ('{"a":null,"b":[2,1]}', '{"a":null,"b":[1,2]}', False),
        ('{"a":null}', '{"a":null,"b":1}', False),
        ('{"a":1.0}', '{"a":1}', False),
        ('{"a":true}', '{"a":1}', False),
        ('{"a":"1"}', '{"a":1}', False),
        ('{"a":"\\u00e9"}', '{"a":"é"}', True),
        ('{"a":1} {"a":1}', '{"a":1}', False),
        ('{"a":1', '{"a":1}', False),
        ('so: {"a":1}', '{"a":1}', False),
        ("[1,\n2]", "[1, 2]", True),
        ("18.0", "18", False),
        ('"two"', "two", False),
        ("[" * 100_000, "[1]", False),
        ("{'a': 1}", "{'a': 1}", True),
        ("{'a':1}", "{'a': 1}", False),
    ],
)
def test_an_output_is_right_as_text_or_as_the_same_json_value(text: str, completion: str, right: bool) -> None:
    assert same_answer(text, completion) is right


def test_a_completion_longer_than_what_is_generated_is_told(llm: LLM) -> None:
    check_room([], llm.tokenizer, 1)
    check_room([" 12", "a"], llm.tokenizer, 4)
    with pytest.raises(InvalidParameter) as error:
        check_room(["a", " 12"], llm.tokenizer, 3)
    assert str(error.value) == (
        "a completion takes 4 tokens, and at most 3 are generated\nhint: give `--max-tokens 4` or more"
    )
