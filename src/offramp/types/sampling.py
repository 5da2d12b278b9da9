"""How the next token is drawn from a distribution."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from offramp.errors import InvalidParameter
from offramp.types.checks import check_integer, check_number, known_fields
from offramp.types.schema import check_schema

MAX_SEED = 2**63 - 1
MAX_LOGPROBS = 100


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """Sampling parameters of one request, validated on construction.

    Order of application (the same at exits and at the top): `logit_bias`, bans from `min_tokens` and the mask of
    `json_schema`, repetition, frequency and presence penalties, then temperature, `top_k`, `top_p`, `min_p`. Every
    draw is Gumbel-max with noise keyed by (seed, position, token id); temperature 0 takes the largest logit (lowest id
    on ties).

    Args:
        temperature: 0 is greedy. Default 0.
        top_p: keep the smallest set of tokens whose probability reaches this, in (0, 1].
        top_k: keep this many tokens; 0 keeps all.
        min_p: drop tokens below this share of the largest probability, in [0, 1].
        repetition_penalty: from 0.01 to 100; 1 is off. Over prompt and output (Keskar et al. 2019).
        presence_penalty, frequency_penalty: in [-2, 2]; 0 is off. Over output (OpenAI).
        logit_bias: token id -> added to the logit, in [-100, 100].
        seed: reproducible whatever else is in the batch; None draws one.
        n: outputs per prompt; output i uses seed + i.
        max_tokens: most tokens to generate; None fills the context, or the KV cache where that is smaller.
        min_tokens: end-of-sequence and stop ids are banned before this many tokens.
        stop: strings that end the output; they are not part of it.
        stop_token_ids: ids that end the output; they are not part of its text.
        ignore_eos: go on after the end-of-sequence token.
        logprobs: None for none; k gives the chosen token's and the k most likely tokens' log-probabilities
            under the distribution that chose the token, after penalties, bias and masks, at temperature 1.
        json_schema: JSON Schema that the text of every output satisfies, if the output ends by itself; {} is any JSON
            object. What stops it earlier (`max_tokens`, `stop`, `stop_token_ids`) leaves the beginning of such a text.

    Raises:
        InvalidParameter: a value outside what is listed above, or `json_schema` together with `ignore_eos` or
            `min_tokens`, which forbid its end.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int | None = None
    n: int = 1
    max_tokens: int | None = 256
    min_tokens: int = 0
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    logprobs: int | None = None
    json_schema: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        check_number("temperature", self.temperature, 0, math.inf)
        check_number("top_p", self.top_p, 0, 1, low_open=True)
        check_integer("top_k", self.top_k, 0)
        check_number("min_p", self.min_p, 0, 1)
        check_number("repetition_penalty", self.repetition_penalty, 0.01, 100)
        check_number("presence_penalty", self.presence_penalty, -2, 2)
        check_number("frequency_penalty", self.frequency_penalty, -2, 2)
        if self.seed is not None:
            check_integer("seed", self.seed, 0, MAX_SEED)
        check_integer("n", self.n, 1, 128)
        if self.max_tokens is not None:
            check_integer("max_tokens", self.max_tokens, 1)
        check_integer("min_tokens", self.min_tokens, 0)
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise InvalidParameter(
                f"`min_tokens` is {self.min_tokens}, more than `max_tokens` {self.max_tokens}",
                param="min_tokens",
            )
        if self.logprobs is not None:
            check_integer("logprobs", self.logprobs, 0, MAX_LOGPROBS)
        if not isinstance(self.ignore_eos, bool):
            raise InvalidParameter("`ignore_eos` must be true or false", param="ignore_eos")
        stop = (self.stop,) if isinstance(self.stop, str) else self.stop
        if not isinstance(stop, list | tuple) or not all(isinstance(s, str) and s for s in stop):
            raise InvalidParameter("`stop` must be non-empty strings", param="stop")
        object.__setattr__(self, "stop", tuple(stop))
        if not isinstance(self.stop_token_ids, list | tuple):
            raise InvalidParameter("`stop_token_ids` must be a list of token ids", param="stop_token_ids")
        ids = tuple(self.stop_token_ids)
        for i in ids:
            check_integer("stop_token_ids", i, 0)
        object.__setattr__(self, "stop_token_ids", ids)
        if not isinstance(self.logit_bias, Mapping):
            raise InvalidParameter("`logit_bias` must map token ids to numbers", param="logit_bias")
        for token, bias in self.logit_bias.items():
            check_integer("logit_bias", token, 0)
            check_number("logit_bias", bias, -100, 100)
        object.__setattr__(self, "logit_bias", dict(self.logit_bias))
        if self.json_schema is not None:
            self._check_schema(self.json_schema)

    def _check_schema(self, schema: object) -> None:
        object.__setattr__(self, "json_schema", check_schema(schema))
        for name, given in (("ignore_eos", self.ignore_eos), ("min_tokens", self.min_tokens)):
            if given:
                raise InvalidParameter(
                    f"`json_schema` cannot be given with `{name}`: only the end may follow what satisfies it",
                    param=name,
                    hint=f"leave out `{name}`",
                )

    @property
    def greedy(self) -> bool:
        """Whether the largest logit is always taken."""
        return self.temperature == 0

    @property
    def reads_history(self) -> bool:
        """Whether a choice depends on which tokens came before."""
        return bool(self.repetition_penalty != 1 or self.presence_penalty or self.frequency_penalty)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SamplingParams:
        """Build from a mapping; unknown names are refused with the nearest match."""
        return cls(**known_fields(cls, values, "sampling parameter"))
