"""Whole runs as they are on a device that is no CPU, on a CPU by another name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from offramp import LLM, ExitParams, SamplingParams
from offramp.exits.read import read_pack
from offramp.llm.backend import choose_backend
from offramp.models import load_model
from offramp.tune.curves import curve_of
from offramp.tune.request import TuneRequest
from offramp.tune.run import tune
from offramp.tune.samples import Sample, first_samples, read_sample
from offramp.tune.settings import TrunkSettings
from offramp.tune.start import read_head, read_words
from offramp.tune.train import judge, lessons_of
from offramp.tune.workshop import Workshop
from tests.tune.toys import quiet, toy_request

TOKENS = 1500


class Interrupted(Exception):
    """Somebody pressed Ctrl-C."""


class Elsewhere(str):
    """A device by its name, which torch takes for the CPU, and offramp for none."""

    type = "elsewhere"


@pytest.fixture(scope="module", autouse=True)
def elsewhere() -> Iterator[None]:
    """Training is elsewhere, and lines are short."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Workshop, "device", Elsewhere("cpu"))
        patch.setattr("offramp.executors.torch.executor.find_device", lambda name: torch.device("cpu"))
        patch.setattr("offramp.tune.converse.LENGTH", 160)
        patch.setattr("offramp.tune.converse.MARGIN", 100)
        yield


def request(toy: Path, out: Path, **changes: Any) -> TuneRequest:
    options = {"recipes": ("deep",), "exits": (0, 2), "tokens": TOKENS, "batch": 64, "epochs": 4, **changes}
    made = toy_request(toy, out, "torch", **options)
    return replace(made, backend=choose_backend("torch", "elsewhere", "float32", "float32"))


