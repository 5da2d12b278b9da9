"""The T5 that comes with offramp: against Transformers, and how much it gets right."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import transformers

from examples.restoration.simulate import answers, read_exits
from offramp import LLM, ExitParams, SamplingParams
from offramp.evaluate.likelihood import likelihoods
from offramp.exits.read import read_pack
from offramp.llm.forced import Forced
from offramp.models import load_any, resolve

PASSAGES = [
    (
        "the critical question is not whether we will grow but how we will use that growth",
        "The critical question is not whether we will grow, but how we will use that growth.",
    ),
    (
        "appropriately versioned pip commands may also be avaialble",
        "Appropriately versioned pip commands may also be available.",
    ),
    ("post an article using the post command", "Post an article using the POST command."),
    (
        "but of one thing i am sure something must be done and done sn",
        "But of one thing I am sure: something must be done, and done soon.",
    ),
    ("tey return the unpacked object", "They return the unpacked object."),
    (
        "as yet however the sperm whale scientific or poetic lives not complete in any literature",
        "As yet, however, the sperm whale, scientific or poetic, lives not complete in any literature.",
    ),
    (
        "set the memory block allocstor of the spcfd domain",
        "Set the memory block allocator of the specified domain.",
    ),
    (
        "the piwer of congrss is ample to deal with this threatening and intolerable abuse",
        "The power of Congress is ample to deal with this threatening and intolerable abuse.",
    ),
    (
        "i earnestly recommend the consideeration of ths subject to congress",
        "I earnestly recommend the consideration of this subject to Congress.",
    ),
    (
        "an optional pointer to an instance creation function",
        "An optional pointer to an instance creation function.",
    ),
    (
        "a string is a sequence of values tht reepresent unicode code points",
        "A string is a sequence of values that represent Unicode code points.",
    ),
]
"""What was typed and what was meant: the first short ones of the test set, of documents that training never saw."""

GREEDY = SamplingParams(max_tokens=40)


@pytest.fixture(scope="module")
def llm() -> Iterator[LLM]:
    with LLM("t5-restore", exits="t5-restore", executor="torch", profitability=False) as llm:
        yield llm


def test_greedy_tokens_are_those_of_transformers(llm: LLM) -> None:
    weights = load_any("t5-restore").weights
    config = transformers.T5Config.from_pretrained(resolve("t5-restore").path)
    model: Any = transformers.T5ForConditionalGeneration(config).eval()
    state = {name: torch.tensor(weights.load(name)).float() for name in weights.shapes()}
    assert not model.load_state_dict(state, strict=False).unexpected_keys
    model.tie_weights()
    sources = [source for source, _ in PASSAGES[:4]]
    outputs = llm.generate(sources, GREEDY)
    for source, output in zip(sources, outputs, strict=True):
        ids = torch.tensor([llm.tokenizer.encode(source)])
        made = model.generate(
            ids, do_sample=False, use_cache=False, max_new_tokens=40, decoder_start_token_id=0, eos_token_id=1
        )
        assert list(output.token_ids) == made[0, 1:].tolist()
    assert [output.text for output in outputs[:2]] == [target for _, target in PASSAGES[:2]]


def test_most_tokens_of_texts_it_never_saw_are_right(llm: LLM) -> None:
    def encode(text: str) -> list[int]:
        return llm.tokenizer.encode(text)

    given = [Forced((0, *encode(target)), 1, encode(source)) for source, target in PASSAGES]
    pairs = [
        (seen.choice, token)
        for text, found in zip(given, likelihoods(llm.engine, given), strict=True)
        for seen, token in zip(found, text.tokens[1:], strict=True)
    ]
    assert sum(choice == token for choice, token in pairs) > 0.9 * len(pairs)


@pytest.mark.parametrize(("batching", "when"), [("lockstep", "iteration"), ("compact", "lazy")])
def test_the_engine_writes_what_the_example_simulates(batching: Any, when: Any) -> None:
    """Alone under `lockstep`, where rows wait for those that stay, and so run deeper than they would have to."""
    sources, exits = [source for source, _ in PASSAGES[4:8]], read_exits(resolve("t5-restore").path)
    with LLM("t5-restore", exits="t5-restore", executor="torch", profitability=False, batching=batching) as llm:
        ids = [llm.tokenizer.encode(source) for source in sources]
        for criterion, threshold in (("max_prob", 0.9), ("classifier", 0.7)):
            simulated = answers(exits, ids, criterion, threshold, first_leaves=False)
            setting = ExitParams(criterion, threshold, kv="fill", fill_when=when)
            groups = [sources] if batching == "compact" else [[source] for source in sources]
            outputs = [output for group in groups for output in llm.generate(group, GREEDY, setting)]
            assert [(list(o.token_ids), list(o.exit_layers)) for o in outputs] == [tuple(a) for a in simulated]
            assert any(layer < 16 for answer in simulated for layer in answer.layers)


def test_its_calibrations_are_of_this_model_and_these_exits() -> None:
    pack = read_pack("t5-restore")
    assert {c.loss for c in pack.calibrations} >= {"text", "reference"}
    assert {(c.key.model, c.key.pack) for c in pack.calibrations} == {(load_any("t5-restore").identity, pack.identity)}


def test_its_exits_leave_early_and_lossless_changes_nothing(llm: LLM) -> None:
    sources = [source for source, _ in PASSAGES[4:8]]
    full = llm.generate(sources, GREEDY)
    assert [o.token_ids for o in llm.generate(sources, GREEDY, "lossless")] == [o.token_ids for o in full]
    for criterion, threshold in (("max_prob", 0.9), ("margin", 0.9), ("classifier", 0.7)):
        early = llm.generate(sources, GREEDY, ExitParams(criterion, threshold, kv="fill"))
        layers = [layer for output in early for layer in output.exit_layers]
        assert sum(layers) / len(layers) < 12, criterion
