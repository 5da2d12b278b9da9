"""Scoring in the core: rows as Python gives them, all kinds of sampling mixed, against the torch executor."""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from offramp import _native
from offramp.exits.pack import ExitSpec
from offramp.types.executor import Executor, Feature, Scored, ScoreRow
from offramp.types.sampling import SamplingParams
from tests.executors.kinds import make_executor, write_hidden
from tests.executors.toys import Toy, make_pack, make_toy

VOCAB = 1100
"""More than one stretch of softmax statistics, and no multiple of one."""
REDUCED = tuple(range(1, VOCAB, 2))
ROWS = 70
"""More than one block of rows."""
NEEDS: frozenset[Feature] = frozenset({"max_prob", "margin", "entropy", "classifier"})
NO_NEEDS: frozenset[Feature] = frozenset()


@pytest.fixture(scope="module")
def toy() -> Toy:
    return make_toy(vocab_size=VOCAB, num_hidden_layers=3)


def executors(
    toy: Toy, spec: ExitSpec, vocabulary: Sequence[int] = REDUCED, **native: Any
) -> tuple[Executor, Executor]:
    """The torch executor in float64 and the native one in float32, with one exit and the same hidden states there."""
    pack = make_pack(toy, spec, vocabulary if spec.vocabulary else None)
    options = {"block_size": 4, "num_blocks": 20}
    both = (
        make_executor("torch", toy.spec, toy.source, pack, **options),
        make_executor("native", toy.spec, toy.source, pack, **options, **native),
    )
    hidden = np.random.default_rng(5).normal(0, 1, (2, ROWS, toy.spec.hidden_size)).round(4)
    for executor in both:
        for boundary in (1, 2):
            write_hidden(executor, boundary, range(ROWS), hidden[boundary - 1])
    return both


def random_sampling(pick: random.Random) -> SamplingParams:
    return SamplingParams(
        temperature=pick.choice([0.0, 0.5, 1.0, 2.0]),
        top_k=pick.choice([0, 0, 1, 20, 5000]),
        top_p=pick.choice([1.0, 1.0, 0.5, 0.95]),
        min_p=pick.choice([0.0, 0.0, 0.05]),
        repetition_penalty=pick.choice([1.0, 1.0, 1.4]),
        presence_penalty=pick.choice([0.0, 0.7]),
        frequency_penalty=pick.choice([0.0, -0.4]),
        logit_bias={pick.randrange(VOCAB): pick.uniform(-3, 1) for _ in range(pick.choice([0, 2]))},
        logprobs=pick.choice([None, 0, 7]),
    )


def random_rows(seed: int) -> list[ScoreRow]:
    """A row for each slot; some share their parameters."""
    pick = random.Random(seed)
    shared = random_sampling(pick)
    rows = []
    for position in range(ROWS):
        sampling = shared if pick.random() < 0.3 else random_sampling(pick)
        history = [pick.randrange(VOCAB) for _ in range(12)]
        banned = pick.sample(range(VOCAB + 5), pick.choice([0, 3]))
        rows.append(ScoreRow(position, range(18), sampling, pick.getrandbits(63), history[:8], history[8:], banned))
    pick.shuffle(rows)
    return rows


def assert_close(ours: Sequence[Scored], theirs: Sequence[Scored]) -> None:
    assert [s.token for s in ours] == [s.token for s in theirs]
    for a, b in zip(ours, theirs, strict=True):
        assert a.features == pytest.approx(b.features, abs=2e-5)
        assert (a.logprobs is None) == (b.logprobs is None)
        if a.logprobs is not None and b.logprobs is not None:
            assert [t for t, _ in a.logprobs] == [t for t, _ in b.logprobs]
            assert [p for _, p in a.logprobs] == pytest.approx([p for _, p in b.logprobs], abs=1e-4)


HEADS: list[dict[str, Any]] = [
    {"classifier": "linear"},
    {"adapter": "linear", "norm": "own", "temperature": 1.6, "classifier": "mlp"},
    {"vocabulary": "frequent", "classifier": "linear", "norm": "none"},
    {"vocabulary": "frequent", "head": "own", "other": True, "adapter": "mlp", "classifier": "mlp"},
]


@pytest.mark.parametrize("fields", HEADS)
def test_mixed_rows_are_scored_as_by_torch(toy: Toy, fields: dict[str, Any]) -> None:
    torch, native = executors(toy, ExitSpec(1, **fields), threads=2)
    rows = random_rows(seed=1)
    theirs = torch.score(1, rows, NEEDS)
    assert_close(native.score(1, rows, NEEDS), theirs)
    assert len({s.token for s in theirs}) > 20
    assert_close(native.score(1, rows, NEEDS, choose=False), torch.score(1, rows, NEEDS, choose=False))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_top_p_is_a_share_of_what_may_be_chosen(toy: Toy, temperature: float) -> None:
    """ "Other" may not, and beside eight tokens it weighs much."""
    torch, native = executors(toy, ExitSpec(1, vocabulary="few", other=True), range(0, 40, 5))
    for top_p in (0.3, 0.5, 0.7, 0.9, 0.99):
        sampling = SamplingParams(temperature=temperature, top_p=top_p)
        rows = [ScoreRow(p, range(18), sampling, seed) for p in range(ROWS) for seed in range(4)]
        assert_close(native.score(1, rows, NO_NEEDS), torch.score(1, rows, NO_NEEDS))