@pytest.fixture(scope="module")
def pack(toy: tuple[Path, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Heads that read the past, and routers; the data lie beside it."""
    out = tmp_path_factory.mktemp("elsewhere") / "pack"
    tune(request(toy[0], out, recipes=("deep", "router"), work=out.with_name("work")), quiet)
    return out


def samples_of(work: Path) -> list[Sample]:
    lines = (work / "data.jsonl").read_text().splitlines()
    return first_samples([read_sample(json.loads(line)) for line in lines], TOKENS)


def judged_by_itself(toy: Path, pack: Path, work: Path) -> list[dict[str, Any]]:
    """What a pack is to say of its exits: of features of the held-out samples, made anew."""
    shop, read = Workshop(load_model(str(toy)), request(toy, pack, work=work), quiet), read_pack(pack)
    heads = [read_head(read, spec, read_words(read, spec, shop)) for spec in read.exits]
    held_out = [s for s in shop.samples() if s.held_out]
    features = shop.features(held_out, read.layers, folder=pack / "judged")
    found = judge(heads, heads[0].words, lessons_of(heads, heads[0].words, features, features.rows(held_out=True)))
    return [curve_of(h.spec.layer, kl, judged).to_dict() for h, (kl, judged) in zip(heads, found, strict=True)]


def assert_said(said: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    """Equal but for a pack's float16 and another executor."""
    assert [exit["layer"] for exit in said] == [exit["layer"] for exit in expected]
    for ours, theirs in zip(said, expected, strict=True):
        assert ours["kl"] == pytest.approx(theirs["kl"], rel=0.02)
        assert ours["agreement"] == pytest.approx(theirs["agreement"], abs=0.02)


def test_heads_are_trained_live_on_conversations_in_lock_step(toy: tuple[Path, Any], pack: Path) -> None:
    read = read_pack(pack)
    assert [(e.layer, e.past, e.classifier) for e in read.exits] == [(0, "deep", "mlp"), (2, "deep", "mlp")]
    said = read.provenance
    first, last = said["history"][0], said["history"][-1]
    assert all(last["exits"][layer]["kl"] < first["exits"][layer]["kl"] for layer in ("0", "2"))
    assert [entry["step"] for entry in said["rollouts"]] == [2, 3, 4]
    samples = samples_of(pack.with_name("work"))
    assert last["tokens"] == 4 * sum(len(s.token_ids) for s in samples if not s.held_out)  # prompts too: whole samples
    assert said["data"]["tokens"] == sum(len(s.scored) for s in samples) >= TOKENS
    assert_said(said["exits"], judged_by_itself(toy[0], pack, pack.with_name("work")))
    best = {layer: min(entry["exits"][layer]["kl"] for entry in said["history"]) for layer in ("0", "2")}
    # What training saw of held-out tokens is what the executor's features say of them.
    assert [exit["kl"] for exit in said["exits"]] == pytest.approx([*best.values()], rel=0.1)
    assert not list((pack / "run").glob("*.pt"))


@pytest.mark.parametrize("executor", ["native", "torch"])
def test_drafts_from_the_embedding_change_nothing(toy: tuple[Path, Any], pack: Path, executor: Any) -> None:
    prompts, sampling = ["abc", "hello", "q"], SamplingParams(max_tokens=24, ignore_eos=True)
    options: dict[str, Any] = {"executor": executor, "dtype": "float32", "kv_dtype": "float32", "threads": 1}
    with LLM(str(toy[0]), exits=pack, profitability=False, **options) as llm:
        plain = llm.generate(prompts, sampling, exit="off")
        drafted = llm.generate(prompts, sampling, exit=ExitParams(threshold=0.0, kv="verify", max_draft=3))
    assert [out.token_ids for out in drafted] == [out.token_ids for out in plain]
    assert sum(out.report.drafts_accepted for out in drafted) > 0


def interrupted(asked: TuneRequest, stage: str) -> None:
    """Carry out a request, but stop half-way through a stage, and go on then."""

    def interrupt(done: int, total: int, text: str) -> None:
        if text.startswith(stage) and done > total // 2:
            raise Interrupted

    with pytest.raises(Interrupted):
        tune(asked, interrupt)
    tune(replace(asked, resume=True), quiet)


@pytest.mark.parametrize("stage", ["features", "heads"])
def test_an_interrupted_run_goes_on_to_the_same_heads(
    toy: tuple[Path, Any], pack: Path, tmp_path: Path, stage: str
) -> None:
    interrupted(request(toy[0], tmp_path, work=pack.with_name("work")), stage)
    ours, theirs = read_pack(tmp_path), read_pack(pack)
    for layer in (0, 2):
        for name in ("past.weight", "adapter.down_proj.weight", "other.bias"):
            np.testing.assert_array_equal(ours.tensor(layer, name), theirs.tensor(layer, name))


def test_interrupted_conversations_go_on_to_the_same(toy: tuple[Path, Any], pack: Path, tmp_path: Path) -> None:
    interrupted(request(toy[0], tmp_path), "data")
    ours, theirs = samples_of(tmp_path / "work"), samples_of(pack.with_name("work"))
    assert ours == theirs and sum(len(s.scored) for s in ours) >= TOKENS


def test_exits_that_are_chosen_are_judged_on_held_out_tokens(toy: tuple[Path, Any], pack: Path, tmp_path: Path) -> None:
    """The features that the choice was made on are of other samples."""
    work = pack.with_name("work")
    said = tune(request(toy[0], tmp_path, work=work, recipes=("heads",), exits="auto", adapter="none"), quiet)
    assert said["plan"]["layers"] == [exit["layer"] for exit in said["exits"]]
    assert_said(said["exits"], judged_by_itself(toy[0], tmp_path, work))


def test_a_trunk_is_tuned_and_stays_much_as_it_was(toy: tuple[Path, Any], pack: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"recipes": ("layerskip", "router"), "exits": (2, 4), "adapter": "none", "epochs": 2}
    asked = request(toy[0], tmp_path, work=pack.with_name("work"), **options)
    said = tune(replace(asked, trunk=TrunkSettings(lora_rank=4)), quiet)
    first, last, quality = said["history"][0], said["history"][-1], said["full_depth"]
    assert last["top"] < 0.1 and all(last["exits"][e]["kl"] < first["exits"][e]["kl"] for e in ("2", "4"))
    assert quality["original_right"] > 0.98  # the answers are its own
    assert quality["tuned"] == pytest.approx(quality["original"], abs=0.1)
    read = read_pack(tmp_path)
    assert read.trunk is not None and {spec.classifier for spec in read.exits} == {"mlp"}
