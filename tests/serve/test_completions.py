"""`/v1/completions`."""

from __future__ import annotations

from typing import Any

import pytest

from tests.serve.site import Site, ask, error_of, events, visit

PATH = "/v1/completions"


def complete(prompt: Any = "abc", **more: Any) -> dict[str, Any]:
    answer = ask(PATH, {"prompt": prompt, **more})
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def test_a_text_is_continued() -> None:
    body = complete("abc", model="fake")
    assert body["object"] == "text_completion"
    assert body["model"] == "fake"
    assert body["choices"] == [{"index": 0, "text": "abc", "logprobs": None, "finish_reason": "stop"}]
    usage = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    assert body["usage"] == {**usage, "prompt_tokens_details": {"cached_tokens": 0}}


def test_sixteen_tokens_are_the_default() -> None:
    body = complete("x" * 40)
    assert body["choices"][0]["text"] == "x" * 16
    assert body["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize(
    ("prompt", "texts"),
    [
        ("ab", ["ab"]),
        ([66, 67], ["ab"]),
        (["ab", "cd"], ["ab", "cd"]),
        ([[66, 67], [68]], ["ab", "c"]),
    ],
)
def test_the_four_kinds_of_prompts(prompt: Any, texts: list[str]) -> None:
    assert [choice["text"] for choice in complete(prompt)["choices"]] == texts


def test_choices_are_numbered_by_prompt_and_output() -> None:
    choices = complete(["abc", "de"], n=2)["choices"]
    assert [(choice["index"], choice["text"]) for choice in choices] == [(0, "abc"), (1, "bca"), (2, "de"), (3, "ed")]


def test_many_prompts_wait_for_each_other_instead_of_filling_the_queue() -> None:
    prompts = [f"number {number}" for number in range(20)]

    async def scene(here: Site) -> Any:
        return (await here.post(PATH, {"prompt": prompts})).json()

    body = visit(scene, engine={"max_num_seqs": 2, "max_queue": 1})
    assert [choice["text"] for choice in body["choices"]] == prompts


def test_sampling_parameters_reach_the_engine() -> None:
    asked = {
        "temperature": 0.5,
        "top_p": 0.9,
        "seed": 7,
        "presence_penalty": 1,
        "frequency_penalty": -1,
        "logit_bias": {"70": -100},
        "stop": ["x", "y"],
        "max_tokens": 3,
        "top_k": 5,
        "min_p": 0.1,
        "repetition_penalty": 1.1,
        "min_tokens": 2,
        "stop_token_ids": [99],
        "ignore_eos": True,
    }

    async def scene(here: Site) -> Any:
        await here.post(PATH, {"prompt": "abc", **asked})
        return here.client.jobs[0].sampling

    sampling = visit(scene)
    for name, value in {**asked, "logit_bias": {70: -100}, "stop": ("x", "y"), "stop_token_ids": (99,)}.items():
        assert getattr(sampling, name) == value


def test_temperature_is_one_unless_it_is_said() -> None:
    async def scene(here: Site) -> Any:
        await here.post(PATH, {"prompt": "abc"})
        await here.post(PATH, {"prompt": "abc", "temperature": None, "stop": None, "n": None})
        await here.post(PATH, {"prompt": "abc", "temperature": 0})
        return [job.sampling.temperature for job in here.client.jobs]

    assert visit(scene) == [1.0, 1.0, 0.0]


def test_log_probabilities_of_an_output() -> None:
    told = complete("ab", logprobs=2)["choices"][0]["logprobs"]
    assert told["tokens"] == ["a", "b", "<|im_end|>"]
    assert told["token_logprobs"] == [-0.5] * 3
    assert told["top_logprobs"][0] == {"a": -0.5, "<|im_start|>": -1.0}
    assert told["text_offset"] == [0, 1, 2]


def test_offsets_count_characters_that_are_split_over_tokens() -> None:
    text = "é𓀀b ü!"
    told = complete(text, echo=True, logprobs=0, max_tokens=0)["choices"][0]["logprobs"]
    assert len(told["tokens"]) == len(text.encode())
    where = [at for at, letter in enumerate(text) for _ in letter.encode()]
    assert told["text_offset"] == where
    assert all(text[at] == token for at, token in zip(where, told["tokens"], strict=True) if token in "b !")


