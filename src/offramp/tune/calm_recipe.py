"""Recipe `calm`: a T5 trained for its exits, then classifiers that say when to leave (CALM, Schuster et al. 2022).

The folder that comes of it is a model in Hugging Face form and an exit pack for it at once.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from offramp._version import __version__
from offramp.errors import InvalidParameter
from offramp.executors.torch.executor import find_device
from offramp.exits.pack import Base, ExitSpec, check_layers, norm_fingerprint
from offramp.exits.read import read_pack
from offramp.exits.write import write_pack
from offramp.files import replace_file
from offramp.models import T5Spec, resolve
from offramp.tokenizer import tokenizer_from_folder
from offramp.tune.begin import begin
from offramp.tune.calm import CalmTrainer, ClassifierTrainer, new_classifiers
from offramp.tune.calm_card import calm_card
from offramp.tune.calm_judge import Verdict, judge_exits, said_of
from offramp.tune.curves import PRECISIONS
from offramp.tune.pairs import Pairs, load_pairs, make_pairs, read_texts
from offramp.tune.products import product_dtype
from offramp.tune.report import Meter, Update
from offramp.tune.request import TuneRequest
from offramp.tune.samples import check_same
from offramp.tune.t5 import DenseT5
from offramp.tune.t5_files import read_t5, write_t5
from offramp.tune.t5_shape import new_weights, parse_shape
from offramp.tune.t5_tokenizer import new_tokenizer
from offramp.types.exits import ExitParams

FOR_WORDS = 75_000
"""A new tokenizer learns from so many records."""


def tune_calm(request: TuneRequest, update: Update) -> dict[str, Any]:
    """Train a T5 and its classifiers, judge them, and write model and exit pack; returns the pack's provenance.

    Raises:
        InvalidParameter: `request.out` holds another run, or none where one is needed; or too few data.
        OfframpError: the model or the data cannot be had.
    """
    device, state = find_device(request.backend.device), request.out / "run"
    shape = request.calm.shape
    spec, first = (parse_shape(shape), None) if shape else read_t5(request.model)
    layers = exit_layers(request, spec)
    begin(request.out, state, request.settings(router=False), request.resume)
    pairs = prepared(request, spec, request.work or request.out / "work", update)
    done, checkpoint, history = state / "model.done", state / "checkpoint.pt", state / "history.json"
    if not done.is_file():
        seed = request.train.train_seed
        weights = _on(device, new_weights(spec, seed) if first is None else first, learn=True)
        model = DenseT5(spec, weights, product_dtype(device), request.calm.dropout)
        trainer = CalmTrainer(model, pairs, request.train, request.calm)
        trainer.run(checkpoint, Meter(update, "model", trainer.tokens(trainer.steps)))
        write_t5(request.out, spec, weights, pairs.tokenizer)
        replace_file(history, json.dumps(trainer.progress.history).encode())
        done.touch()
        checkpoint.unlink()
    # From here on the model is what was written.
    weights = _on(device, read_t5(str(request.out))[1])
    classifiers = new_classifiers(layers, spec.hidden_size, device)
    frozen = DenseT5(spec, weights, product_dtype(device))
    second = ClassifierTrainer(classifiers, layers, frozen, pairs, request.train, request.calm)
    second.run(checkpoint, Meter(update, "classifiers", second.tokens(second.steps)))
    verdict = judge_exits(DenseT5(spec, weights, torch.float32), layers, classifiers, pairs)
    histories = {"history": json.loads(history.read_bytes()), "classifier_history": second.progress.history}
    said = {**_provenance(request, spec, layers, pairs), **said_of(verdict), **histories}
    _write(request.out, spec, layers, weights[spec.final_norm], classifiers, verdict, said)
    checkpoint.unlink()
    return dict(read_pack(request.out).provenance)


def exit_layers(request: TuneRequest, spec: T5Spec) -> tuple[int, ...]:
    """The exits given, or one behind every layer but the last.

    Raises:
        PackError: there are no such layers.
    """
    if request.exits == "auto":
        return tuple(range(1, spec.num_layers))
    layers = tuple(int(layer) for layer in request.exits)
    check_layers(layers, spec.num_layers)
    if layers[0] == 0:
        raise InvalidParameter("a T5's exits are behind a layer, the first at 1", param="exits")
    return layers


def prepared(request: TuneRequest, spec: T5Spec, work: Path, update: Update) -> Pairs:
    """The data as tokens, made if they are not there.

    Raises:
        InvalidParameter: they cannot be read, are too few, or are of another vocabulary.
    """
    path, ready, state = Path(request.data.data), work / "pairs.npz", work / "pairs.json"
    if path.suffix == ".npz":
        pairs = load_pairs(path)
    elif state.is_file() and path.is_file():
        check_same(json.loads(state.read_bytes()), _identity(request, spec), f"`{ready}`")
        pairs = load_pairs(ready)
        if pairs.sha256 != _sha256(path):
            raise InvalidParameter(
                f"`{ready}` was made of other data than `{path}`", param="work", hint="remove it, or choose another"
            )
    else:
        pairs = _prepare(request, spec, path, update)
        work.mkdir(parents=True, exist_ok=True)
        pairs.save(ready)
        replace_file(state, json.dumps(_identity(request, spec)).encode())
    largest = int(max(pairs.sources.ids.max(), pairs.targets.ids.max()))
    if largest >= spec.vocab_size:
        raise InvalidParameter(
            f"the data have a token {largest}, and the model has {spec.vocab_size} tokens",
            param="data",
            hint="prepare the data anew, with this model",
        )
    return pairs


def _identity(request: TuneRequest, spec: T5Spec) -> dict[str, Any]:
    """What prepared data depend on besides their file: whose tokens, and how long they may be."""
    given = None if request.calm.shape else _sha256(resolve(request.model).path / "tokenizer.json")
    return {"vocabulary": spec.vocab_size, "tokenizer": given, "longest": request.calm.longest}


def _prepare(request: TuneRequest, spec: T5Spec, path: Path, update: Update) -> Pairs:
    import tokenizers

    texts = read_texts(path)
    if request.calm.shape:
        tokenizer = new_tokenizer((text for pair in texts[:FOR_WORDS] for text in pair), spec.vocab_size)
    else:
        folder = resolve(request.model).path
        tokenizer_from_folder(folder)
        tokenizer = (folder / "tokenizer.json").read_bytes()
    backend = tokenizers.Tokenizer.from_str(tokenizer.decode())

    def encode(text: str) -> list[int]:
        return list(backend.encode(text, add_special_tokens=False).ids)

    meter = Meter(update, "data", len(texts), unit="records")
    return make_pairs(texts, encode, tokenizer, _sha256(path), request.calm.longest, meter)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _on(device: torch.device, weights: dict[str, Tensor], learn: bool = False) -> dict[str, Tensor]:
    return {name: tensor.to(device).requires_grad_(learn) for name, tensor in weights.items()}


def _provenance(request: TuneRequest, spec: T5Spec, layers: tuple[int, ...], pairs: Pairs) -> dict[str, Any]:
    held_out = pairs.numbers(held_out=True)
    lengths = pairs.targets.lengths_of(pairs.target_of)
    return {
        "offramp": __version__,
        "command": request.command,
        "recipes": list(request.recipes),
        "model": {"spec": asdict(spec), "start": request.model or "none", "layers": spec.num_layers},
        "plan": {"layers": list(layers), "why": "They were given" if request.exits != "auto" else "All there can be"},
        "data": {
            "pairs": len(lengths),
            "targets": len(pairs.targets.ends),
            "tokens": int(lengths.sum()),
            "held_out_tokens": int(lengths[held_out].sum()),
            "sha256": pairs.sha256,
        },
        "settings": request.settings(router=False),
    }


def _write(
    out: Path,
    spec: T5Spec,
    layers: tuple[int, ...],
    norm: Tensor,
    classifiers: list[dict[str, Tensor]],
    verdict: Verdict,
    said: dict[str, Any],
) -> None:
    """Write exit pack and card; exits start at the lowest threshold of `max_prob` with the first of `PRECISIONS`."""
    base = Base(spec.num_layers, spec.hidden_size, spec.vocab_size, None, norm_fingerprint(norm.cpu().numpy()))
    tensors = {
        f"exits.{layer}.{name}": tensor.detach().cpu().numpy()
        for layer, parts in zip(layers, classifiers, strict=True)
        for name, tensor in parts.items()
    }
    thresholds = {c.layer: c.at_precision[PRECISIONS[0]].threshold for c in verdict.curves["max_prob"]}
    exits = [ExitSpec(layer, classifier="linear") for layer in layers]
    write_pack(out, base, exits, tensors, defaults=ExitParams(threshold=thresholds, kv="fill"), provenance=said)
    replace_file(out / "MODEL_CARD.md", calm_card(said).encode())
