"""Random masks of allowed tokens in the core against the torch executor, beside all kinds of sampling."""

from __future__ import annotations

import random
from typing import Any

import pytest

from offramp import _native
from offramp.exits.pack import ExitSpec
from offramp.types.executor import ScoreRow
from tests.executors.masks import packed, tokens_of
from tests.executors.toys import Toy, make_toy
from tests.native.test_score import HEADS, NEEDS, REDUCED, VOCAB, assert_close, executors, random_rows


@pytest.fixture(scope="module")
def toy() -> Toy:
    return make_toy(vocab_size=VOCAB, num_hidden_layers=3)


def masked_rows(seed: int) -> list[ScoreRow]:
    """Rows with masks that allow many tokens, some, few, one, none, no word of a reduced head, or only its words."""
    pick = random.Random(seed)
    kinds = [
        lambda: pick.sample(range(VOCAB), VOCAB - 5),
        lambda: pick.sample(range(VOCAB), VOCAB // 3),
        lambda: pick.sample(range(VOCAB), 7),
        lambda: pick.sample(range(VOCAB), 1),
        lambda: pick.sample(range(0, VOCAB, 2), 9),
        lambda: pick.sample(REDUCED, 9),
        list,
    ]
    return [
        row._replace(allowed=packed(pick.choice(kinds)())) if pick.random() < 0.8 else row for row in random_rows(seed)
    ]


@pytest.mark.parametrize("fields", HEADS)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_masked_rows_are_scored_as_by_torch(toy: Toy, fields: dict[str, Any], seed: int) -> None:
    torch, native = executors(toy, ExitSpec(1, **fields), threads=2)
    rows = masked_rows(seed)
    for boundary, needs in ((1, NEEDS), (2, NEEDS - {"classifier"})):
        theirs = torch.score(boundary, rows, needs)
        assert_close(native.score(boundary, rows, needs), theirs)
        assert_close(
            native.score(boundary, rows, needs, choose=False), torch.score(boundary, rows, needs, choose=False)
        )
        for row, scored in zip(rows, theirs, strict=True):
            assert scored.token is None or row.allowed is None or scored.token in tokens_of(row.allowed)
        assert len({s.token for s in theirs}) > 20 and None in {s.token for s in theirs}


def test_a_masked_row_is_scored_the_same_alone_and_on_any_instruction_set(toy: Toy) -> None:
    spec = ExitSpec(1, vocabulary="frequent", other=True, adapter="mlp", classifier="mlp")
    rows = masked_rows(seed=4)
    together = executors(toy, spec, dtype="int8", threads=2)[1].score(1, rows, NEEDS)
    for isa in _native.supported_isas():
        _native.choose_isa(isa)
        native = executors(toy, spec, dtype="int8", threads=1)[1]
        assert native.score(1, rows, NEEDS) == together
        assert [native.score(1, [row], NEEDS)[0] for row in rows] == together


def test_a_mask_of_another_type_is_refused(toy: Toy) -> None:
    native = executors(toy, ExitSpec(1))[1]
    for wrong in ([1, 2], "ab", bytearray(b"ab"), 3):
        with pytest.raises(TypeError, match=r"^a mask must be `bytes`$"):
            native.score(1, [random_rows(1)[0]._replace(allowed=wrong)], frozenset())  # type: ignore[arg-type]
