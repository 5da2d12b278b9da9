"""What `FakeClient` says, and a tokenizer for it that needs no file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import count, islice
from typing import Any

from offramp.serve.positions import promised
from offramp.serve.protocol import EngineInfo, Job, LogProbs, Outcome, Piece, Rescored
from offramp.tokenizer import Detokenizer, StopStrings, Tokenizer
from offramp.tokenizer.pieces import byte_alphabet
from offramp.types.exits import ExitParams
from offramp.types.output import ExitReport, FinishReason

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def byte_tokenizer(chat_template: str | None = CHATML) -> Tokenizer:
    """One token for every byte, and the two of ChatML."""
    from tokenizers import AddedToken, decoders, models, pre_tokenizers
    from tokenizers import Tokenizer as Backend

    special = ["<|im_start|>", "<|im_end|>"]
    backend = Backend(models.BPE(vocab={piece: i for i, piece in enumerate([*special, *byte_alphabet()])}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    return Tokenizer(backend, bos=special[0], eos=special[1], chat_template=chat_template)


class FakeOutput:
    """One output of a job, a token at a time."""

    def __init__(self, index: int, job: Job, exit: ExitParams | None, tokenizer: Tokenizer, info: EngineInfo) -> None:
        self._index, self._sampling, self._exit, self._info = index, job.sampling, exit, info
        self._words = _words(index, job, tokenizer)
        self._eos = None if job.sampling.ignore_eos else tokenizer.eos_token_id
        room = info.max_model_len - begun(job, info)
        self._most = min(room, job.sampling.max_tokens or room)
        self._detokenizer, self._stop = Detokenizer(tokenizer), StopStrings(job.sampling.stop)
        self._layers: list[int] = []

    def step(self) -> Piece:
        """The next token."""
        number, words = len(self._layers), self._words
        ends = self._eos is not None and number >= len(words)
        token = self._eos if ends and self._eos is not None else words[number % len(words)]
        layer = self._leave(token)
        self._layers.append(layer)
        finish: FinishReason | None = None
        stopped = None
        text = ""
        if ends or token in self._sampling.stop_token_ids:
            finish = "stop"
        else:
            text, stopped = self._stop.push(self._detokenizer.push(token))
        if stopped is not None:
            finish = "stop"
        elif finish is None and len(self._layers) >= self._most:
            finish = "length"
        if finish is not None:
            text += self._stop.push(self._detokenizer.finish())[0] + self._stop.flush()
        top, likely = layer == self._info.num_layers, self._sampling.logprobs
        return Piece(
            index=self._index,
            text=text,
            token_ids=(token,),
            exit_layers=(layer,),
            confidences=(None if top else 0.9 + token % 10 / 100,),
            logprobs=None if likely is None else (log_probs(token, likely, self._info.vocab_size),),
            finish_reason=finish,
            report=None if finish is None else self._report(),
        )

    def rescored(self, position: str, outcome: Outcome) -> Rescored:
        """What rescoring finds: that every fifth token that left early, unverified, differs."""
        early = self._exit is not None and self._exit.kv != "verify"
        differ = sum(layer < self._info.num_layers for layer in self._layers) // 5 if early else 0
        greedy = self._sampling.greedy
        promise = promised(position, greedy=greedy, repeatable=True)
        return Rescored(position, outcome, greedy, promise, len(self._layers), differ)

    def _leave(self, token: int) -> int:
        """Where a token leaves: the same token always at the same layer."""
        top = self._info.num_layers
        if self._exit is None:
            return top
        layers = [layer for layer in self._info.exit_layers if layer >= self._exit.min_layer]
        return [*layers, top][token % (len(layers) + 1)]

    def _report(self) -> ExitReport:
        depth, kv = self._info.num_layers, None if self._exit is None else self._exit.kv
        run = tuple(layer if kv == "fill" else depth for layer in self._layers)
        drafts = sum(layer < depth for layer in self._layers) if kv == "verify" else 0
        return ExitReport(
            depth=depth,
            layers_run=run,
            layers_filled=tuple(depth - layers for layers in run),
            layers_skipped=tuple(0 for _ in run),
            exit_histogram={layer: self._layers.count(layer) for layer in sorted(set(self._layers))},
            mean_exit_layer=sum(self._layers) / len(self._layers),
            drafts_proposed=drafts + drafts // 3,
            drafts_accepted=drafts,
            top_passes=0,
            replayed_tokens=0,
            cached_prompt_tokens=0,
            exits=None if self._exit is None else {"criterion": self._exit.criterion, "kv": kv},
            switched_off=False,
        )


def begun(job: Job, info: EngineInfo) -> int:
    """How many tokens of the context a job takes before it generates any."""
    return 1 if info.max_source_len else len(job.prompt)


def log_probs(token: int, likely: int, vocab_size: int) -> LogProbs:
    """The token's own log-probability, then those of so many tokens, of which it is the likeliest."""
    others = islice((other for other in count() if other != token), vocab_size - 1)
    ranked = [token, *others][:likely]
    return ((token, -0.5), *((other, -0.5 * (rank + 1)) for rank, other in enumerate(ranked)))


def _words(index: int, job: Job, tokenizer: Tokenizer) -> list[int]:
    schema = job.sampling.json_schema
    if schema is not None:
        text = json.dumps(plainest(schema, schema))
        return tokenizer.encode(text, add_special_tokens=False)
    words = [token for token in job.prompt if token not in tokenizer.special_token_ids] or list(job.prompt)
    shift = index % len(words)
    return words[shift:] + words[:shift]


def plainest(schema: Any, root: Mapping[str, Any]) -> Any:
    """The plainest value that satisfies a JSON schema of the usual kind."""
    if not isinstance(schema, Mapping):
        return {}
    if "$ref" in schema:
        target: Any = root
        for key in str(schema["$ref"]).removeprefix("#/").split("/") if schema["$ref"] != "#" else ():
            target = target[int(key)] if isinstance(target, list) else target[key]
        return plainest(target, root)
    for key in ("const", "default"):
        if key in schema:
            return schema[key]
    for key in ("enum", "anyOf", "oneOf"):
        if schema.get(key):
            first = schema[key][0]
            return first if key == "enum" else plainest(first, root)
    kind = schema.get("type", "object")
    if kind == "object":
        wanted = schema.get("required", schema.get("properties", {}))
        return {name: plainest(schema.get("properties", {}).get(name, {}), root) for name in wanted}
    if kind == "array":
        return [plainest(schema.get("items", {}), root)] * schema.get("minItems", 0)
    return {"string": "text", "integer": schema.get("minimum", 1), "number": 1.5, "boolean": True}.get(str(kind))
