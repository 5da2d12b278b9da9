"""`LLM` over a tiny T5: the prompt is what the encoder reads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from offramp import LLM, ExitParams, OfframpError, SamplingParams
from offramp.engine.trace import read_trace
from offramp.exits.pack import static_exits
from offramp.llm.backend import choose_backend
from offramp.llm.stores import DEFAULT_STORE_BYTES, Stores
from offramp.models import T5Spec
from tests.models.t5_toys import save_t5
from tests.models.toys import save_model

FREE = SamplingParams(max_tokens=12, ignore_eos=True)
EARLY = ExitParams("fixed", 1.0, options={"layer": 1})
OPTIONS: dict[str, Any] = {"exits": [1, 2], "executor": "torch", "dtype": "float64", "profitability": False}
PROMPTS = ["the cat", "a b c the the", "t"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("t5")
    return folder, save_t5(folder, untied=True).double().eval()


@pytest.fixture
def llm(model: tuple[Path, Any]) -> Iterator[LLM]:
    with LLM(str(model[0]), **OPTIONS) as llm:
        yield llm


def test_texts_become_what_transformers_makes_of_them(llm: LLM, model: tuple[Path, Any]) -> None:
    for prompt, output in zip(PROMPTS, llm.generate(PROMPTS, FREE), strict=True):
        ids = llm.tokenizer.encode(prompt)
        assert ids[-1] == llm.spec.eos_token_ids[0] and output.prompt_token_ids == tuple(ids)
        made = model[1].generate(
            torch.tensor([ids]), do_sample=False, use_cache=False, eos_token_id=None, max_new_tokens=12
        )
        assert list(output.token_ids) == made[0, 1:].tolist()
        assert output.report.encoded_tokens == len(ids) and output.report.cached_prompt_tokens == 0


def test_on_a_cpu_the_native_executor_is_chosen_and_makes_the_same_of_them(llm: LLM, model: tuple[Path, Any]) -> None:
    options = {**OPTIONS, "executor": "auto", "dtype": "float32", "kv_dtype": "float32"}
    with LLM(str(model[0]), **options) as native:
        assert native.backend.executor == "native"
        for exit in ("off", "lossless", EARLY, ExitParams("fixed", 1.0, kv="recompute", options={"layer": 1})):
            ours, theirs = native.generate(PROMPTS, FREE, exit), llm.generate(PROMPTS, FREE, exit)
            assert [(o.token_ids, o.exit_layers) for o in ours] == [(o.token_ids, o.exit_layers) for o in theirs]


def test_lossless_and_streams_give_the_same(llm: LLM) -> None:
    whole = llm.generate(PROMPTS[0], FREE)
    assert llm.generate(PROMPTS[0], FREE, "lossless").token_ids == whole.token_ids
    *_, last = llm.stream(list(whole.prompt_token_ids), FREE)
    assert last.output == whole


def test_exits_leave_early_and_the_rest_of_n_share_the_source(llm: LLM) -> None:
    first = llm.generate(PROMPTS[0], SamplingParams(n=3, temperature=1.0, seed=1, max_tokens=8, ignore_eos=True), EARLY)
    outputs = [first, *first.alternatives]
    assert all(set(output.exit_layers[1:]) == {1} for output in outputs)
    assert [output.report.encoded_tokens for output in outputs] == [len(first.prompt_token_ids), 0, 0]


def test_a_chat_needs_a_template(llm: LLM) -> None:
    with pytest.raises(OfframpError) as error:
        llm.chat([{"role": "user", "content": "hi"}])
    assert error.value.message == "the model has no chat template"
    assert error.value.hint is not None and error.value.hint.startswith("send a plain prompt")


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ([], "the source is empty: the model has an encoder, which reads what the output is made from"),
        ([3] * 41, "the source has 41 tokens, the encoder reads 40"),
        ([3, 9999], "source token 9999 is not a token id, a whole number below "),
    ],
)
def test_a_source_that_cannot_be_read_is_refused(model: tuple[Path, Any], prompt: list[int], message: str) -> None:
    with LLM(str(model[0]), max_source_len=40, **OPTIONS) as llm, pytest.raises(OfframpError) as error:
        llm.generate([prompt], FREE)
    assert error.value.message.startswith(message)


def test_a_source_that_the_store_can_never_hold_is_refused(model: tuple[Path, Any]) -> None:
    with LLM(str(model[0]), source_tokens=32, **OPTIONS) as llm:
        assert len(llm.generate([[3] * 32], FREE)[0].token_ids) == 12
        with pytest.raises(OfframpError) as error:
            llm.generate([[3] * 33], FREE)
    assert error.value.message == "the source has 33 tokens, the store of sources holds 32"
    assert error.value.hint == "shorten the source, or raise `source_tokens`"


def test_what_is_asked_of_a_prompts_own_tokens_is_refused(llm: LLM) -> None:
    for more in ({"prompt_logprobs": 0}, {"echo_only": True}):
        with pytest.raises(OfframpError, match="the model has an encoder, whose source is read whole"):
            llm.session.submit([3, 4], FREE, "off", **more)


def test_inspect_tells_the_encoder_and_prices_sources(llm: LLM) -> None:
    told = llm.inspect()
    assert (told["encoder_layers"], told["layers"], told["longest_source"]) == (2, 3, 2048)
    assert [source["tokens"] for source in told["sources"]] == [32, 128, 512]
    assert all(source["seconds"] > 0 for source in told["sources"])
    assert told["source_tokens"] >= 2048 and told["kv_tokens"] >= 2048


def test_a_recorded_trace_tells_the_source_and_replays(model: tuple[Path, Any], tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    with LLM(str(model[0]), trace=path, **OPTIONS) as llm:
        output = llm.generate(PROMPTS[1], FREE, EARLY)
    [line] = read_trace(path)
    assert (line["prompt_tokens"], line["source_tokens"]) == (1, len(output.prompt_token_ids))
    replay = ExitParams("replay", 1.0, options={"exit_layers": tuple(line["exit_layers"])})
    with LLM(str(model[0]), **OPTIONS) as llm:
        again = llm.generate(PROMPTS[1], FREE, replay)
    assert (again.token_ids, again.exit_layers) == (output.token_ids, output.exit_layers)


def test_an_option_about_sources_without_an_encoder_is_refused(tmp_path: Path) -> None:
    save_model(tmp_path)
    for name in ("max_source_len", "source_tokens"):
        more: dict[str, Any] = {name: 8}
        with pytest.raises(OfframpError) as error:
            LLM(str(tmp_path), executor="torch", **more)
        assert error.value.message == f"`{name}` is 8, and the model has no encoder"


T5_SMALL = T5Spec(6, 6, 512, 2048, 8, 64, 32128, 1e-6, "relu", 32, 128, True, True, 0, (1,))


def test_memory_is_shared_so_that_as_many_sources_fit_as_outputs() -> None:
    stores = Stores(T5_SMALL, static_exits([2, 4], 6), choose_backend("torch", "cpu", "float32", "auto"))
    assert stores.source_bytes == 2 * 6 * 512 * 4
    assert stores.token_bytes == stores.source_bytes + 3 * 512 * 4
    tokens, source_tokens = stores.split(2**28, 128, 512)
    assert source_tokens // 512 == tokens // 128
    assert tokens * stores.token_bytes + source_tokens * stores.source_bytes == pytest.approx(2**28, rel=1e-3)
    open_ = dict.fromkeys(("max_model_len", "max_source_len", "kv_tokens", "source_tokens"))
    sizes = stores.sizes(**open_, block_size=16, max_num_seqs=64)
    held = 16 * (sizes.num_blocks * stores.token_bytes + sizes.num_source_blocks * stores.source_bytes)
    assert held == pytest.approx(DEFAULT_STORE_BYTES, rel=1e-2)
    assert (sizes.context, sizes.source_len) == (2048, 2048)
