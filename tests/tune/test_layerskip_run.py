"""Whole runs of the recipe `layerskip` on the toy, and what comes of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from offramp import LLM, ExitParams, SamplingParams
from offramp.cli.main import main
from offramp.errors import InvalidParameter
from offramp.exits.pack import ExitSpec
from offramp.exits.read import read_pack
from offramp.models import load_model
from offramp.tune.card import model_card
from offramp.tune.request import TuneRequest
from offramp.tune.run import tune
from offramp.tune.settings import HeadSettings, RouterSettings, TrunkSettings
from offramp.tune.workshop import Workshop
from tests.tune.toys import HIDDEN, LAYERS, quiet, toy_request


class Interrupted(Exception):
    """Somebody pressed Ctrl-C."""


def request(toy: Path, out: Path, executor: str = "native", **changes: Any) -> TuneRequest:
    """Toy settings, and answers that say the prompt's letter again and again."""
    path = out.parent / "task.jsonl"
    letters = "abcdefghijklmnopqrstuvwxyz"
    pairs = [(a + b, (b * 6)) for a in letters for b in letters[:8]]
    path.write_text("\n".join(json.dumps({"prompt": p, "completion": c}) for p, c in pairs))
    made = {"recipes": ("layerskip",), "adapter": "none", "data": str(path), "epochs": 2, **changes}
    return replace(toy_request(toy, out, executor, **made), trunk=TrunkSettings(lora_rank=4))


