"""Recipe `deep` from the beginning to the end, on a toy model: exits at the embedding and low in the stack."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from offramp import LLM, ExitParams, SamplingParams
from offramp.errors import InvalidParameter
from offramp.exits.read import read_pack
from offramp.models import load_model
from offramp.tune.run import tune
from offramp.types.executor import ScoreRow, SeqRows
from tests.executors.kinds import make_executor
from tests.tune.test_run import read_heads
from tests.tune.toys import quiet, save_toy, toy_request


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("deep") / "model"
    return folder, save_toy(folder)


@pytest.fixture(scope="module")
def pack(toy: tuple[Path, Any]) -> Path:
    out = toy[0].with_name("pack")
    tune(toy_request(toy[0], out, recipes=("deep", "router"), exits=(0, 2)), quiet)
    return out


def test_the_pack_says_how_it_was_made(pack: Path) -> None:
    read = read_pack(pack)
    assert [(e.layer, e.past, e.classifier) for e in read.exits] == [(0, "deep", "mlp"), (2, "deep", "mlp")]
    assert read.provenance["recipes"] == ["deep", "router"]
    assert [entry["step"] for entry in read.provenance["rollouts"]] == [2, 3, 4]
    first, last = read.provenance["history"][0], read.provenance["history"][-1]
    assert all(last["exits"][layer]["kl"] < first["exits"][layer]["kl"] for layer in ("0", "2"))
    assert "| tokens before that left there too | layer 0 | layer 2 |" in (pack / "MODEL_CARD.md").read_text()


def test_a_run_goes_on_from_another_pack(toy: tuple[Path, Any], pack: Path, tmp_path: Path) -> None:
    asked = toy_request(toy[0], tmp_path / "out", recipes=("deep",), exits=(0, 2), work=pack / "work", lr=1e-12)
    tune(replace(asked, start=pack), quiet)
    before, after = read_pack(pack), read_pack(tmp_path / "out")
    assert after.vocabularies == before.vocabularies and {e.classifier for e in after.exits} == {"none"}
    for layer in (0, 2):
        for name in ("past.weight", "adapter.gate_proj.weight", "norm.weight"):
            np.testing.assert_allclose(after.tensor(layer, name), before.tensor(layer, name), atol=1e-6)
    first, last = (p.provenance["exits"][0]["agreement"] for p in (before, after))
    assert last == pytest.approx(first, abs=0.02)
    assert after.provenance["start"]["settings"] == before.provenance["settings"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"exits": (0, 3)}, "has other exits, or adapters of another size, than this run asks for"),
        ({"adapter_size": 16}, "has other exits, or adapters of another size, than this run asks for"),
        ({"exits": "auto"}, "a pack to go on from has its exits: there is nothing to choose"),
        ({"recipes": ("router",)}, "the recipe `router` cannot go on from another pack"),
    ],
)
def test_a_pack_that_is_no_start(
    toy: tuple[Path, Any], pack: Path, tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    settings: dict[str, Any] = {"recipes": ("deep",), "exits": (0, 2), "work": pack / "work", **changes}
    with pytest.raises(InvalidParameter) as error:
        tune(toy_request(toy[0], tmp_path / "out", start=pack, **settings), quiet)
    assert says in error.value.message


@pytest.mark.parametrize("kind", ["torch", "native"])
def test_an_executor_rolls_out_as_training_did(toy: tuple[Path, Any], pack: Path, kind: str) -> None:
    """Three tokens that leave at the exit, behind one that was chosen at the top."""
    read, heads = read_heads(toy[0], pack)
    model = load_model(str(toy[0]))
    executor = make_executor(kind, model.spec, model.weights, read, block_size=4, num_blocks=8)
    tokens, table = list(range(3, 12)), range(3)
    for boundary, head in enumerate(heads, start=1):
        for segment in range(3):
            executor.run_segment(segment, [SeqRows(range(9), tokens, table)])
        executor.score(3, [ScoreRow(5, table, SamplingParams(), 0)], frozenset())
        hidden = torch.tensor(executor.hidden(boundary, range(6, 9)))  # type: ignore[attr-defined]
        state = torch.tensor(executor.hidden(3, [5]))  # type: ignore[attr-defined]
        for step in range(3):
            row = ScoreRow(6 + step, table, SamplingParams(), 0)
            (scored,) = executor.score(boundary, [row], frozenset({"max_prob"}))
            with torch.no_grad():
                state = head._deep_states(hidden[step : step + 1], state)
                x = head._norm(state)
                other = x @ head.tensors["other.weight"].T + head.tensors["other.bias"]
                probs = torch.cat((x @ head.matrix.T, other), -1).softmax(-1)[0]
            best, winner = probs.max(-1)
            silent = int(winner) == len(head.words.ids)
            assert (scored.token is None) == silent
            assert scored.features["max_prob"] == pytest.approx(0 if silent else float(best), abs=1e-4)


def test_drafts_from_the_embedding_change_nothing(toy: tuple[Path, Any], pack: Path) -> None:
    prompts, sampling = ["abc", "hello", "q"], SamplingParams(max_tokens=24, ignore_eos=True)
    exit = ExitParams(threshold=0.0, kv="verify", max_draft=3)
    with LLM(str(toy[0]), exits=pack, dtype="float32", threads=1, profitability=False) as llm:
        plain = llm.generate(prompts, sampling, exit="off")
        drafted = llm.generate(prompts, sampling, exit=exit)
    assert [out.token_ids for out in drafted] == [out.token_ids for out in plain]
    assert sum(out.report.drafts_accepted for out in drafted) > 0
