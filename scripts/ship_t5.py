"""Make a trained T5's folder one that comes with offramp: matrices in 8 bits, and no files of its training.

python scripts/ship_t5.py my-t5 src/offramp/packs/t5-restore --exits 3,7 --threshold 0.9
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from offramp.exits.pack import ExitPack
from offramp.exits.read import expected_tensors, read_pack
from offramp.exits.write import write_pack
from offramp.types.exits import ExitParams
from offramp.weights.eight_bits import eight_bits_bytes
from offramp.weights.folder import SINGLE, SafetensorsWeights

COPIED = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "MODEL_CARD.md")


def ship(trained: Path, shipped: Path, layers: tuple[int, ...] = (), threshold: float | None = None) -> None:
    """Write the folder `shipped`, with the exits at `layers` only if any are named.

    By default tokens leave at `threshold`, or where the trained pack says.
    """
    weights = SafetensorsWeights(trained)
    shipped.mkdir(parents=True, exist_ok=True)
    (shipped / SINGLE).write_bytes(eight_bits_bytes({name: weights.load(name) for name in weights.shapes()}))
    for name in COPIED:
        shutil.copy(trained / name, shipped / name)
    pack = read_pack(trained)
    ship_exits(pack, shipped, layers or pack.layers, threshold)


def ship_exits(pack: ExitPack, shipped: Path, layers: tuple[int, ...], threshold: float | None) -> None:
    """Write the exits at `layers` to the folder `shipped`."""
    missing = [layer for layer in layers if layer not in pack.layers]
    if missing:
        raise SystemExit(f"`--exits` names layers without an exit: {missing}; allowed: {list(pack.layers)}")
    assert pack.base is not None, "a pack that was read names its base"
    exits = [spec for spec in pack.exits if spec.layer in layers]
    tensors = {
        f"exits.{spec.layer}.{name}": pack.tensor(spec.layer, name)
        for spec in exits
        for name in expected_tensors(spec, pack.base.hidden_size, pack.base.vocab_size)
    }
    write_pack(
        shipped,
        pack.base,
        exits,
        tensors,
        defaults=_defaults(pack.defaults, layers, threshold),
        provenance=pack.provenance,
    )


def _defaults(trained: ExitParams | None, layers: tuple[int, ...], threshold: float | None) -> ExitParams | None:
    if threshold is not None:
        return replace(trained or ExitParams(), threshold=dict.fromkeys(sorted(layers), threshold))
    if trained is None or not isinstance(trained.threshold, Mapping):
        return trained
    return replace(trained, threshold={layer: t for layer, t in trained.threshold.items() if layer in layers})


def _layers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Make a trained T5's folder one that comes with offramp.")
    parser.add_argument("trained", type=Path, metavar="FROM", help="a folder of the recipe `calm`")
    parser.add_argument("shipped", type=Path, metavar="TO", help="the folder to write")
    parser.add_argument("--exits", type=_layers, default=(), metavar="LAYERS", help="exits to keep (default: all)")
    parser.add_argument(
        "--threshold", type=float, metavar="T", help="where to leave (default: as the trained pack says)"
    )
    args = parser.parse_args()
    ship(args.trained, args.shipped, args.exits, args.threshold)


if __name__ == "__main__":
    main()
