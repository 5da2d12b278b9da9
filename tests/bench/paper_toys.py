"""What the tests of `bench paper` share: a toy exit pack with everything that is compared, prompts, and a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from offramp.bench.paper_settings import Heads, PaperSettings, Setting, settings_for
from offramp.bench.whole_heads import write_whole_heads
from offramp.bench.workloads import Workload, read_workload
from offramp.exits.pack import Base, ExitSpec
from offramp.exits.write import write_pack
from offramp.llm import LLM
from offramp.types.exits import ExitParams
from offramp.weights import SafetensorsWeights
from offramp.weights.eight_bits import eight_bits_bytes
from tests.models.t5_toys import save_t5

WORDS = tuple(range(129))
GRID = PaperSettings(
    batches=(1, 3), loads=(0.8,), thresholds=(0.2, 0.4), saturations=(0.1,), repeats=2, requests=4, prompts=7
)


def toy_pack(folder: Path) -> Path:
    """Exits after layers 1 and 3 of 4 over half of the vocabulary, with `other`, classifiers and a trunk."""
    pick = np.random.default_rng(0)

    def some(*shape: int) -> Any:
        return pick.standard_normal(shape).astype(np.float32)

    tensors: dict[str, Any] = {}
    for layer in (1, 3):
        tensors |= {
            f"exits.{layer}.other.weight": some(1, 16),
            f"exits.{layer}.other.bias": some(1),
            f"exits.{layer}.classifier.weight": some(1, 16),
            f"exits.{layer}.classifier.bias": some(1),
        }
    spec = ExitSpec(1, vocabulary="some", other=True, classifier="linear")
    name = "model.layers.2.mlp.up_proj.weight"
    write_pack(
        folder,
        Base(4, 16, 258),
        [spec, ExitSpec(3, vocabulary="some", other=True, classifier="linear")],
        tensors,
        trunk={f"{name}.lora_a": 0.1 * some(2, 16), f"{name}.lora_b": 0.1 * some(24, 2)},
        vocabularies={"some": WORDS},
        defaults=ExitParams(threshold={1: 0.4, 3: 0.5}),
    )
    return folder


def toy_data(path: Path) -> Path:
    """Eight prompts, of which every second one has a right answer."""
    lines: list[dict[str, str]] = [
        {"text": f"{chr(97 + i)} is {i * 37}"}
        if i % 2
        else {"prompt": f"{chr(97 + i)} is {i * 37}", "completion": "seven"}
        for i in range(8)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def eight_bits_t5(folder: Path) -> Any:
    """A T5 whose matrices are in 8 bits; returns Transformers' model with what the 8 bits make of its weights."""
    model = save_t5(folder, d_model=32, d_kv=16, d_ff=64, num_heads=2, initializer_factor=3.0)
    file = folder / "model.safetensors"
    file.write_bytes(eight_bits_bytes({name: t.numpy() for name, t in load_file(file).items()}))
    weights = SafetensorsWeights(folder)
    state = {name: torch.tensor(np.asarray(weights.load(name), dtype=np.float32)) for name in weights.shapes()}
    assert not model.load_state_dict(state, strict=False).unexpected_keys
    model.tie_weights()
    return model


class Toy:
    """A toy model on an executor, open twice, with its workload and what is compared."""

    def __init__(self, model: Path, folder: Path, executor: str = "native") -> None:
        self.llms: dict[Heads, LLM] = {"own": _open(model, toy_pack(folder / "own"), executor)}
        whole = write_whole_heads(folder / "whole", self.own.pack)
        self.llms["whole"] = _open(model, whole, executor)
        self.workload: Workload = read_workload("toy", self.own.tokenizer, toy_data(folder / "data.jsonl"), 9)
        self.ways, self.left_out = settings_for(self.own.pack, self.own.calibration_key, GRID)

    @property
    def own(self) -> LLM:
        return self.llms["own"]

    @property
    def prompts(self) -> list[tuple[int, ...]]:
        return [prompt.tokens for prompt in self.workload.prompts]

    def way(self, name: str) -> Setting:
        return next(way for way in self.ways if way.name == name)


def _open(model: Path, pack: Path, executor: Any) -> LLM:
    return LLM(
        str(model),
        exits=pack,
        executor=executor,
        dtype="float32",
        kv_dtype="float32",
        threads=1,
        max_num_seqs=4,
        prefix_caching=False,
        profitability=False,
    )