@pytest.fixture(scope="module")
def pack(toy: tuple[Path, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack with a tuned trunk and routers."""
    out = tmp_path_factory.mktemp("tuned") / "pack"
    with_routers = replace(
        request(toy[0], out), recipes=("layerskip", "router"), router=RouterSettings(router_epochs=1)
    )
    tune(with_routers, quiet)
    return out


def test_the_pack_has_a_trunk_exits_and_routers(pack: Path) -> None:
    read = read_pack(pack)
    assert read.trunk is not None and read.trunk.rank == 4 and len(read.trunk.changed) == 7 * LAYERS
    plain = ExitSpec(2, "own", vocabulary="frequent", other=True, classifier="mlp")
    assert read.exits == (plain, replace(plain, layer=4))
    assert read.provenance["recipes"] == ["layerskip", "router"]
    assert read.defaults is not None and read.defaults.kv == "fill"
    assert not list((pack / "run").glob("*.pt"))


def test_the_card_says_what_full_depth_has_lost(pack: Path) -> None:
    said = read_pack(pack).provenance
    quality, card = said["full_depth"], (pack / "MODEL_CARD.md").read_text()
    assert quality["tuned"] < 0.5 * quality["original"]
    assert quality["tuned_right"] > quality["original_right"]
    assert quality["tokens"] == said["data"]["held_out_tokens"]
    for value in (f"{quality['original']:.4f}", f"{quality['tuned']:.4f}", f"{quality['same_choice']:.2%}"):
        assert value in card
    assert f"{said['history'][-1]['top']:.4f}" in card and "criterion `classifier`" in card


def test_what_is_said_of_exits_is_true_of_the_merged_model_on_the_executor(toy: tuple[Path, Any], pack: Path) -> None:
    """The features that curves were made of, against the plain model with the change added to its weights."""
    read, model = read_pack(pack), load_model(str(toy[0]))
    shop = Workshop(model, request(toy[0], pack), quiet)
    held_out = [s for s in shop.samples() if s.held_out]
    merged = replace(model, weights=read.tuned(model.weights))
    plain = Workshop(merged, request(toy[0], pack), quiet).features(held_out, (2, 4), folder=pack / "run" / "merged")
    for layer in (2, 4):
        rows = np.fromfile(pack / "run" / "tuned" / f"layer-{layer}.f16", np.float16).reshape(-1, HIDDEN)
        np.testing.assert_array_equal(rows, plain.layers[layer])


@pytest.mark.parametrize("executor", ["native", "torch"])
def test_drafts_at_exits_leave_the_tuned_trunk_s_output_as_it_is(
    toy: tuple[Path, Any], pack: Path, executor: Any
) -> None:
    prompts, sampling = ["ab", "cd", "zh"], SamplingParams(max_tokens=8)
    options: dict[str, Any] = {"executor": executor, "dtype": "float32", "kv_dtype": "float32"}
    with LLM(str(toy[0]), exits=pack, profitability=False, **options) as llm:
        full = llm.generate(prompts, sampling)
        drafts = llm.generate(prompts, sampling, ExitParams(kv="verify", threshold=0.3))
    assert [o.token_ids for o in drafts] == [o.token_ids for o in full]
    assert sum(o.report.drafts_proposed for o in drafts) > 0
    with LLM(str(toy[0]), exits=(2, 4), **options) as plain:
        assert [o.text for o in plain.generate(prompts, sampling)] != [o.text for o in full]


@pytest.mark.parametrize("stage", ["layerskip", "features"])
def test_an_interrupted_run_goes_on_to_the_same_pack(
    toy: tuple[Path, Any], tmp_path: Path, pack: Path, stage: str
) -> None:
    def interrupt(done: int, total: int, text: str) -> None:
        if text.startswith(stage) and done > total // 2:
            raise Interrupted

    asked = request(toy[0], tmp_path / "out")
    with pytest.raises(Interrupted):
        tune(asked, interrupt)
    tune(replace(asked, resume=True), quiet)
    assert (tmp_path / "out" / "trunk.safetensors").read_bytes() == (pack / "trunk.safetensors").read_bytes()


def test_data_of_its_own_make_the_model_stay_as_it_was(toy: tuple[Path, Any], tmp_path: Path) -> None:
    own = request(toy[0], tmp_path / "out", data="self", epochs=1)
    quality = tune(own, quiet)["full_depth"]
    assert quality["same_choice"] > 0.9
    assert quality["tuned"] == pytest.approx(quality["original"], abs=0.05)


def test_exits_must_be_given(toy: tuple[Path, Any], tmp_path: Path) -> None:
    with pytest.raises(InvalidParameter) as error:
        request(toy[0], tmp_path / "out", exits="auto")
    assert error.value.message == "the recipe `layerskip` moves the layers at which exits pay, so it cannot choose them"
    assert error.value.hint == "give layers, such as `--exits 10,20`"


def test_the_model_s_own_head_at_exits_is_enough_for_this_recipe(toy: tuple[Path, Any], tmp_path: Path) -> None:
    asked = request(toy[0], tmp_path / "out", epochs=1)
    tune(replace(asked, head=HeadSettings("none", norm="shared", head_words=0)), quiet)
    assert read_pack(tmp_path / "out").exits == (ExitSpec(2), ExitSpec(4))


def test_the_command_writes_a_pack_that_generates(
    toy: tuple[Path, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    data = request(toy[0], out).data.data
    words = f"--recipe layerskip --exits 2,4 --data {data} --lora-rank 2 --epochs 1 --batch-tokens 64 --threads 1"
    assert main(["tune", str(toy[0]), "--out", str(out), *words.split()]) == 0
    assert "tuned trunk" in capsys.readouterr().out
    assert {spec.adapter for spec in read_pack(out).exits} == {"none"}
    assert main(["generate", "ab", "-m", str(toy[0]), "--exits", str(out), "--exit", "lossless", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["text"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--lora-rank", "8"], "`--lora-rank` says nothing beside `--recipe heads`"),
        (["--recipe", "router", "--distil", "1"], "`--distil` says nothing beside `--recipe router`"),
        (["--recipe", "layerskip", "--router", "linear"], "`--router` says nothing beside `--recipe layerskip`"),
        (["--recipe", "layerskip", "--adapter-size", "8"], "`--adapter-size` says nothing beside `--adapter none`"),
    ],
)
def test_options_that_nothing_would_read(capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    assert main(["tune", "m", "--out", "x", *words]) == 1
    assert capsys.readouterr().err == f"error: {message}\nhint: leave it out\n"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"lora_rank": 0}, "`lora_rank` must be a whole number of at least 1 and at most 4096, not 0"),
        ({"exit_weight": 0}, "`exit_weight` must be a number greater than 0, not 0"),
        ({"distil": 1.5}, "`distil` must be a number at least 0 and at most 1, not 1.5"),
        ({"layer_dropout": 1}, "`layer_dropout` must be a number at least 0 and at most 0.9, not 1"),
        ({"curriculum": "rotation"}, "`curriculum` cannot be 'rotation'"),
    ],
)
def test_settings_that_cannot_be(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidParameter) as error:
        TrunkSettings(**setting)
    assert error.value.message == message


def test_a_run_goes_on_from_another_pack(toy: tuple[Path, Any], tmp_path: Path, pack: Path) -> None:
    asked = request(toy[0], tmp_path / "out", lr=1e-12)
    tune(replace(asked, start=pack), quiet)
    before, after = read_pack(pack), read_pack(tmp_path / "out")
    assert before.trunk is not None and after.trunk is not None
    for name, factor in before.trunk.tensors().items():
        np.testing.assert_allclose(after.trunk.tensors()[name], factor, atol=1e-6)
    for spec in after.exits:
        for name in ("norm.weight", "other.weight"):
            np.testing.assert_allclose(after.tensor(spec.layer, name), before.tensor(spec.layer, name), atol=1e-6)
    assert after.vocabularies == before.vocabularies
    assert after.provenance["full_depth"] == pytest.approx(before.provenance["full_depth"], abs=1e-3)
    said = after.provenance["start"]
    assert said == {key: before.provenance[key] for key in ("command", "data", "settings", "history")}
    # The commands of toys are empty; what a card makes of two is seen on made-up ones.
    card = model_card({**after.provenance, "command": "second", "start": {**said, "command": "first"}})
    assert "    first\n    second\n" in card


@pytest.mark.parametrize("changes", [{"exits": (2, 5)}, {"norm": "shared"}, {"past": "deep"}])
def test_a_pack_with_other_exits_is_no_start(
    toy: tuple[Path, Any], tmp_path: Path, pack: Path, changes: dict[str, Any]
) -> None:
    with pytest.raises(InvalidParameter) as error:
        tune(replace(request(toy[0], tmp_path / "out", **changes), start=pack), quiet)
    assert error.value.message == f"`{pack}` has other exits, or adapters of another size, than this run asks for"
    assert error.value.hint == "give the options of heads and trunk that it was made with"


def test_heads_on_a_frozen_trunk_do_not_go_on_from_a_tuned_one(
    toy: tuple[Path, Any], tmp_path: Path, pack: Path
) -> None:
    with pytest.raises(InvalidParameter) as error:
        tune(replace(request(toy[0], tmp_path / "out"), recipes=("heads",), start=pack), quiet)
    assert error.value.message == f"`{pack}` changes the trunk, and its heads are those of that one"