def test_the_top_compares_with_the_exit_below(toy: Toy) -> None:
    torch, native = executors(toy, ExitSpec(1))
    needs: frozenset[Feature] = frozenset({"saturation", "margin"})
    rows = random_rows(seed=2)
    assert_close(native.score(2, rows, needs), torch.score(2, rows, needs))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8", "int4"])
def test_a_row_is_scored_the_same_alone_and_on_any_instruction_set(toy: Toy, dtype: str) -> None:
    spec = ExitSpec(1, vocabulary="frequent", other=True, adapter="mlp", classifier="mlp")
    rows = random_rows(seed=3)
    together = executors(toy, spec, dtype=dtype, threads=2)[1].score(1, rows, NEEDS)
    assert len({s.token for s in together}) > 20
    for isa in _native.supported_isas():
        _native.choose_isa(isa)
        native = executors(toy, spec, dtype=dtype, threads=1)[1]
        assert native.score(1, rows, NEEDS) == together
        assert [native.score(1, [row], NEEDS)[0] for row in rows] == together


def test_rows_may_be_given_as_any_sequences(toy: Toy) -> None:
    native = executors(toy, ExitSpec(1))[1]
    rows = random_rows(seed=4)
    expected = native.score(1, rows, NEEDS - {"classifier"})
    kinds: tuple[Any, ...] = (tuple, list, np.array)
    for kind in kinds:
        given = [row._replace(blocks=kind(row.blocks), banned=tuple(row.banned)) for row in rows]
        assert native.score(1, tuple(given), NEEDS - {"classifier"}) == expected


def test_seeds_count_modulo_2_to_the_64_and_ids_that_are_no_tokens_for_nothing(toy: Toy) -> None:
    native = executors(toy, ExitSpec(1))[1]
    rows = [ScoreRow(3, [0], SamplingParams(temperature=3.0), seed) for seed in range(20)]
    expected = native.score(1, rows, frozenset())
    assert len({s.token for s in expected}) > 5
    odd = [row._replace(seed=row.seed + 2**64, banned=[-1, VOCAB, 2**31, 2**70, -(2**70)]) for row in rows]
    assert native.score(1, odd, frozenset()) == expected


def test_features_are_those_asked_for(toy: Toy) -> None:
    native = executors(toy, ExitSpec(1, classifier="linear"))[1]
    row = ScoreRow(0, [0], SamplingParams(), 0)
    for boundary in (1, 2):
        for need in sorted(native.features_at(boundary)):
            scored = native.score(boundary, [row], frozenset({need}), choose=False)[0]
            assert type(scored) is Scored
            assert (scored.token, list(scored.features), scored.logprobs) == (None, [need], None)
    assert native.score(1, [row], frozenset({"saturation"}))[0].features == {}
    assert native.score(1, [], NEEDS) == []


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (ScoreRow(4, [0], SamplingParams(), 0), "a block table does not reach its positions"),
        (ScoreRow(4, range(1), SamplingParams(), 0), "a block table does not reach its positions"),
        (ScoreRow(-1, [0], SamplingParams(), 0), "a position is negative"),
        (ScoreRow(0, [20], SamplingParams(), 0), "there is no block 20"),
        (ScoreRow(0, [-1], SamplingParams(), 0), "there is no block -1"),
        ((0, [0]), "a row to score must be a `ScoreRow`"),
        ("row", "a row to score must be a `ScoreRow`"),
    ],
)
def test_rows_that_cannot_be_scored_are_refused(toy: Toy, row: Any, message: str) -> None:
    native = executors(toy, ExitSpec(1))[1]
    with pytest.raises(ValueError, match=f"^{message}$"):
        native.score(1, [row], frozenset())


def test_values_of_another_type_are_refused(toy: Toy) -> None:
    native = executors(toy, ExitSpec(1))[1]
    good = ScoreRow(0, [0], SamplingParams(), 0)
    wrong: list[dict[str, Any]] = [
        {"position": "0"},
        {"blocks": 3},
        {"blocks": ["a"]},
        {"seed": 1.5},
        {"banned": 5},
        {"banned": ["a"]},
    ]
    for fields in wrong:
        with pytest.raises(TypeError):
            native.score(1, [good._replace(**fields)], frozenset())
    with pytest.raises(AttributeError):
        native.score(1, [good._replace(sampling=None)], frozenset())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="there is no feature `luck`"):
        native.score(1, [good], frozenset({"luck"}))  # type: ignore[arg-type]
    for boundary in (0, 3):
        with pytest.raises(ValueError, match="no such boundary"):
            native.score(boundary, [good], frozenset())


def test_callers_on_several_threads_do_not_disturb_each_other(toy: Toy) -> None:
    native = executors(toy, ExitSpec(1, classifier="mlp"), threads=2)[1]
    batches = [random_rows(seed) for seed in range(4)]
    expected = [native.score(1, rows, NEEDS) for rows in batches]
    wrong: list[int] = []

    def score(i: int) -> None:
        for _ in range(20):
            if native.score(1, batches[i], NEEDS) != expected[i]:
                wrong.append(i)

    threads = [threading.Thread(target=score, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
