"""Whole runs of the recipe `calm` on a toy, and what comes of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from offramp.cli.main import main
from offramp.errors import InvalidParameter, OfframpError
from offramp.exits.read import read_pack
from offramp.llm.backend import choose_backend
from offramp.tokenizer import tokenizer_from_folder
from offramp.tune import calm_recipe
from offramp.tune.calm import answer_states
from offramp.tune.pairs import load_pairs, pair_batch
from offramp.tune.request import TuneRequest
from offramp.tune.run import tune
from offramp.tune.settings import CalmSettings, DataSettings, TrainSettings
from offramp.tune.t5 import DenseT5
from offramp.tune.t5_files import read_t5
from tests.tune.t5_toys import SHAPE_FLAG, write_texts
from tests.tune.toys import quiet


class Interrupted(Exception):
    """Somebody pressed Ctrl-C."""


def request(data: Path, out: Path, **changes: Any) -> TuneRequest:
    """Some dozen steps of a toy."""
    parts: dict[str, dict[str, Any]] = {
        "train": {"epochs": 4, "lr": 1e-2, "batch_tokens": 512, "evaluations": 4},
        "calm": {"shape": SHAPE_FLAG, "classifier_steps": 12},
    }
    own: dict[str, Any] = {}
    for name, value in changes.items():
        part = "train" if name in TrainSettings.__dataclass_fields__ else "calm"
        (parts[part] if name not in TuneRequest.__dataclass_fields__ else own)[name] = value
    return TuneRequest(
        **{
            "model": "",
            "out": out,
            "backend": choose_backend("torch", "cpu", "auto", "auto"),
            "recipes": ("calm",),
            "data": DataSettings(data=str(data)),
            "train": TrainSettings(**parts["train"]),
            "calm": CalmSettings(**parts["calm"]),
            **own,
        }
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that comes of a run."""
    folder = tmp_path_factory.mktemp("calm")
    tune(request(write_texts(folder / "pairs.jsonl"), folder / "t5"), quiet)
    return folder / "t5"


