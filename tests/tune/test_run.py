"""Whole runs on the toy, and what comes of them."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from offramp.cli.main import main
from offramp.errors import InvalidParameter, MissingDependency, PackError
from offramp.exits.pack import ExitPack
from offramp.exits.read import read_pack
from offramp.models import load_model
from offramp.tune.curves import THRESHOLDS
from offramp.tune.heads import Head, Inputs
from offramp.tune.request import TuneRequest
from offramp.tune.run import tune
from offramp.tune.start import read_head, read_words
from offramp.tune.workshop import Workshop
from tests.executors.kinds import make_executor
from tests.executors.toys import score_hidden
from tests.tune.toys import HIDDEN, quiet, toy_request


class Interrupted(Exception):
    """Somebody pressed Ctrl-C."""


@pytest.fixture(scope="module")
def plain(toy: tuple[Path, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack with heads, and the folder it was made in."""
    out = tmp_path_factory.mktemp("tuned") / "plain"
    tune(toy_request(toy[0], out), quiet)
    return out


@pytest.fixture(scope="module")
def pack(toy: tuple[Path, Any], plain: Path) -> Path:
    """The same, gone on with to routers."""
    out = plain.with_name("routed")
    shutil.copytree(plain, out)
    tune(toy_request(toy[0], out, recipes=("heads", "router"), resume=True), quiet)
    return out


def read_heads(toy: Path, folder: Path) -> tuple[ExitPack, list[Head]]:
    shop = Workshop(load_model(str(toy)), toy_request(toy, folder), quiet)
    read = read_pack(folder)
    return read, [read_head(read, spec, read_words(read, spec, shop)) for spec in read.exits]


@pytest.mark.parametrize("kind", ["torch", "native", "native-int8"])
def test_executors_score_as_the_head_did_in_training(toy: tuple[Path, Any], pack: Path, kind: str) -> None:
    read, heads = read_heads(toy[0], pack)
    model = load_model(str(toy[0]))
    executor = make_executor(kind, model.spec, model.weights, read, block_size=4, num_blocks=15)
    tolerance = 0.05 if kind == "native-int8" else 1e-4
    chosen = 0
    for boundary, head in enumerate(heads, start=1):
        ids = read.vocabularies["frequent"]
        rows = np.fromfile(pack / "work" / "features" / f"layer-{head.spec.layer}.f16", np.float16)
        hidden = torch.tensor(rows.reshape(-1, HIDDEN)[:60].astype(np.float64))
        scored = score_hidden(executor, boundary, hidden, needs=frozenset({"max_prob", "classifier"}))
        for row, probs in zip(scored, head.logits(Inputs(hidden.float())).softmax(-1), strict=True):
            best, winner = probs.max(-1)
            if row.token is None or int(winner) == len(ids):
                assert kind == "native-int8" or (row.token is None and int(winner) == len(ids))
                continue
            chosen += 1
            assert row.features["max_prob"] == pytest.approx(float(best), abs=tolerance)
            assert kind == "native-int8" or row.token == ids[int(winner)]
    assert chosen > 40


def test_the_pack_says_what_it_is(toy: tuple[Path, Any], pack: Path) -> None:
    read = read_pack(pack)
    assert read.layers == (2, 4) and {spec.classifier for spec in read.exits} == {"mlp"}
    assert read.base is not None and read.base.model == str(toy[0])
    said = read.provenance
    curves = {e["layer"]: e for e in said["exits"]}
    assert read.defaults is not None
    assert read.defaults.threshold == {e: c["at_precision"]["0.95"]["threshold"] for e, c in curves.items()}
    assert said["history"][-1]["exits"]["4"]["kl"] < said["history"][0]["exits"]["4"]["kl"]
    assert said["data"]["tokens"] >= 2500 and len(said["data"]["sha256"]) == 64
    card = (pack / "MODEL_CARD.md").read_text()
    assert said["data"]["sha256"] in card and f"{curves[2]['agreement']:.3f}" in card
    assert all(f" {threshold:g} " in card for threshold in THRESHOLDS)
    assert "criterion `classifier`" in card
    assert not list((pack / "run").glob("*.pt"))


