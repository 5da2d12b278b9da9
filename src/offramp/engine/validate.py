"""Requests that can never be served are refused before they are queued, each with its reason."""

from __future__ import annotations

from offramp.config import EngineConfig
from offramp.engine.request import Request
from offramp.engine.validate_source import check_ids, check_source
from offramp.errors import CacheTooSmall, InvalidParameter, Unsupported
from offramp.exits.criteria import make_criterion
from offramp.types.checks import check_integer
from offramp.types.executor import Executor, Feature, ModelShape
from offramp.types.exits import ExitParams
from offramp.types.sampling import MAX_LOGPROBS, SamplingParams


def check_request(request: Request, executor: Executor, config: EngineConfig) -> None:
    """Check a request against the model and the engine.

    Raises:
        InvalidParameter, Unsupported, CacheTooSmall: with a message that says what is allowed.
    """
    shape = executor.shape
    check_source(request, shape)
    _check_prompt(request, shape)
    most = None if config.max_queue is None else config.max_num_seqs + config.max_queue
    if most is not None and request.sampling.n > most:
        raise InvalidParameter(
            f"`n` is {request.sampling.n}, {config.max_num_seqs} outputs run at once and {config.max_queue} may wait",
            param="n",
            hint=f"ask for at most {most}, or raise `max_queue`",
        )
    if request.prompt_logprobs is not None:
        check_integer("prompt_logprobs", request.prompt_logprobs, 0, MAX_LOGPROBS)
    _check_sampling(request.sampling, shape)
    if request.sampling.json_schema is not None and not request.constraints:
        raise Unsupported(
            "the request has a JSON schema and no constraints that hold it",
            hint="generate with `LLM`, which makes them",
        )
    if request.exit is not None:
        check_exit(request.exit, executor, config)


def _check_prompt(request: Request, shape: ModelShape) -> None:
    length = len(request.prompt)
    if not length:
        raise InvalidParameter("the prompt is empty", param="prompt", hint="give at least one token")
    more = 0 if request.echo_only else 1
    if length + more > shape.max_model_len:
        fit = " and must fit at least one more" if more else ""
        raise InvalidParameter(
            f"the prompt has {length} tokens, the context holds {shape.max_model_len}{fit}",
            param="prompt",
            hint="shorten the prompt, or raise `max_model_len` up to the model's own limit",
        )
    check_ids("prompt", request.prompt, shape)
    asked = more if request.sampling.max_tokens is None else request.sampling.max_tokens
    most = length if request.echo_only else min(length + asked, shape.max_model_len)
    room = shape.num_blocks * shape.block_size
    if most > room:
        raise CacheTooSmall(
            f"the request may grow to {most} tokens, the KV cache holds {room}",
            hint="lower `max_tokens`, shorten the prompt, or raise `kv_tokens`",
        )


def _check_sampling(sampling: SamplingParams, shape: ModelShape) -> None:
    for name, ids in (("logit_bias", sampling.logit_bias), ("stop_token_ids", sampling.stop_token_ids)):
        for token in ids:
            if token >= shape.vocab_size:
                raise InvalidParameter(
                    f"`{name}` names token {token}, the vocabulary has {shape.vocab_size}", param=name
                )


def check_exit(exit: ExitParams, executor: Executor, config: EngineConfig) -> None:
    """Check exit parameters against the exits and the engine.

    Raises:
        InvalidParameter, Unsupported: with a message that says what is allowed.
    """
    layers = executor.shape.exit_layers
    if not layers:
        raise Unsupported("the model has no exits", hint="give exit layers, such as `exits=[10, 20]`, or an exit pack")
    listed = ", ".join(str(layer) for layer in layers)
    if isinstance(exit.threshold, dict):
        for layer in exit.threshold:
            if layer not in layers:
                raise InvalidParameter(
                    f"`threshold` names layer {layer}, which is not an exit",
                    param="threshold",
                    hint=f"the exits are at layers {listed}",
                )
    if exit.min_layer > layers[-1]:
        raise InvalidParameter(
            f"`min_layer` is {exit.min_layer}, above the last exit",
            param="min_layer",
            hint=f"the exits are at layers {listed}",
        )
    criterion = make_criterion(exit.criterion, exit.options)
    for boundary, layer in enumerate(layers, start=1):
        first: frozenset[Feature] = frozenset({"saturation"} if boundary == 1 else ())
        missing = criterion.needs - executor.features_at(boundary) - first
        if missing and exit.threshold_at(layer, 0.0) is not None:
            raise InvalidParameter(
                f"criterion `{exit.criterion}` needs `{min(missing)}`, which the exit at layer {layer} lacks",
                param="criterion",
                hint="use an exit pack that has it, or another criterion",
            )
    fixed = exit.options.get("layer") if exit.criterion == "fixed" else None
    if fixed is not None and (fixed not in layers or exit.threshold_at(fixed, 0.0) is None):
        raise InvalidParameter(
            f"criterion `fixed` names layer {fixed}, which is not an exit of this request",
            param="options",
            hint=f"the exits are at layers {listed}; `threshold` and `min_layer` may leave some out",
        )
    if config.batching == "lockstep" and exit.kv != "fill":
        raise Unsupported(
            f"`lockstep` batching cannot serve KV policy `{exit.kv}`: it fills the KV of skipped layers before each "
            "iteration ends",
            hint="use kv `fill`, or batching `compact` or `depth`",
        )