def test_the_loss_falls_and_the_card_says_so(made: Path) -> None:
    said = read_pack(made).provenance
    first, last = said["history"][0], said["history"][-1]
    assert last["top"] < 0.8 * first["top"] and last["exits"]["1"]["loss"] < first["exits"]["1"]["loss"]
    assert said["classifier_history"][-1]["classifiers"]["2"] < 0.6931
    assert 1 <= said["oracle_depth"] <= 3
    card = (made / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert f"{last['top']:.4f}" in card and "2 on average" not in card and "softmax response" in card
    assert not list((made / "run").glob("*.pt"))


def test_transformers_reads_the_folder_and_says_the_same(made: Path) -> None:
    other = transformers.T5ForConditionalGeneration.from_pretrained(made).float().eval()
    spec, weights = read_t5(str(made))
    model = DenseT5(spec, weights, torch.float32)
    pairs = load_pairs(made / "work" / "pairs.npz")
    batch = pair_batch(pairs, np.arange(7))
    mask = (torch.arange(batch.source.shape[1]) < batch.source_lengths[:, None]).long()
    with torch.no_grad():
        wanted = other(input_ids=batch.source, attention_mask=mask, decoder_input_ids=batch.given).logits
        found = model.logits(answer_states(model, batch)[-1])
    torch.testing.assert_close(found, wanted.flatten(0, 1)[batch.rows], atol=1e-4, rtol=1e-4)
    tokenizer = transformers.AutoTokenizer.from_pretrained(made)
    text = "whale ship 1851"
    assert tokenizer(text)["input_ids"] == tokenizer_from_folder(made).encode(text)
    assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text


def test_the_pack_has_every_exit_with_a_classifier(made: Path) -> None:
    pack = read_pack(made)
    assert pack.layers == (1, 2) and {e.classifier for e in pack.exits} == {"linear"}
    assert pack.defaults is not None and pack.defaults.kv == "fill"
    assert pack.tensor(1, "classifier.weight").shape == (1, 32)
    assert pack.base is not None and (pack.base.num_layers, pack.base.vocab_size) == (3, 320)


@pytest.mark.parametrize("stage", ["model", "classifiers"])
def test_a_run_that_is_interrupted_goes_on_to_the_same_end(made: Path, tmp_path: Path, stage: str) -> None:
    data, out = made.parent / "pairs.jsonl", tmp_path / "t5"

    def interrupt(done: int, total: int, text: str) -> None:
        if text.startswith(stage) and done > 0.6 * total:
            raise Interrupted

    with pytest.raises(Interrupted):
        tune(request(data, out), interrupt)
    with pytest.raises(InvalidParameter, match="already holds a run"):
        tune(request(data, out), quiet)
    with pytest.raises(InvalidParameter, match="lr"):
        tune(request(data, out, lr=1e-3, resume=True), quiet)
    tune(request(data, out, resume=True), quiet)
    for name in ("model.safetensors", "exits.safetensors", "tokenizer.json"):
        assert (out / name).read_bytes() == (made / name).read_bytes()


def test_prepared_data_and_a_model_to_go_on_with(made: Path, tmp_path: Path) -> None:
    before = read_pack(made).provenance["history"][-1]["top"]
    ready = made / "work" / "pairs.npz"
    tune(request(ready, tmp_path / "more", shape="", model=str(made), epochs=1, exits=(2,)), quiet)
    pack = read_pack(tmp_path / "more")
    assert pack.layers == (2,) and pack.provenance["history"][-1]["top"] < before
    with pytest.raises(InvalidParameter, match="has 300 tokens"):
        tune(request(ready, tmp_path / "less", shape=SHAPE_FLAG.replace("320", "300")), quiet)


def test_prepared_data_of_other_settings_are_refused(made: Path, tmp_path: Path) -> None:
    data, work = made.parent / "pairs.jsonl", made / "work"
    with pytest.raises(InvalidParameter, match=r"pairs.npz` was made with `longest` 160, and now it is 50"):
        tune(request(data, tmp_path / "short", work=work, longest=50), quiet)
    with pytest.raises(InvalidParameter, match=r"was made with `vocabulary` 320, and now it is 350"):
        tune(request(data, tmp_path / "words", work=work, shape=SHAPE_FLAG.replace("320", "350")), quiet)
    with pytest.raises(InvalidParameter, match=r"was made with `tokenizer` None, and now it is '"):
        tune(request(data, tmp_path / "other", work=work, shape="", model=str(made)), quiet)


def test_classifiers_learn_at_their_own_rate(made: Path, tmp_path: Path) -> None:
    tune(request(made.parent / "pairs.jsonl", tmp_path / "slow", work=made / "work", classifier_lr=1e-6), quiet)
    slow, usual = (read_pack(folder).tensor(1, "classifier.weight") for folder in (tmp_path / "slow", made))
    assert 0 < np.abs(slow).max() < 1e-4 < 1e-2 < np.abs(usual).max()


def test_time_ends_a_training_with_its_schedule(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(10_000))
    monkeypatch.setattr("offramp.tune.calm.monotonic", lambda: next(clock) + 1.0)
    monkeypatch.setattr(calm_recipe, "judge_exits", lambda *args: (_ for _ in ()).throw(Interrupted))
    with pytest.raises(Interrupted):
        tune(request(made.parent / "pairs.jsonl", tmp_path / "t5", minutes=0.5, epochs=50), quiet)
    history = json.loads((tmp_path / "t5" / "run" / "history.json").read_bytes())
    assert [entry["step"] for entry in history][-1] == 31 and len(history) == 4


def test_bad_requests_say_what_to_do(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = str(made.parent / "pairs.jsonl")
    cases = [
        (["--data", data], "give one of both"),
        ([str(made), "--shape", SHAPE_FLAG, "--data", data], "give one of both"),
        (["--shape", SHAPE_FLAG], "needs data"),
        (["--shape", "depth=3", "--data", data], "no `depth`"),
        (["--shape", SHAPE_FLAG, "--data", data, "--exits", "3"], "exit layer"),
        (["--shape", SHAPE_FLAG, "--data", data, "--exits", "0,1"], "behind a layer"),
        (["--shape", SHAPE_FLAG, "--data", data, "--adapter", "mlp"], "--adapter"),
        (["--shape", SHAPE_FLAG, "--data", data, "--dtype", "int8"], "--dtype"),
        ([str(tmp_path), "--data", data], "no config.json"),
    ]
    for words, said in cases:
        assert main(["tune", "--recipe", "calm", "--out", str(tmp_path / "out"), *words]) != 0
        assert said in capsys.readouterr().err
    assert main(["tune", "--minutes", "1", "--out", str(tmp_path / "out")]) != 0
    assert "--minutes" in capsys.readouterr().err


def test_the_command_trains_from_nothing(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["tune", "--recipe", "calm", "--shape", SHAPE_FLAG, "--data", str(made.parent / "pairs.jsonl")]
    more = ["--out", str(tmp_path / "t5"), "--epochs", "1", "--classifier-steps", "2", "--classifier", "geometric"]
    assert main([*words, *more, "--exit-weights", "doubling", "--dropout", "0.1"]) == 0
    assert "exits, on held-out tokens" in capsys.readouterr().out
    command = read_pack(tmp_path / "t5").provenance["command"]
    assert command.startswith("offramp tune --out") and f"--recipe calm --shape {SHAPE_FLAG}" in command


def test_too_few_words_for_a_vocabulary_are_refused(tmp_path: Path) -> None:
    data = write_texts(tmp_path / "pairs.jsonl")
    with pytest.raises(OfframpError, match="the data give"):
        tune(request(data, tmp_path / "t5", shape=SHAPE_FLAG.replace("320", "4096")), quiet)
