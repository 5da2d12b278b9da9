"""Whether an answer is right: of OpenAI's form, whole, what was asked for, and the same as the last time."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from scripts.soak.traffic import KEY, Case
from scripts.soak.wire import Answer

BUSY = "429 queue_full"
DOWN = "503 engine_down"
STATUS = {
    "invalid_request_error": 400,
    "rate_limit_error": 429,
    "server_error": 500,
    "service_unavailable_error": 503,
}
"""What an error would have had as its status, had the stream not begun."""

ENDS = ("stop", "length", "tool_calls")


class Wrong(Exception):
    """What is wrong with an answer."""


@dataclass
class Judge:
    """Looks into answers as they come; `outages` are the times, from and until, at which the engine was gone."""

    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    compared: int = 0
    said: dict[str, Any] = field(default_factory=dict)

    def judge(self, case: Case, answer: Answer, out: bool) -> str:
        """What a request came to; `out`: the engine was gone for some of its time."""
        try:
            outcome = self._outcome(case, answer, out)
        except Wrong as wrong:
            outcome = "WRONG"
            told = f"sent {case.sent[-300:]!r}, got {answer.status} {answer.body[:600]!r}"
            self.violations.append(f"{case.kind}: {wrong}; {told}")
        self.outcomes[case.kind, outcome] += 1
        return outcome

    def _outcome(self, case: Case, answer: Answer, out: bool) -> str:
        if KEY.encode() in answer.body or any(KEY in value for value in answer.headers.values()):
            raise Wrong("the key is in the answer")
        if case.manner in ("leave", "half") and not answer.whole:
            return "left"
        if not answer.whole:
            raise Wrong(answer.trouble or "the answer broke off")
        failed = _error(answer)
        outcome = "200" if failed is None else f"{failed[0]} {failed[1]}".removesuffix(" None")
        if outcome == BUSY and "retry-after" not in answer.headers and answer.status == 429:
            raise Wrong("429 without Retry-After")
        allowed = (*case.allowed, BUSY, *([DOWN] if out else []))
        if outcome not in allowed and outcome.partition(" ")[0] not in allowed:
            raise Wrong(f"{outcome} is not among {', '.join(allowed)}")
        if outcome == "200" and case.body is not None:
            self._look(case, answer)
        return outcome

    def _look(self, case: Case, answer: Answer) -> None:
        """Look into the answer to a good request."""
        assert case.body is not None
        body, choices, last = case.body, *_read(case.path, case.body, answer)
        prompt = body.get("prompt")
        prompts = len(prompt) if isinstance(prompt, list) and isinstance(prompt[0], str) else 1
        if sorted(choices) != list(range(prompts * body.get("n", 1))):
            raise Wrong(f"{sorted(choices)} are the choices")
        schema = "response_format" in body or "json_schema" in body
        for text, reason in choices.values():
            if reason not in ENDS:
                raise Wrong(f"an output ended by {reason!r}")
            if schema and reason == "stop":
                _check_schema(text)
            stops = body.get("stop", [])
            if not body.get("echo") and any(stop in text for stop in ([stops] if isinstance(stops, str) else stops)):
                raise Wrong(f"a stop text is in {text!r}")
        _check_exit(body, last)
        if case.same is not None:
            self.compared += 1
            if self.said.setdefault(case.same, choices) != choices:
                raise Wrong(f"{choices} now, {self.said[case.same]} before")


def _error(answer: Answer) -> tuple[int, str] | None:
    """The status and code of an error, which may be the last event of a stream; None of a success.

    Raises:
        Wrong: it has another form than OpenAI's.
    """
    stream = answer.headers.get("content-type", "").startswith("text/event-stream")
    if stream and answer.status == 200:
        value: Any = _events(answer)[-1]
        if value == "[DONE]" or "error" not in value:
            return None
        status = STATUS.get(value["error"]["type"], 0)
    elif answer.status < 400:
        return None
    else:
        value, status = _json(answer.body), answer.status
    if not {"error"} <= set(value) <= {"error", "status"} or set(value["error"]) != {
        "message",
        "type",
        "param",
        "code",
    }:
        raise Wrong("an error of another form")
    if not value["error"]["message"] or "Traceback" in str(value):
        raise Wrong("an error without a clear sentence")
    return status, str(value["error"]["code"])


def _json(text: bytes | str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise Wrong(f"no JSON: {text[-200:]!r}") from None


def _events(answer: Answer) -> list[Any]:
    data = [line[6:] for line in answer.body.decode().splitlines() if line.startswith("data: ")]
    if not data:
        raise Wrong("an empty stream")
    return ["[DONE]" if one == "[DONE]" else _json(one) for one in data]


def _read(path: str, body: Any, answer: Answer) -> tuple[dict[int, tuple[str, str | None]], dict[str, Any]]:
    """(text, finish reason) by output, and the part of the answer that has `exit`, from any form of an answer.

    Raises:
        Wrong: a stream that does not end as it should.
    """
    *parts, end = _events(answer) if body.get("stream") else [_json(answer.body), "[DONE]"]
    if end != "[DONE]":
        raise Wrong("a stream without its end")
    texts: dict[int, tuple[str, str | None]] = {}
    for choice in _choices(parts):
        said = choice.get("delta") or choice.get("message") or choice
        text, reason = texts.get(choice["index"], ("", None))
        texts[choice["index"]] = (
            text + (said.get("content") or said.get("text") or ""),
            choice["finish_reason"] or reason,
        )
    with_exit = [part for part in parts if "exit" in part]
    if len(with_exit) != 1:
        raise Wrong(f"`exit` comes {len(with_exit)} times")
    return texts, with_exit[0]


def _choices(parts: Sequence[Any]) -> Iterator[Any]:
    for part in parts:
        yield from part.get("choices", part.get("outputs", ()))


def _check_schema(text: str) -> None:
    value = _json(text)
    if not isinstance(value, dict) or set(value) != {"name", "age"}:
        raise Wrong(f"{text!r} does not satisfy the schema")
    if not (isinstance(value["name"], str) and len(value["name"]) <= 8 and value["age"] in range(100)):
        raise Wrong(f"{text!r} does not satisfy the schema")


def _check_exit(body: Any, last: dict[str, Any]) -> None:
    """The dial is what was asked for, and every token's layers are accounted for."""
    told = last["exit"]
    if told["asked"] != body["exit"]:
        raise Wrong(f"`exit.asked` is {told['asked']}")
    tokens = sum(told["histogram"].values())
    if sum(told[f"layers_{what}"] for what in ("run", "filled", "skipped")) != told["num_layers"] * tokens:
        raise Wrong(f"layers do not add up: {told}")
    if "usage" in last and last["usage"] is not None and last["usage"]["completion_tokens"] != tokens:
        raise Wrong(f"{tokens} tokens in `exit`, {last['usage']} in `usage`")
