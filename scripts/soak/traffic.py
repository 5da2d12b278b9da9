"""Good requests: of every kind that the server knows, drawn from a pool so that the same one comes again and again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

from scripts.soak.wire import Manner, request

KEY = "soak-key-of-the-server"
"""What requests must show. It may turn up in no answer and no line of the log."""

AUTHORIZED = {"Authorization": f"Bearer {KEY}"}

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 8}, "age": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["name", "age"],
    "additionalProperties": False,
}

WORDS = (
    "river",
    "stone",
    "light",
    "winter",
    "engine",
    "garden",
    "paper",
    "silver",
    "window",
    "music",
    "letter",
    "forest",
)
STOPS = [["."], [" the", "\n"], ["\n\n"], "a"]


@dataclass(frozen=True)
class Case:
    """A request, and what its answer is measured by.

    Args:
        kind: what it is called in the report.
        allowed: the answers that are right: a status, or a status and a code.
        body: what was asked for, where the answer is to be looked into.
        same: answers to requests that have this in common must say the same; None for any.
    """

    kind: str
    sent: bytes
    allowed: tuple[str, ...] = ("200",)
    path: str = ""
    body: Mapping[str, Any] | None = None
    same: str | None = None
    manner: Manner = "plain"
    patience: float = 0.0


@dataclass
class Pool:
    """Requests to draw from.

    Args:
        dials: positions of the dial whose outputs are those of full depth, and others.
        words: of the longest prompt.
    """

    seed: int
    exact: list[Any]
    others: list[Any]
    words: int
    size: int = 250
    bases: list[tuple[str, dict[str, Any]]] = field(init=False)

    def __post_init__(self) -> None:
        rng = Random(self.seed)
        self.bases = [_base(rng, self.words) for _ in range(self.size)]

    def draw(self, rng: Random) -> Case:
        """A request that has an answer."""
        path, base = rng.choice(self.bases)
        exact = rng.random() < 0.75
        body = {**base, "exit": rng.choice(self.exact if exact else self.others)}
        if rng.random() < 0.5:
            body["stream"] = True
            if path != "/generate" and rng.random() < 0.5:
                body["stream_options"] = {"include_usage": True}
        same = f"{path} {json.dumps(base, sort_keys=True)}" if exact else None
        return _mannered(rng, _case(_kind(path, body), path, body, same))


def _case(kind: str, path: str, body: Mapping[str, Any], same: str | None) -> Case:
    sent = request("POST", path, json.dumps(body).encode(), AUTHORIZED)
    return Case(kind, sent, path=path, body=body, same=same)


def _kind(path: str, body: Mapping[str, Any]) -> str:
    what = {"/v1/completions": "completion", "/v1/chat/completions": "chat", "/generate": "generate"}[path]
    return f"{what}, stream" if body.get("stream") else what


def _mannered(rng: Random, case: Case) -> Case:
    """Most clients behave; some leave, and some read slowly."""
    manner: Manner = rng.choices(("plain", "leave", "half", "slow"), (84, 10, 1, 5))[0]
    patience = {"plain": 0.0, "leave": rng.expovariate(2.0), "half": 0.3, "slow": 0.05}[manner]
    values = {**case.__dict__, "manner": manner, "patience": patience}
    if manner in ("leave", "half"):
        values["kind"] = f"{case.kind.partition(',')[0]}, client leaves"
    return Case(**values)


def _base(rng: Random, words: int) -> tuple[str, dict[str, Any]]:
    """A path, and a body without a dial and a form of the answer. Its outputs follow from it alone."""
    text = " ".join(rng.choices(WORDS, k=rng.choice((2, 5, 9, 20, words))))
    path = rng.choices(("/v1/completions", "/v1/chat/completions", "/generate"), (45, 40, 15))[0]
    body: dict[str, Any] = {"max_tokens": rng.choice((1, 2, 4, 8, 16))}
    body |= rng.choice(({"temperature": 0}, {"temperature": 0.9, "seed": rng.randrange(99)}, {"temperature": 0}))
    some = {
        "n": lambda: rng.choice((2, 3)),
        "stop": lambda: rng.choice(STOPS),
        "logit_bias": lambda: {str(rng.randrange(40, 200)): rng.choice((-100, -3.5, 5)) for _ in range(3)},
        "frequency_penalty": lambda: 0.7,
        "repetition_penalty": lambda: 1.2,
        "top_p": lambda: 0.9,
        "top_k": lambda: 20,
        "ignore_eos": lambda: True,
    }
    body |= {name: value() for name, value in some.items() if rng.random() < 0.12}
    if path == "/v1/chat/completions":
        body["messages"] = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": text}]
        if rng.random() < 0.15:
            body |= {"response_format": {"type": "json_schema", "json_schema": {"name": "who", "schema": SCHEMA}}}
            _bind(body)
        elif rng.random() < 0.15:
            body |= {"logprobs": True, "top_logprobs": 3}
    elif path == "/generate":
        body |= rng.choice(({"prompt": text}, {"prompt_token_ids": [rng.randrange(40, 200) for _ in range(9)]}))
        if rng.random() < 0.2:
            body["json_schema"] = SCHEMA
            _bind(body)
    else:
        body["prompt"] = rng.choice((text, text, [text, "Once"], [rng.randrange(40, 200) for _ in range(9)]))
        if rng.random() < 0.15:
            body |= {"echo": True, "logprobs": 2}
    return path, body


def _bind(body: dict[str, Any]) -> None:
    """Leave room for what a schema asks for, and nothing that could cut it short or go on after it."""
    body["max_tokens"] = 32
    for name in ("stop", "ignore_eos"):
        body.pop(name, None)
