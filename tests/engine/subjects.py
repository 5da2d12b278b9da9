"""The toy models that engine tests run on, each on an executor, and what the oracle makes of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from offramp.exits.pack import ExitPack
from offramp.models import Spec, T5Spec
from offramp.types.executor import Executor
from tests.engine.workloads import Workload
from tests.executors.kinds import KINDS, make_executor
from tests.oracle.model import OracleModel
from tests.oracle.t5_model import OracleT5
from tests.t5_toy import MAX_SOURCE_LEN, toy_t5_spec, toy_t5_weights
from tests.toy import DictSource, Weights, toy_pack, toy_spec, toy_weights


@dataclass(frozen=True, eq=False)
class Subject:
    """A model by its specification and weights, on an executor of `kind`."""

    spec: Spec
    weights: Weights
    pack: ExitPack
    kind: str
    model: OracleModel = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "model", self._oracle(self.weights))

    @property
    def depth(self) -> int:
        return self.spec.num_layers

    def source(self, number: int = 0) -> tuple[int, ...]:
        """One of a few sources; () without an encoder."""
        return ((5, 6, 7), (5, 6, 8), (9,), (5, 6, 7))[number % 4] if self.model.max_source_len else ()

    def executor(self, workload: Workload) -> Executor:
        """With stores as small as the workload wants them."""
        return self.sized(workload.block_size, workload.num_blocks, workload.num_source_blocks)

    def sized(self, block_size: int, num_blocks: int, num_source_blocks: int = 0) -> Executor:
        more: Mapping[str, int] = {}
        if self.model.max_source_len:
            more = {"num_source_blocks": num_source_blocks, "max_source_len": self.model.max_source_len}
        source, sizes = DictSource(self.weights), {"block_size": block_size, "num_blocks": num_blocks}
        return make_executor(self.kind, self.spec, source, self.pack, **sizes, **more)

    def nearby(self) -> list[OracleModel]:
        """The oracle with weights a millionth off."""
        return [self._oracle(blurred(self.weights, seed)) for seed in range(4)]

    def _oracle(self, weights: Weights) -> OracleModel:
        if isinstance(self.spec, T5Spec):
            return OracleT5(self.spec, weights, self.pack, self.spec.max_model_len, MAX_SOURCE_LEN)
        return OracleModel(self.spec, weights, self.pack)


def blurred(weights: Weights, seed: int) -> Weights:
    """Weights a millionth off."""
    rng = np.random.default_rng(seed)
    return {name: w.astype(np.float64) * (1 + 1e-6 * rng.standard_normal(w.shape)) for name, w in weights.items()}


def _llama(kind: str) -> Subject:
    spec = toy_spec()
    return Subject(spec, toy_weights(spec), toy_pack(spec), kind)


def _t5(kind: str = "torch", *, gated: bool) -> Subject:
    spec = toy_t5_spec(gated=gated)
    return Subject(spec, toy_t5_weights(spec), toy_pack(spec), kind)


SUBJECTS = {
    **{kind: _llama(kind) for kind in KINDS},
    "t5": _t5(gated=True),
    "t5-tied": _t5(gated=False),
    "t5-native": _t5("native", gated=True),
    "t5-native-int8": _t5("native-int8", gated=False),
}
"""A Llama on every executor, and encoder-decoders of two kinds."""
