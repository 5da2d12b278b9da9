"""`LLM` over a tiny checkpoint whose tokens are bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from offramp import LLM, ExitParams, OfframpError, SamplingParams
from offramp.engine.trace import read_trace
from tests.llm.tiny.conftest import EARLY, FREE
from tests.models.toys import VOCAB


def test_one_prompt_gives_one_output_and_a_list_gives_a_list(llm: LLM) -> None:
    one = llm.generate("abc", FREE)
    assert llm.generate(["abc", "x"], FREE)[0] == one
    assert one.text == llm.tokenizer.decode(list(one.token_ids))
    assert one.prompt_token_ids == tuple(llm.tokenizer.encode("abc"))
    assert len(one.token_ids) == len(one.exit_layers) == len(one.confidences) == 20


def test_one_conversation_gives_one_output_through_the_template(llm: LLM) -> None:
    hello = [{"role": "user", "content": "hi"}]
    one = llm.chat(hello, FREE)
    assert one == llm.generate("[user] hi\n", FREE)
    assert llm.chat([hello, hello], FREE) == [one, one]


def test_the_rest_of_n_outputs_are_alternatives(llm: LLM) -> None:
    sampling = SamplingParams(n=3, temperature=1.0, seed=7, max_tokens=8)
    first = llm.generate("abc", sampling)
    assert [o.index for o in (first, *first.alternatives)] == [0, 1, 2]
    third = llm.generate("abc", SamplingParams(temperature=1.0, seed=9, max_tokens=8))
    assert first.alternatives[1].token_ids == third.token_ids


def test_an_interrupted_call_leaves_nothing_behind(llm: LLM) -> None:
    def interrupt(done: int, total: int, tokens: int, depth: float) -> None:
        if tokens > 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        llm.generate(["abc", "x"], FREE, on_progress=interrupt)
    assert not llm.engine.has_work and not llm.engine.sequences
    llm.engine.check_integrity()


def test_a_refused_prompt_in_a_list_starts_nothing(llm: LLM) -> None:
    with pytest.raises(OfframpError, match="the prompt is empty"):
        llm.generate([[65, 66], []], FREE)
    assert not llm.engine.has_work


def test_a_stop_string_is_found_across_tokens_and_cut_off(llm: LLM) -> None:
    whole = llm.generate("abc", FREE).text
    stop = whole[5:8]
    output = llm.generate("abc", SamplingParams(max_tokens=20, ignore_eos=True, stop=(stop,)), "lossless")
    assert output.text == whole[: whole.index(stop)] and output.finish_reason == "stop"


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ([1, 2, 3], "a prompt must be text or a list of token ids, not 1"),
        ([["a"]], f"prompt token 'a' is not a token id, a whole number below {len(VOCAB)}"),
        ([[1.5]], f"prompt token 1.5 is not a token id, a whole number below {len(VOCAB)}"),
    ],
)
def test_what_is_no_prompt_is_refused(llm: LLM, prompts: Any, message: str) -> None:
    with pytest.raises(OfframpError) as error:
        llm.generate(prompts, FREE)
    assert str(error.value) == message


def test_progress_counts_outputs_tokens_and_depth(llm: LLM) -> None:
    seen: list[tuple[int, int, int, float]] = []
    llm.generate(["abc", "x"], FREE, EARLY, on_progress=lambda *told: seen.append(told))
    assert seen[-1][:3] == (2, 2, 40) and 1 <= seen[-1][3] <= 4


def test_parameters_may_differ_by_prompt(llm: LLM) -> None:
    short = SamplingParams(max_tokens=3)
    outputs = llm.generate(["abc", "abc"], [short, FREE], ["off", EARLY])
    assert [len(o.token_ids) for o in outputs] == [3, 20]
    assert set(outputs[0].exit_layers) == {4} and 1 in outputs[1].exit_layers
    with pytest.raises(OfframpError, match=r"^`exit` has 1 entries for 2 prompts$"):
        llm.generate(["abc", "abc"], short, ["off"])


@pytest.mark.parametrize(
    ("dial", "message"),
    [
        (
            "loseless",
            '`exit` cannot be \'loseless\'\nhint: allowed: "off", "lossless", a risk such as 0.02 or "task:0.02", or',
        ),
        (0.02, "the exit pack has no calibration\nhint: "),
        (True, "`exit` cannot be True\nhint: "),
        (1.5, "`risk` must be a number at least 0 and at most 1, not 1.5"),
    ],
)
def test_a_position_the_dial_does_not_have(llm: LLM, dial: str | float, message: str) -> None:
    with pytest.raises(OfframpError) as error:
        llm.generate("abc", FREE, dial)
    assert str(error.value).startswith(message)


def test_a_recorded_trace_replays_the_exits(folder: Path, options: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    with LLM(str(folder), trace=path, **options) as llm:
        first = llm.generate("abc", FREE, EARLY)
    (line,) = read_trace(path)
    assert line["token_ids"] == list(first.token_ids) and line["exit_layers"] == list(first.exit_layers)
    fired = [tests[-1][0] for tests, layer in zip(line["tests"], line["exit_layers"], strict=True) if layer < 4]
    assert fired == [layer for layer in first.exit_layers if layer < 4]
    replay = ExitParams(criterion="replay", threshold=1, options={"exit_layers": line["exit_layers"]})
    with LLM(str(folder), **options) as llm:
        again = llm.generate("abc", FREE, replay)
    assert (again.token_ids, again.exit_layers) == (first.token_ids, first.exit_layers)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        '{"format": 1, "exit_layers": [2]}',
        '{"format": 2, "exits": [1], "exit_layers": [1]}',
        '{"format": 1, "exits": [1], "exit_layers": [-1]}',
    ],
)
def test_a_line_that_is_no_trace_is_refused_with_its_number(tmp_path: Path, content: str) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text('{"format": 1, "exits": [2], "exit_layers": [2, 4]}\n' + content + "\n")
    with pytest.raises(OfframpError) as error:
        read_trace(path)
    assert str(error.value) == (
        f"line 2 of trace `{path}` is not an exit trace of format 1\n"
        "hint: record one with `offramp generate --record-trace FILE`"
    )


def test_a_trace_that_cannot_be_written_is_refused_before_anything_runs(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "missing" / "trace.jsonl"
    with pytest.raises(OfframpError) as error:
        LLM(str(folder), trace=path)
    assert str(error.value) == f"trace `{path}` cannot be written: No such file or directory"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"exits": [4]}, "an exit layer must be a whole number from 0 to 3, not 4"),
        ({"max_model_len": 129}, "`max_model_len` is 129, the model's context is 128"),
        ({"block_size": 0}, "`block_size` must be a whole number of at least 1 and at most 2147483647, not 0"),
        ({"block_size": 9999999999}, "`block_size` must be a whole number of at least 1 and at most 2147483647, not 9"),
        (
            {"block_size": 2**31 - 1, "kv_tokens": 2**61},
            "the KV cache of 2305843008139952128 tokens needs 737869762604784680960 bytes",
        ),
        ({"exits": 5}, "`exits` must be layers or the folder of an exit pack, not 5"),
        ({"kv_tokens": 3}, "`kv_tokens` is 3, less than one block of 16\nhint: raise `kv_tokens`"),
        (
            {"kv_tokens": 10**14},
            f"`kv_tokens` must be a whole number of at least 1 and at most {16 * (2**31 - 1)}, not 1",
        ),
        ({"batching": "deep"}, "`batching` cannot be 'deep'\nhint: "),
        ({"executor": "onnx"}, "`executor` cannot be 'onnx'\nhint: allowed: `auto`, `native`, `torch`"),
        ({"dtype": "float64"}, "`dtype` cannot be 'float64' on the native executor\nhint: did you mean `float16`?"),
        (
            {"kv_dtype": "int8"},
            "`kv_dtype` cannot be 'int8' on the native executor\nhint: allowed: `float16`, `float32`",
        ),
        ({"executor": "torch", "dtype": "int8"}, "`dtype` cannot be 'int8' on the torch executor\nhint: "),
        ({"executor": "torch", "kv_dtype": "float16"}, "`kv_dtype` cannot be 'float16' on the torch executor\nhint: "),
        (
            {"executor": "native", "device": "cuda"},
            "the native executor runs on the device `cpu`, not on 'cuda'\nhint: ",
        ),
        ({"device": "tpu"}, "there is no device `tpu` here; there is `cpu`"),
        ({"threads": 0}, "`threads` must be a whole number of at least 1 and at most 1024, not 0"),
        ({"threads": 2000}, "`threads` must be a whole number of at least 1 and at most 1024, not 2000"),
        (
            {"threads": 2000, "executor": "torch"},
            "`threads` must be a whole number of at least 1 and at most 1024, not",
        ),
        (
            {"max_num_batched_tokens": 8},
            "`max_num_batched_tokens` is 8, less than `max_num_seqs` 32\nhint: every running sequence needs one row",
        ),
    ],
)
def test_an_option_that_is_not_allowed(folder: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(OfframpError) as error:
        LLM(str(folder), **options)  # type: ignore[arg-type]
    assert str(error.value).startswith(message)


def test_inspect_prices_every_segment_check_and_fill(folder: Path, options: dict[str, Any]) -> None:
    with LLM(str(folder), **options) as llm:
        llm.generate("abc", FREE, EARLY)
        told = llm.inspect()
    types = ("torch", "float64", "float64") if options["executor"] == "torch" else ("native", "int8", "float16")
    assert (told["executor"], told["weights"], told["kv"]) == types
    assert [s["layers"] for s in told["segments"]] == [[1, 1], [2, 2], [3, 4]]
    assert [(c["at"], c["exit"]) for c in told["checks"]] == [(1, True), (2, True), (4, False)]
    assert [f["from"] for f in told["fills"]] == [1, 2]
    spent = told["seconds_spent"]
    assert set(spent) == {"encoder", "layers", "checks", "fill", "top"} and not spent["encoder"]
    assert min(spent["layers"], spent["checks"], spent["top"]) > 0
    assert all(part["seconds_1_row"] > 0 for kind in ("segments", "checks", "fills") for part in told[kind])
