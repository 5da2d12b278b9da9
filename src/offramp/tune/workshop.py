"""What every recipe works with: a model, its data and the features of these."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from offramp.exits.pack import Base, ExitPack, norm_fingerprint, static_exits
from offramp.exits.trunk import TrunkAdapter
from offramp.llm import LLM
from offramp.llm.load import make_executor
from offramp.llm.stores import StoreSizes, context_length
from offramp.models import LoadedModel
from offramp.tune.features import Features, FeatureStore
from offramp.tune.files import file_questions
from offramp.tune.report import Meter, Update
from offramp.tune.request import TuneRequest
from offramp.tune.samples import Corpus, Sample, first_samples
from offramp.tune.synthesis import Question, grow, invent
from offramp.tune.trunk import BLOCK, LmHead
from offramp.types.executor import Executor

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from offramp.tune.dense import DenseTrunk
    from offramp.tune.top import TopHead

MEASURED_BLOCKS = 8
"""Blocks of a store in which prices are measured."""


class Workshop:
    """A model, and the folders in which a request is worked on.

    Attributes:
        state: where the run keeps what it needs to go on.
    """

    def __init__(self, model: LoadedModel, request: TuneRequest, update: Update) -> None:
        self.model, self._request, self._update = model, request, update
        self.state = request.out / "run"
        self.lm_head = LmHead(model.spec, model.weights)
        self._work = request.work or request.out / "work"

    @property
    def identity(self) -> dict[str, Any]:
        """What data and features depend on besides settings: the model, and the executor with its types."""
        return {"model": self.model.identity, **asdict(self._request.backend)}

    @property
    def device(self) -> torch.device:
        """Where training computes.

        Raises:
            InvalidParameter: there is no such device here.
        """
        from offramp.executors.torch.executor import find_device

        return find_device(self._request.backend.device)

    @property
    def live(self) -> bool:
        """Whether the device computes what is learnt from faster than the engine could ask and a disk answer: then the
        model talks with itself in lock step, and hidden states are not stored."""
        return self.device.type != "cpu"

    @property
    def base(self) -> Base:
        """The model as an exit pack names it."""
        spec = self.model.spec
        fingerprint = norm_fingerprint(self.lm_head.norm)
        return Base(spec.num_layers, spec.hidden_size, spec.vocab_size, self._request.model, fingerprint)

    def meter(self, stage: str, total: int, start: int = 0) -> Meter:
        """Tells how far a stage has come."""
        return Meter(self._update, stage, total, start=start)

    def samples(self) -> list[Sample]:
        """The data, made as far as they are missing: the shortest beginning that has the tokens asked for.

        Raises:
            InvalidParameter: there can be no data, or what is there was made with other settings.
        """
        settings = self._request.data
        corpus = Corpus(self._work, {**self.identity, **self._data_identity()})
        if corpus.tokens < settings.tokens:
            meter = self.meter("data", settings.tokens, corpus.tokens)
            if self.live and settings.data == "self":
                self._converse(corpus, meter)
            else:
                self._ask(corpus, meter)
        return first_samples(corpus.samples, settings.tokens)

    def _converse(self, corpus: Corpus, meter: Meter) -> None:
        from offramp.tune.converse import converse
        from offramp.tune.talk import Rules

        ends = self.model.spec.eos_token_ids
        rules = Rules.of(self.model.tokenizer, ends, self._request.data, corpus.samples)
        converse(corpus, *self.dense(), rules, meter)

    def _ask(self, corpus: Corpus, meter: Meter) -> None:
        settings, backend = self._request.data, self._request.backend
        with LLM(
            self._request.model,
            exits=(),
            executor=backend.executor,  # type: ignore[arg-type]  # a name that was checked
            dtype=backend.dtype,
            kv_dtype=backend.kv_dtype,
            device=backend.device,
            threads=self._request.threads,
            max_num_seqs=settings.batch,
            max_num_batched_tokens=max(512, settings.batch),
        ) as llm:
            grow(corpus, self._questions(llm, corpus), llm, settings, meter)

    def features(
        self,
        samples: Sequence[Sample],
        layers: Sequence[int],
        trunk: TrunkAdapter | None = None,
        folder: Path | None = None,
    ) -> Features:
        """The features of `samples` at `layers`, computed as far as they are missing.

        `trunk`: the change of the trunk that they are of; `folder`: where they lie, if not in the work folder.
        """
        identity = self.identity if trunk is None else {**self.identity, "trunk": trunk.identity}
        store = FeatureStore(folder or self._work / "features", identity, self.model.spec.hidden_size)
        meter = self.meter("features", store.missing(samples, layers))

        def make(layers: Sequence[int], num_blocks: int) -> Executor:
            return self.executor(replace(static_exits(layers, self.model.spec.num_layers), trunk=trunk), num_blocks)

        store.compute(samples, layers, make, self.lm_head, meter)
        return store.read(samples, layers)

    def dense(self, factors: Mapping[str, Tensor] | None = None) -> tuple[DenseTrunk, TopHead]:
        """The model, with the `factors` of a trunk adapter if there are any, and its own head, where training
        computes."""
        from offramp.tune.dense import DenseTrunk
        from offramp.tune.top import TopHead

        spec, device = self.model.spec, self.device
        trunk = DenseTrunk(spec, self.model.weights, factors or {}, device=device)
        return trunk, TopHead(self.lm_head, spec, device)

    def executor(self, exits: ExitPack, num_blocks: int = MEASURED_BLOCKS) -> Executor:
        """The executor that will serve, with these exits."""
        request, stores = self._request, StoreSizes(context_length(self.model.spec, None), num_blocks)
        return make_executor(
            self.model, exits, request.backend, block_size=BLOCK, stores=stores, threads=request.threads
        )

    def _questions(self, llm: LLM, corpus: Corpus) -> Iterator[Question]:
        settings = self._request.data
        if settings.data == "self":
            return invent(llm, settings, corpus)
        return file_questions(Path(settings.data), llm, settings, corpus)

    def _data_identity(self) -> dict[str, Any]:
        """The settings that data depend on; a file counts by its contents."""
        values = asdict(self._request.data)
        path = Path(values["data"])
        if values["data"] != "self" and path.is_file():
            values["data"] = hashlib.sha256(path.read_bytes()).hexdigest()
        apart = ("tokens",) if self.live and values["data"] == "self" else ("tokens", "batch")
        return {name: value for name, value in values.items() if name not in apart}
