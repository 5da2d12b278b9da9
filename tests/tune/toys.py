"""A toy model that writes words when asked to, and requests to tune it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from offramp.llm.backend import choose_backend
from offramp.tune.request import TuneRequest
from offramp.tune.settings import DataSettings, HeadSettings, TrainSettings
from tests.models.toys import VOCAB, save_model

TEMPLATE = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}|{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
LAYERS, HIDDEN = 6, 16
WORDS = [i for i, token in enumerate(VOCAB) if token in "abcdefghijklmnopqrstuvwxyz"]
END = 0


def save_toy(folder: Path, family: str = "llama", **changes: Any) -> Any:
    """A model whose next token is a letter, or in one of 20 cases the end; returns it as Transformers has it.

    The first number of a hidden state is nearly constant, so the first column of the LM head is a bias.
    """
    sizes: dict[str, Any] = {"num_hidden_layers": LAYERS, "hidden_size": HIDDEN, "max_position_embeddings": 256}
    model = save_model(folder, family, **{**sizes, **changes})
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" not in name:
                nn.init.normal_(parameter, std=0.25 if "layers" in name else 1.0)
        model.model.embed_tokens.weight[:, 0] = 6.0
        model.lm_head.weight *= 0.6
        model.lm_head.weight[:, 0] = -5.0
        model.lm_head.weight[[*WORDS, END], 0] = 0.0
    model.save_pretrained(folder)
    settings = {"eos_token": "<|end|>", "chat_template": TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return model


def toy_request(model: Path, out: Path, executor: str = "native", **changes: Any) -> TuneRequest:
    """Heads for layers 2 and 4 from a few thousand tokens; `changes` go to the part that has them."""
    parts: dict[str, dict[str, Any]] = {
        "data": {"tokens": 2500, "batch": 16, "max_user_tokens": 60, "max_answer_tokens": 60},
        "head": {"head_words": 24, "adapter_size": 32},
        "train": {"epochs": 6, "lr": 1e-2, "batch_tokens": 64},
    }
    kinds: dict[str, Any] = {"data": DataSettings, "head": HeadSettings, "train": TrainSettings}
    own: dict[str, Any] = {"exits": (2, 4)}
    for name, value in changes.items():
        part = next((p for p, kind in kinds.items() if name in kind.__dataclass_fields__), None)
        (own if part is None else parts[part])[name] = value
    made = {name: kinds[name](**values) for name, values in parts.items()}
    backend = choose_backend(executor, "cpu", "float32", "float32")
    return TuneRequest(model=str(model), out=out, backend=backend, threads=1, **made, **own)


def quiet(done: int, total: int, text: str) -> None:
    """Progress that nobody wants to see."""
