"""Heads at the embedding that read the past: their outputs are the oracle's, whatever the schedule; preemption
included."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import Phase, given, settings

from offramp.engine.scheduler import prefix_limit
from offramp.engine.sequence import Sequence
from offramp.exits.pack import Base, ExitPack, ExitSpec, static_exits
from offramp.types.sampling import SamplingParams
from tests.engine.driver import check_outcome, expectations, paged_executor, run_workload
from tests.engine.subjects import SUBJECTS
from tests.engine.test_schedule_independence import HASHES, QUICK
from tests.engine.workloads import Workload, workloads
from tests.executors.kinds import make_executor
from tests.oracle.model import OracleModel
from tests.toy import DictSource

SPEC, WEIGHTS = SUBJECTS["torch"].spec, SUBJECTS["torch"].weights


def pack() -> ExitPack:
    """Exits at the embedding and after 3 layers, which lean on the past."""
    pick, d = np.random.default_rng(5), SPEC.hidden_size
    tensors: dict[str, np.ndarray] = {}
    for layer in (0, 3):
        weight = np.concatenate((np.eye(d), 0.5 * np.eye(d)), axis=1) + 0.2 * pick.standard_normal((d, 2 * d))
        tensors |= {
            f"exits.{layer}.past.hidden_norm.weight": np.ones(d),
            f"exits.{layer}.past.state_norm.weight": np.ones(d),
            f"exits.{layer}.past.weight": weight,
            f"exits.{layer}.classifier.weight": pick.standard_normal((1, d)),
            f"exits.{layer}.classifier.bias": np.zeros(1),
        }
    exits = tuple(ExitSpec(layer, past="deep", classifier="linear") for layer in (0, 3))
    source = DictSource({name: array.astype(np.float32) for name, array in tensors.items()})
    return ExitPack("past", Base(SPEC.num_layers, d, SPEC.vocab_size), exits, tensors=source)


PACK = pack()
MODEL = OracleModel(SPEC, WEIGHTS, PACK)


@pytest.mark.parametrize("kind", ["torch", "native"])
@settings(QUICK, max_examples=25)
@given(workloads(MODEL, max_requests=5))
def test_every_output_is_that_of_its_request_alone(kind: str, workload: Workload) -> None:
    sizes = {"block_size": workload.block_size, "num_blocks": workload.num_blocks}
    executor = make_executor(kind, SPEC, DictSource(WEIGHTS), PACK, **sizes)
    check_outcome(run_workload(executor, workload), expectations(MODEL, workload))


@pytest.mark.parametrize(("shape_of", "own"), [(PACK, 1), (None, 0)])
def test_the_state_before_the_live_token_lies_in_no_block_that_others_share(
    shape_of: ExitPack | None, own: int
) -> None:
    exits = shape_of or static_exits([3], SPEC.num_layers)
    executor = make_executor("torch", SPEC, DictSource(WEIGHTS), exits, block_size=4, num_blocks=8)
    sequence = Sequence(0, [5, 6, 7], SamplingParams(), 0, executor.shape)
    assert prefix_limit(sequence) == sequence.live == 2
    sequence.choose(sequence.top, 8, None)
    assert prefix_limit(sequence) == sequence.live - own == 3 - own


def test_a_past_that_a_preemption_forgets_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("offramp.engine.decide.put_back", lambda *_: None)

    @settings(QUICK, max_examples=200, phases=[Phase.generate])  # any failure will do, however large
    @given(workloads(HASHES, max_requests=5))
    def run(workload: Workload) -> None:
        run_workload(paged_executor(HASHES, workload), workload)

    with pytest.raises(AssertionError, match="nobody chose the token after position"):
        run()
