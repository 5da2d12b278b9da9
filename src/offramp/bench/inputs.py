"""The work that every engine is given: the same weights, and the same prompts as token ids."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from offramp.bench.engines import Engine
from offramp.bench.gguf_files import KINDS, Report, requantized
from offramp.bench.plain_files import is_plain, plain_folder
from offramp.models import AnyModel, Progress, Spec, T5Spec, cache_dir, load_model, resolve
from offramp.weights.source import WeightSource

TEXT = """The lighthouse stood at the end of a long bar of shingle, and for most of the year nobody came to it but
gulls. Its keeper wrote down the weather four times a day: wind, pressure, the height of the swell, and
whether the far coast could be seen. After thirty years the books filled a cupboard. A student who read
them found that the fogs came earlier each autumn, by about a day in five years, and asked him whether he
had noticed. He had not. "You see one fog at a time," he said, "and each of them is only the fog you are
in." She copied the columns, added them up by months, and drew a curve; then she went out with him to
watch the lamp being lit. It had been electric since before either of them was born, yet he still climbed
the stairs at dusk, all hundred and twelve, to make sure that it turned."""

Load = Callable[[str, Progress | None], AnyModel]

ROW_SHIFT = 5
"""Each row of a batch starts this many tokens further into the text, so that no two rows are equal."""


@dataclass(frozen=True)
class ModelInput:
    """A model as workers need to know it: its files, and the token ids of the benchmark's text."""

    name: str
    identity: str
    form: str
    path: Path
    spec: Spec
    text: tuple[int, ...]
    weights: WeightSource | None = None

    def weight_bytes(self, engine: Engine) -> int | None:
        """Bytes of weights that offramp reads for one token: all layers and the LM head. None if nobody knows, and for
        a T5, whose encoder is not read for every token.

        A row of the embedding is not counted, nor are the matrices that only pass tokens by.
        """
        if self.weights is None or isinstance(self.spec, T5Spec) or not engine.ours or engine.variant == "torch":
            return None
        try:
            from offramp.executors.native.plan import plan_matrices
        except ImportError:  # The native core was not built.
            return None
        head = "embedding" if self.spec.tie_word_embeddings else "lm_head"
        plans = plan_matrices(self.spec, self.weights, engine.precision)
        read = [p for p in plans if p.name == head or p.name.partition(".")[2] not in ("", "passing")]
        return sum(plan.num_bytes for plan in read)

    def prompts(self, rows: int, length: int) -> list[list[int]]:
        """`rows` prompts of `length` tokens."""
        text = self.text
        return [[text[(row * ROW_SHIFT + i) % len(text)] for i in range(length)] for row in range(rows)]

    def for_workers(self, precisions: Collection[str], max_batch: int, report: Report) -> dict[str, Any]:
        """What `load` takes. Files that peers read in `precisions` are written if need be.

        `plain` is the model without matrices in 8 bits, which offramp alone reads; `start`, the token that begins the
        outputs of an encoder-decoder.
        """
        wanted = [p for p in precisions if p in KINDS] if self.form == "gguf" else []
        files = {p: str(requantized(self.path, self.identity, p, report)) for p in wanted}
        folder, plain = cache_dir() / "bench" / f"{self.identity[:16]}-float32", self.path
        if precisions and self.weights is not None and self.form == "hf" and not is_plain(self.weights):
            plain = plain_folder(self.path, self.weights, folder, report)
        return {
            "form": self.form,
            "path": str(self.path),
            "plain": str(plain),
            "folder": str(folder),
            "start": self.spec.decoder_start_token_id if isinstance(self.spec, T5Spec) else None,
            "gguf": files,
            "max_batch": max_batch,
        }


def read_model(model: str, progress: Progress | None = None, load: Load = load_model) -> ModelInput:
    """Find a model, downloading it if need be, and read the text with its tokenizer. With `load_any`, it may be a T5.

    Raises:
        OfframpError: it cannot be had.
    """
    files = resolve(model, progress)
    loaded = load(model, progress)
    text = loaded.tokenizer.encode(TEXT, add_special_tokens=False)
    path = files.path.resolve()
    return ModelInput(files.name, loaded.identity, files.form, path, loaded.spec, tuple(text), loaded.weights)