def test_routers_can_be_trained_later_and_heads_stay_as_they_were(
    toy: tuple[Path, Any], plain: Path, pack: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(plain, out)
    tune(toy_request(toy[0], out, recipes=("router",)), quiet)
    before, routed, whole = read_pack(plain), read_pack(out), read_pack(pack)
    assert {spec.classifier for spec in before.exits} == {"none"}
    for spec in routed.exits:
        for name in ("adapter.down_proj.weight", "norm.weight", "other.bias"):
            np.testing.assert_array_equal(routed.tensor(spec.layer, name), before.tensor(spec.layer, name))
        for name in ("classifier.down.weight", "classifier.up.weight"):
            np.testing.assert_array_equal(routed.tensor(spec.layer, name), whole.tensor(spec.layer, name))


def tensor_bytes(folder: Path) -> bytes:
    return (folder / "exits.safetensors").read_bytes()


@pytest.mark.parametrize("stage", ["data", "features", "heads"])
def test_a_run_interrupted_at_any_stage_goes_on_to_the_same_pack(
    toy: tuple[Path, Any], plain: Path, tmp_path: Path, stage: str
) -> None:
    def interrupt(done: int, total: int, text: str) -> None:
        if text.startswith(stage) and done > total // 2:
            raise Interrupted

    with pytest.raises(Interrupted):
        tune(toy_request(toy[0], tmp_path), interrupt)
    tune(toy_request(toy[0], tmp_path, resume=True), quiet)
    assert tensor_bytes(tmp_path) == tensor_bytes(plain)


def test_auto_chooses_layers_writes_down_why_and_keeps_to_it(toy: tuple[Path, Any], tmp_path: Path) -> None:
    def interrupt(done: int, total: int, text: str) -> None:
        if text.startswith("heads"):
            raise Interrupted

    request = toy_request(toy[0], tmp_path, exits="auto", max_exits=1, adapter="none")
    with pytest.raises(Interrupted):
        tune(request, interrupt)
    plan = json.loads((tmp_path / "run" / "plan.json").read_text())
    assert [row["layer"] for row in plan["candidates"]] == [1, 2, 3, 4, 5]
    (tmp_path / "run" / "plan.json").write_text(json.dumps({**plan, "layers": [3], "why": "I say so"}))
    said = tune(replace(request, resume=True), quiet)
    assert read_pack(tmp_path).layers == (3,)
    assert said["plan"]["why"] == "I say so" and "I say so" in (tmp_path / "MODEL_CARD.md").read_text()


def refused(request: TuneRequest, message: str) -> None:
    with pytest.raises((InvalidParameter, PackError)) as error:
        tune(request, quiet)
    assert error.value.message == message


def test_what_a_folder_does_not_allow(toy: tuple[Path, Any], pack: Path, tmp_path: Path) -> None:
    refused(toy_request(toy[0], pack), f"`{pack}` already holds a run")
    changed = toy_request(toy[0], pack, resume=True, lr=0.5)
    refused(changed, f"`{pack}` was made with `lr` 0.01, and now it is 0.5")
    refused(toy_request(toy[0], tmp_path, resume=True), f"`{tmp_path}` holds no run to go on with")
    routers = toy_request(toy[0], tmp_path, recipes=("router",))
    refused(routers, f"`{tmp_path}` holds no exit pack to train routers for")


def test_what_a_model_does_not_allow(toy: tuple[Path, Any], tmp_path: Path) -> None:
    deep = toy_request(toy[0], tmp_path, exits=(2, 6))
    refused(deep, "an exit layer must be a whole number from 0 to 5, not 6")
    elsewhere = replace(deep, exits=(2,), backend=replace(deep.backend, device="tpu"))
    refused(elsewhere, "there is no device `tpu` here; there is `cpu`")
    few = tmp_path / "few.txt"
    few.write_text("abc")
    one = toy_request(toy[0], tmp_path / "few", data=str(few))
    refused(one, "1 sequences are too few to train on and to hold some out")


def test_without_torch_one_is_told_how_to_get_it(
    toy: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = toy_request(toy[0], tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependency) as error:
        tune(request, quiet)
    assert error.value.hint == "pip install 'offramp[torch]'"


OPTIONS = "--tokens 2.5k --exits 2,4 --head-words 24 --adapter-size 16 --epochs 1 --batch-tokens 64"
WORDS = [*OPTIONS.split(), "--max-user-tokens", "60", "--max-answer-tokens", "60", "--threads", "1"]


def test_the_command_writes_a_pack_that_generates(
    toy: tuple[Path, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["tune", str(toy[0]), "--out", str(out), *WORDS]) == 0
    captured = capsys.readouterr()
    assert "leave at 95%" in captured.out
    assert captured.err.splitlines()[-1].startswith(f"wrote {out};")
    said = read_pack(out).provenance
    assert main(["tune", *said["command"].split()[2:], "--resume", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == said
    assert main(["generate", "abc", "-m", str(toy[0]), "--exits", str(out), "--exit", "lossless", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["text"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--recipe", "router", "--lr", "0.1"], "`--lr` says nothing beside `--recipe router`"),
        (["--recipe", "router", "--exits", "2"], "`--exits` says nothing beside `--recipe router`"),
        (["--router", "linear"], "`--router` says nothing beside `--recipe heads`"),
        (["--exits", "2,4", "--max-exits", "1"], "`--max-exits` says nothing beside `--exits 2,4`"),
        (["--data", "x.txt", "--top-p", "0.9"], "`--top-p` says nothing beside `--data x.txt`"),
        (["--adapter", "linear", "--adapter-size", "8"], "`--adapter-size` says nothing beside `--adapter linear`"),
        (
            ["--recipe", "heads,router", "--router", "linear", "--router-size", "8"],
            "`--router-size` says nothing beside `--router linear`",
        ),
    ],
)
def test_options_that_nothing_would_read(capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    assert main(["tune", "m", "--out", "x", *words]) == 1
    assert capsys.readouterr().err == f"error: {message}\nhint: leave it out\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--recipe", "head"], "error: there is no recipe `head`"),
        (["--recipe", "router,heads"], "error: `recipe` must be `heads`, `deep`, `layerskip` or `router`, or one"),
        (["--exits", "most"], "error: `exits` must be layers such as `10,20`, or `auto`, not 'most'"),
        (["--adapter", "lora"], "error: `adapter` cannot be 'lora'"),
        (
            ["--adapter", "none", "--norm", "shared", "--head-words", "0"],
            "error: these exit heads have nothing to train",
        ),
        (["--lr", "0"], "error: `lr` must be a number greater than 0 and at most 1, not 0.0"),
        (["--data", "/no/such/file"], "error: the data `/no/such/file` cannot be read"),
    ],
)
def test_options_that_cannot_be(
    toy: tuple[Path, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert main(["tune", str(toy[0]), "--out", str(tmp_path / "out"), "--exits", "2", *words]) == 1
    assert capsys.readouterr().err.startswith(message)


def test_a_count_that_is_none_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["tune", "--out", "x", "--tokens", "lots"])
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith("error: argument --tokens: `lots` is not a whole number")