def test_an_echo_with_log_probabilities_scores_the_prompt() -> None:
    """What lm-eval asks for a loglikelihood: in one request nothing, in another one token is generated."""
    for max_tokens in (0, 1):
        body = complete("abcd", echo=True, logprobs=1, max_tokens=max_tokens)
        choice = body["choices"][0]
        assert choice["text"] == "abcd" + "a" * max_tokens
        assert choice["logprobs"]["tokens"] == list("abcd" + "a" * max_tokens)
        assert choice["logprobs"]["token_logprobs"] == [None, *[-0.5] * (3 + max_tokens)]
        assert choice["logprobs"]["top_logprobs"][:2] == [None, {"b": -0.5}]
        assert choice["logprobs"]["text_offset"] == list(range(4 + max_tokens))
        assert body["usage"]["completion_tokens"] == max_tokens


def test_an_echo_of_token_ids_is_their_text() -> None:
    assert complete([66, 1, 67], echo=True, max_tokens=1)["choices"][0]["text"] == "a<|im_end|>ba"


def test_every_output_of_a_prompt_repeats_its_echo() -> None:
    choices = complete("ab", echo=True, logprobs=0, n=2, max_tokens=1)["choices"]
    assert [choice["text"] for choice in choices] == ["aba", "abb"]
    assert [choice["logprobs"]["tokens"] for choice in choices] == [["a", "b", "a"], ["a", "b", "b"]]


def test_a_stream_says_the_same_as_a_plain_answer() -> None:
    asked: dict[str, Any] = {"prompt": ["abc", "dé"], "n": 2, "logprobs": 1, "echo": True, "exit": "lossless"}
    plain = ask(PATH, asked).json()
    chunks = events(ask(PATH, {**asked, "stream": True}))
    assert chunks.pop() == "[DONE]"
    for choice in plain["choices"]:
        parts = [c for chunk in chunks for c in chunk["choices"] if c["index"] == choice["index"]]
        assert "".join(part["text"] for part in parts) == choice["text"]
        tokens = [token for part in parts if part["logprobs"] for token in part["logprobs"]["tokens"]]
        assert tokens == choice["logprobs"]["tokens"]
        assert [part["finish_reason"] for part in parts if part["finish_reason"]] == [choice["finish_reason"]]
    assert [chunk["exit"] for chunk in chunks if "exit" in chunk] == [plain["exit"]]
    assert "exit" in chunks[-1]


def test_a_token_of_half_a_character_is_written_as_bytes() -> None:
    told = complete("é", logprobs=0)["choices"][0]
    assert told["text"] == "é"
    assert told["logprobs"]["tokens"][:2] == ["bytes:\\xc3", "bytes:\\xa9"]


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 0, "echo": True, "n": 2}, "n"),
        ({"best_of": 3}, "best_of"),
        ({"suffix": "end"}, "suffix"),
        ({"prompt": []}, "prompt"),
        ({"prompt": ["a", 1]}, "prompt"),
        ({"prompt": [[]]}, "prompt[0]"),
        ({"prompt": [-1]}, "prompt[0]"),
        ({"prompt": ""}, "prompt"),
        ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"logit_bias": {"5": 101}}, "logit_bias.5"),
        ({"stop": [""]}, "stop[0]"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"stop": "x" * 257}, "stop"),
        ({"n": 129}, "n"),
        ({"n": True}, "n"),
        ({"seed": -1}, "seed"),
        ({"min_tokens": 17}, "min_tokens"),
    ],
)
def test_what_cannot_be_is_refused_by_name(wrong: dict[str, Any], param: str) -> None:
    error = error_of(ask(PATH, {"prompt": "abc", **wrong}), 400)
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param


def test_the_context_must_hold_prompt_and_output() -> None:
    for body in ({"prompt": "x" * 70}, {"prompt": "x" * 40, "max_tokens": 30}):
        error = error_of(ask(PATH, body, engine={"max_model_len": 64}), 400)
        assert error["code"] == "context_length_exceeded"
        assert "70 " in error["message"] and "64" in error["message"]


def with_encoder(**body: Any) -> Any:
    return ask(PATH, {"prompt": "abc", **body}, engine={"max_model_len": 16, "max_source_len": 64})


def test_beside_an_encoder_the_prompt_is_a_source_of_its_own_length() -> None:
    answer = with_encoder(prompt="x" * 50, max_tokens=15).json()
    assert answer["usage"]["prompt_tokens"] == 50
    for body, says in (
        ({"prompt": "x" * 65}, "has 65 tokens, the encoder reads 64"),
        ({"max_tokens": 16}, "at most 15"),
    ):
        error = error_of(with_encoder(**body), 400)
        assert error["code"] == "context_length_exceeded" and says in error["message"]


def test_beside_an_encoder_nothing_is_echoed() -> None:
    for body in ({"echo": True}, {"echo": True, "max_tokens": 0, "logprobs": 1}):
        error = error_of(with_encoder(**body), 400)
        assert error["param"] == "echo"
        assert error["message"].startswith("the model has an encoder")
