"""An exit pack whose exits score the whole vocabulary, from one whose exits score a part: what a part saves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from offramp.exits.pack import ExitPack, ExitSpec
from offramp.exits.read import expected_tensors
from offramp.exits.write import write_pack


def write_whole_heads(folder: Path, pack: ExitPack) -> Path:
    """The same exits and the same trunk; heads with a reduced vocabulary become the model's own. Returns `folder`.

    The pack must have been read from a folder. Norms and adapters stay as they are.
    """
    assert pack.base is not None, "static exits score the whole vocabulary"
    exits = [_whole(spec) for spec in pack.exits]
    tensors = {
        f"exits.{spec.layer}.{name}": pack.tensor(spec.layer, name)
        for spec in exits
        for name in expected_tensors(spec, pack.base.hidden_size, pack.base.vocab_size)
    }
    trunk = None if pack.trunk is None else pack.trunk.tensors()
    write_pack(folder, pack.base, exits, tensors, trunk=trunk)
    return folder


def _whole(spec: ExitSpec) -> ExitSpec:
    if spec.vocabulary is None:
        return spec
    # A matrix of an exit's own has rows for its vocabulary only.
    return replace(spec, vocabulary=None, other=False, head="shared")
