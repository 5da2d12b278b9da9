"""The harness's interface. The harness itself is an extra that tests do without: its base class is stood in for."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from offramp import ExitParams, SamplingParams
from offramp.errors import MissingDependency, Unsupported
from offramp.llm import LLM
from tests.evaluate.test_likelihood import transformers_log_probs
from tests.models.t5_toys import save_t5

MODULE = "offramp.evaluate.lm_eval"


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Our module, imported with a stand-in for the harness."""
    for name in ("lm_eval", "lm_eval.api", "lm_eval.api.model"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    sys.modules["lm_eval.api.model"].LM = type("LM", (), {})  # type: ignore[attr-defined]
    sys.modules.pop(MODULE, None)
    from offramp.evaluate import lm_eval

    yield lm_eval
    sys.modules.pop(MODULE, None)


def asked(*arguments: Any) -> list[Any]:
    """Requests as the harness makes them."""
    return [SimpleNamespace(args=args) for args in arguments]


def expected(model: Path, tokens: list[int], start: int) -> tuple[float, bool]:
    scores = transformers_log_probs(model, tokens)
    pairs = [(scores[p - 1], tokens[p]) for p in range(start, len(tokens))]
    return sum(float(row[token]) for row, token in pairs), all(int(row.argmax()) == token for row, token in pairs)


def test_a_continuation_is_as_likely_as_transformers_says(harness: Any, llm: LLM, model: Path) -> None:
    encode = llm.tokenizer.encode
    greedy = llm.generate([encode("once")], SamplingParams(max_tokens=1))[0].text
    pairs = [("one two", " three"), ("one two ", "three"), ("", "alone"), ("once", greedy)]
    found = harness.OfframpLM(llm).loglikelihood(asked(*pairs))
    texts = [(encode("one two three"), 7), (encode("one two three"), 7), ([0, *encode("alone")], 1)]
    for (tokens, start), (log_prob, is_greedy) in zip(texts, found, strict=False):
        wanted, wanted_greedy = expected(model, tokens, start)
        assert log_prob == pytest.approx(wanted, abs=0.05) and is_greedy == wanted_greedy
    assert len(encode("once" + greedy)) > 4 or found[3][1]


def test_a_context_that_is_too_long_loses_its_beginning(harness: Any, llm: LLM, model: Path) -> None:
    tokens = llm.tokenizer.encode("x" * 150 + "yz")
    ((log_prob, _),) = harness.OfframpLM(llm).loglikelihood(asked(("x" * 150, "yz")))
    assert log_prob == pytest.approx(expected(model, tokens[-128:], 126)[0], abs=0.05)


@pytest.mark.parametrize("length", [1, 127, 128, 300])
def test_every_token_of_a_long_text_counts_once(length: int, harness: Any, llm: LLM, model: Path) -> None:
    tokens = [5 + i * 37 % 200 for i in range(length)]
    text = llm.tokenizer.decode(tokens)
    tokens = llm.tokenizer.encode(text, False)
    windows = harness.OfframpLM(llm)._windows(tokens)
    assert [t for w in windows for t in w.tokens[w.start :]] == tokens
    assert all(len(w.tokens) <= 128 for w in windows) and all(len(w.tokens) == 128 for w in windows[1:])
    (found,) = harness.OfframpLM(llm).loglikelihood_rolling(asked((text,)))
    assert found == pytest.approx(sum(expected(model, list(w.tokens), w.start)[0] for w in windows), abs=0.5)


def test_generation_stops_where_the_task_says_at_the_setting_asked_for(harness: Any, llm: LLM) -> None:
    dial = ExitParams(threshold=0.25)
    (whole,) = llm.generate(["abc"], SamplingParams(max_tokens=9), dial)
    until = whole.text[4:6]
    requests = asked(
        ("abc", {"until": [until, ""], "max_gen_toks": 9}), ("abc", {"max_new_tokens": 9, "do_sample": False})
    )
    cut, full = harness.OfframpLM(llm, dial).generate_until(requests)
    assert full == whole.text and cut == whole.text.partition(until)[0]
    assert full != harness.OfframpLM(llm).generate_until(requests)[1]


def test_a_setting_that_offramp_lacks_is_refused(harness: Any, llm: LLM) -> None:
    with pytest.raises(Unsupported, match=r"^the task asks for `num_beams` in generation\nhint: "):
        harness.OfframpLM(llm).generate_until(asked(("abc", {"num_beams": 4})))


def test_without_the_harness_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    sys.modules.pop(MODULE, None)
    with pytest.raises(MissingDependency, match=r"hint: pip install 'offramp\[eval\]'"):
        __import__(MODULE)


def test_a_model_with_an_encoder_is_refused(harness: Any, tmp_path: Path) -> None:
    save_t5(tmp_path)
    with LLM(str(tmp_path), exits=[1]) as llm, pytest.raises(Unsupported, match="lm_eval asks how texts go on"):
        harness.OfframpLM(llm)
