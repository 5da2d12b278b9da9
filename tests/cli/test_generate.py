"""`offramp generate`."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from offramp.cli.main import main
from offramp.types.exits import LOSSLESS, ExitParams
from offramp.types.sampling import SamplingParams
from tests.cli.fake import FakeLLM, exit_params


def test_text_goes_to_stdout_and_the_report_to_stderr(llm: FakeLLM, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "Why?"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "Down it falls\n"
    speed, layers = captured.err.splitlines()
    assert speed.startswith("3 tokens, ") and speed.endswith("mean exit layer 4.0 of 6")
    assert layers == "layers: 67% run, 22% filled, 11% skipped; tokens by exit layer: 2: 1, 4: 1, 6: 1"


def test_json_is_one_object_for_one_prompt(llm: FakeLLM, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "Why?", "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["text"] == "Down it falls"
    assert value["tokens"] == [0, 1, 2] and value["exit_layers"] == [6, 2, 4]
    assert value["report"]["exit_histogram"] == {"2": 1, "4": 1, "6": 1}


def test_json_is_an_array_for_several_outputs(llm: FakeLLM, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "a", "b", "--n", "2", "--json"]) == 0
    assert [value["index"] for value in json.loads(capsys.readouterr().out)] == [0, 1, 0, 1]


def test_an_output_that_broke_off_is_an_error(llm: FakeLLM, capsys: pytest.CaptureFixture[str]) -> None:
    llm.finish_reason = "error"
    assert main(["generate", "a", "--json"]) == 1
    captured = capsys.readouterr()
    assert json.loads(captured.out)["finish_reason"] == "error"
    assert captured.err.splitlines()[-2].startswith("error: 1 of 1 outputs broke off: ")


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--max-draft", "3"], "`--max-draft` says nothing about KV policy `fill`\nhint: it belongs to `--kv verify`"),
        (
            ["--exit", "lossless", "--fill-when", "iteration"],
            "`--fill-when` says nothing about KV policy `verify`\nhint: it belongs to `--kv fill`",
        ),
        (["--logprobs", "3"], "`--logprobs` are only in the JSON\nhint: add `--json`"),
    ],
)
def test_a_flag_that_would_do_nothing_is_refused(
    flags: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["generate", "a", *flags]) == 1
    assert capsys.readouterr().err.strip() == f"error: {told}"


def test_several_prompts_get_titles(llm: FakeLLM, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "a\nb", "c"]) == 0
    assert capsys.readouterr().out == "==> a <==\nDown it falls\n\n==> c <==\nDown it falls\n\n"


def test_the_chat_template_is_the_default(llm: FakeLLM) -> None:
    main(["generate", "Why?", "--system", "Be brief."])
    assert llm.calls[0][:2] == (
        "stream_chat",
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}],
    )


def test_raw_continues_the_prompt(llm: FakeLLM) -> None:
    main(["generate", "Why?", "--raw"])
    assert llm.calls[0][:2] == ("stream", "Why?")


def test_a_model_without_template_continues_the_prompt_and_says_so(
    llm: FakeLLM, capsys: pytest.CaptureFixture[str]
) -> None:
    llm.tokenizer.has_template = False
    main(["generate", "Why?"])
    assert llm.calls[0][0] == "stream"
    note = "note: the model has no chat template; continuing the prompt as it is"
    assert capsys.readouterr().err.splitlines()[0] == note


def test_what_a_model_with_an_encoder_reads_needs_no_note(llm: FakeLLM, capsys: pytest.CaptureFixture[str]) -> None:
    llm.tokenizer.has_template, llm.has_encoder = False, True
    main(["generate", "Why?"])
    assert llm.calls[0][:2] == ("stream", "Why?")
    assert "note" not in capsys.readouterr().err


def test_flags_left_out_leave_the_defaults(llm: FakeLLM) -> None:
    main(["generate", "Why?"])
    assert llm.calls[0][2:] == (SamplingParams(), "off")
    assert set(llm.made_with) == {"model", "progress", "trace"}


def test_executor_flags(llm: FakeLLM) -> None:
    main(["generate", "Why?", "--executor", "native", "--dtype", "int4", "--kv-dtype", "float32"])
    made = {name: llm.made_with[name] for name in ("executor", "dtype", "kv_dtype")}
    assert made == {"executor": "native", "dtype": "int4", "kv_dtype": "float32"}


def test_sampling_flags(llm: FakeLLM) -> None:
    flags = "--temperature 0.7 --top-k 5 --stop END --stop . --stop-token-id 3 --logit-bias 4=-1.5 --ignore-eos"
    main(["generate", "Why?", "--max-tokens", "none", *flags.split()])
    assert llm.calls[0][2] == SamplingParams(
        temperature=0.7,
        top_k=5,
        stop=("END", "."),
        stop_token_ids=(3,),
        logit_bias={4: -1.5},
        ignore_eos=True,
        max_tokens=None,
    )


def test_a_schema_is_an_object_or_a_file_that_has_one(
    llm: FakeLLM, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    schema = {"type": "object", "required": ["a"]}
    file = tmp_path / "schema.json"
    file.write_text(json.dumps(schema), encoding="utf-8")
    for given in (json.dumps(schema), str(file)):
        main(["generate", "Why?", "--json-schema", given])
    assert [call[2] for call in llm.calls] == [SamplingParams(json_schema=schema)] * 2
    file.write_text("[1]", encoding="utf-8")
    for given, told in (
        (str(file), f"`{file}` is not a JSON object"),
        ('{"a": ', "it is not JSON: Expecting value: line 1 column 7 (char 6)"),
        ("{" * 10 + "nowhere", "it is not JSON: "),
        ("no/such/file", "`no/such/file` is neither a JSON object nor a file: "),
    ):
        with pytest.raises(SystemExit):
            main(["generate", "Why?", "--json-schema", given])
        assert f"argument --json-schema: {told}" in capsys.readouterr().err


def test_exit_flags(llm: FakeLLM) -> None:
    flags = "--criterion patience --threshold 2=0.5,4=0.75 --kv recompute --option exits=2 --option mode=strict"
    main(["generate", "Why?", *flags.split()])
    assert exit_params(llm.calls[0]) == ExitParams(
        criterion="patience", threshold={2: 0.5, 4: 0.75}, kv="recompute", options={"exits": 2, "mode": "strict"}
    )


def test_lossless_with_parameters_keeps_the_rest_of_lossless(llm: FakeLLM) -> None:
    main(["generate", "Why?", "--exit", "lossless", "--max-draft", "7"])
    assert exit_params(llm.calls[0]) == ExitParams(threshold=LOSSLESS.threshold, kv="verify", max_draft=7)


def test_a_risk_leaves_no_parameters(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "Why?", "--exit", "0.02", "--min-layer", "3"]) == 1
    assert capsys.readouterr().err.startswith("error: `--exit 0.02` leaves no choice of `--min-layer`\n")


@pytest.mark.parametrize(
    ("text", "value"), [("10,20", [10, 20]), ("8", [8]), ("none", []), ("packs/small", "packs/small")]
)
def test_exits_are_layers_or_a_pack(text: str, value: object, llm: FakeLLM) -> None:
    main(["generate", "Why?", "--exits", text, "--no-prefix-caching", "--threads", "2"])
    made = {name: llm.made_with[name] for name in ("exits", "prefix_caching", "threads")}
    assert made == {"exits": value, "prefix_caching": False, "threads": 2}


def test_standard_input_is_one_prompt(llm: FakeLLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("one\ntwo\n"))
    main(["generate", "-", "--raw"])
    assert llm.calls[0][1] == "one\ntwo\n"


def test_a_text_file_has_a_prompt_per_line(llm: FakeLLM, tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text("one\n\ntwo\n")
    main(["generate", "--prompts", str(file), "--raw"])
    assert llm.calls[0][1] == ["one", "two"]


def test_a_jsonl_file_may_hold_conversations(llm: FakeLLM, tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    turns = [{"role": "user", "content": "two"}]
    lines = ["one", {"prompt": "one"}, {"messages": turns}]
    file.write_text("\n".join(map(json.dumps, lines)))
    main(["generate", "--prompts", str(file)])
    user = [{"role": "user", "content": "one"}]
    assert llm.calls[0][:2] == ("chat", [user, user, turns])


@pytest.mark.parametrize("line", ["{", "3", "{}", '{"messages": []}'])
def test_a_line_that_is_no_prompt_is_named(line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text(f'"good"\n{line}\n')
    assert main(["generate", "--prompts", str(file)]) == 1
    assert capsys.readouterr().err.startswith(f"error: line 2 of `{file}` is no")


def test_no_prompt_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate"]) == 1
    assert capsys.readouterr().err.startswith("error: there is no prompt\nhint: ")


def test_a_trace_is_recorded_by_the_llm(llm: FakeLLM, tmp_path: Path) -> None:
    main(["generate", "Why?", "--record-trace", str(tmp_path / "trace")])
    assert llm.made_with["trace"] == tmp_path / "trace"


def trace_file(folder: Path, *exit_layers: list[int]) -> str:
    """A trace on the fake model, one output per list."""
    file = folder / "trace.jsonl"
    lines = [{"format": 1, "depth": 6, "exits": [2, 4], "token_ids": [], "exit_layers": at} for at in exit_layers]
    file.write_text("\n".join(map(json.dumps, lines)))
    return str(file)


def test_a_replay_gives_each_prompt_its_exits(llm: FakeLLM, tmp_path: Path) -> None:
    trace = trace_file(tmp_path, [6, 2], [4, 6])
    assert main(["generate", "a", "b", "--kv", "recompute", "--replay-trace", trace]) == 0
    replayed = [(params.criterion, params.options["exit_layers"], params.kv) for params in llm.calls[0][3]]
    assert replayed == [("replay", (6, 2), "recompute"), ("replay", (4, 6), "recompute")]
    assert llm.made_with["exits"] == [2, 4] and llm.made_with["profitability"] is False


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["a", "b"], "has 1 outputs and there are 2 prompts"),
        (["a", "--n", "2"], "a trace is replayed for one output per prompt, `n` is 2"),
        (["a", "--exit", "lossless"], "`--exit lossless` and `--replay-trace` exclude each other"),
    ],
)
def test_a_replay_that_cannot_fit_is_refused(
    words: list[str], error: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["generate", *words, "--replay-trace", trace_file(tmp_path, [6])]) == 1
    assert error in capsys.readouterr().err.splitlines()[0]


def test_a_replay_needs_the_exits_of_the_trace(
    llm: FakeLLM, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["generate", "a", "--replay-trace", trace_file(tmp_path, [3])]) == 1
    error = "error: in the trace a token left at layer 3, where the model has no exit"
    assert capsys.readouterr().err.splitlines()[0] == error
