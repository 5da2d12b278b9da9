"""offramp as a model of the LM Evaluation Harness (`pip install 'offramp[eval]'`), at any setting of the dial:

    import lm_eval
    from offramp import LLM
    from offramp.evaluate.lm_eval import OfframpLM

    lm_eval.simple_evaluate(OfframpLM(LLM(exits="my-pack"), exit="0.02"), tasks=["gsm8k"])

Generation leaves early as the dial says. Likelihoods are those of full depth whatever the dial: an exit chooses a
token, and there is nothing to choose where the tokens are given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from offramp.errors import MissingDependency, Unsupported, did_you_mean
from offramp.evaluate.likelihood import likelihoods
from offramp.llm.dial import Dial
from offramp.llm.forced import Forced
from offramp.llm.llm import LLM
from offramp.types.sampling import SamplingParams

try:
    from lm_eval.api.model import LM
except ImportError as error:
    raise MissingDependency("the package lm_eval is not installed", hint="pip install 'offramp[eval]'") from error

LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
"""What tasks call the most tokens to generate, the first that is given counts."""

SAMPLING = ("temperature", "top_p", "top_k", "min_p")


class OfframpLM(LM):
    """An `LLM` behind the harness's interface; `exit` is its dial for whatever is generated.

    Raises:
        Unsupported: the model has an encoder.
    """

    def __init__(self, llm: LLM, exit: Dial = "off") -> None:
        super().__init__()
        if llm.has_encoder:
            raise Unsupported(
                "lm_eval asks how texts go on, and a model with an encoder makes texts from others",
                hint="`offramp eval` measures it on prompts of yours",
            )
        self._llm, self._exit = llm, exit
        self._context = llm.engine.executor.shape.max_model_len

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """For each (context, continuation): the log-probability of the continuation, and whether greedy gives it."""
        pairs = [self._pair(*request.args) for request in requests]
        return [(sum(t.log_prob for t in seen), greedy) for seen, greedy in self._score(pairs)]

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """For each (text,): its log-probability, every token with as much context as there is room for."""
        windows = [self._windows(self._llm.tokenizer.encode(request.args[0], False)) for request in requests]
        scored = iter(self._score([window for some in windows for window in some]))
        return [sum(token.log_prob for _ in some for token in next(scored)[0]) for some in windows]

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """For each (context, settings): what comes next, up to any of the texts in `until`.

        Raises:
            Unsupported: a setting that offramp does not have.
        """
        samplings = [_sampling(settings) for _, settings in (request.args for request in requests)]
        prompts = [
            self._encode(request.args[0])[-max(1, self._context - (sampling.max_tokens or 0)) :]
            for request, sampling in zip(requests, samplings, strict=True)
        ]
        return [output.text for output in self._llm.generate(prompts, samplings, self._exit)]

    def apply_chat_template(self, chat_history: Sequence[Mapping[str, str]], add_generation_prompt: bool = True) -> str:
        """A conversation as text."""
        return self._llm.tokenizer.apply_chat_template(chat_history, add_generation_prompt)

    @property
    def tokenizer_name(self) -> str:
        """What tells the harness's caches apart."""
        return self._llm.calibration_key.model

    def _score(self, texts: list[Forced]) -> list[tuple[list[Any], bool]]:
        found = likelihoods(self._llm.engine, texts)
        return [
            (seen, all(t.choice == token for t, token in zip(seen, text.tokens[text.start :], strict=True)))
            for text, seen in zip(texts, found, strict=True)
        ]

    def _pair(self, context: str, continuation: str) -> Forced:
        """Both as tokens of one text, so that they meet as they would have been written; the oldest context goes."""
        spaces = len(context) - len(context.rstrip())
        if spaces and spaces < len(context):
            context, continuation = context[:-spaces], context[-spaces:] + continuation
        if not context:
            tokens, start = [self._first_token(), *self._llm.tokenizer.encode(continuation, False)], 1
        else:
            tokens, start = self._encode(context + continuation), len(self._encode(context))
        cut = max(0, len(tokens) - self._context)
        return Forced(tokens[cut:], max(1, start - cut))

    def _windows(self, tokens: list[int]) -> list[Forced]:
        """The whole text, in pieces that fit the context, each token asked about once."""
        room = self._context - 1
        windows = [Forced([self._first_token(), *tokens[:room]], 1)] if tokens else []
        for start in range(room, len(tokens), room):
            stop = min(start + room, len(tokens))
            begin = stop - self._context
            windows.append(Forced(tokens[begin:stop], start - begin))
        return windows

    def _encode(self, text: str) -> list[int]:
        """A text that a chat template has begun has its first token already."""
        bos = self._llm.tokenizer.bos_token
        return self._llm.tokenizer.encode(text, not (bos and text.startswith(bos)))

    def _first_token(self) -> int:
        tokenizer = self._llm.tokenizer
        ids = (tokenizer.bos_token_id, tokenizer.eos_token_id, *self._llm.engine.executor.shape.eos_token_ids)
        return next((token for token in ids if token is not None), 0)


def _sampling(settings: Mapping[str, Any]) -> SamplingParams:
    """The harness's generation settings as ours: greedy unless `do_sample` or a temperature asks otherwise."""
    known = ("until", "do_sample", *LENGTHS, *SAMPLING)
    for name in settings:
        if name not in known:
            raise Unsupported(f"the task asks for `{name}` in generation", hint=did_you_mean(name, known))
    until = settings.get("until") or []
    length = next((settings[name] for name in LENGTHS if settings.get(name) is not None), 256)
    given = {name: settings[name] for name in SAMPLING if settings.get(name) is not None}
    if settings.get("do_sample") is False:
        given["temperature"] = 0.0
    stop = tuple(text for text in ([until] if isinstance(until, str) else until) if text)
    return SamplingParams(stop=stop, max_tokens=int(length), seed=0, **given)
