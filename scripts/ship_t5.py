"""Make a trained T5's folder one that comes with offramp: matrices in 8 bits, and no files of its training.

python scripts/ship_t5.py my-t5 src/offramp/packs/t5-restore
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from offramp.weights.eight_bits import eight_bits_bytes
from offramp.weights.folder import SINGLE, SafetensorsWeights

MODEL = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json")
EXITS = ("exits.json", "exits.safetensors", "MODEL_CARD.md")


def main(trained: Path, shipped: Path) -> None:
    """Write the folder `shipped`."""
    weights = SafetensorsWeights(trained)
    shipped.mkdir(parents=True, exist_ok=True)
    (shipped / SINGLE).write_bytes(eight_bits_bytes({name: weights.load(name) for name in weights.shapes()}))
    for name in (*MODEL, *EXITS):
        shutil.copy(trained / name, shipped / name)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
