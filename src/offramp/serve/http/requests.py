"""Bodies of OpenAI's generating requests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from offramp.errors import InvalidParameter
from offramp.serve.http.dial import ExitDial
from offramp.serve.http.fields import Body, field
from offramp.types.sampling import MAX_SEED, SamplingParams

MAX_STOPS, MAX_STOP_LENGTH = 16, 256
MAX_PROMPTS = 2048

SAME = (
    "temperature",
    "top_p",
    "n",
    "stop",
    "seed",
    "presence_penalty",
    "frequency_penalty",
    "top_k",
    "min_p",
    "repetition_penalty",
    "min_tokens",
    "stop_token_ids",
    "ignore_eos",
)
"""Fields that are fields of `SamplingParams`, too."""

TokenId = Annotated[int, Field(ge=0, lt=2**31)]
StopText = Annotated[str, Field(min_length=1, max_length=MAX_STOP_LENGTH)]
Stops = StopText | Annotated[list[StopText], Field(max_length=MAX_STOPS)] | None


class StreamOptions(Body):
    """What a stream carries besides the answer."""

    include_usage: bool | None = field("implemented", "A chunk with `usage` and no choices before the end.")
    continuous_usage_stats: bool | None = field("extension", "`usage` in every chunk, as vLLM has it.")
    include_obfuscation: bool | None = field("no effect", "Nothing is padded.")


class Generation(Body):
    """What completions and chat completions have in common."""

    model: str | None = field("deviates", "A name of the served model; may be left out.")
    stream: bool | None = field("implemented", "Send the answer as server-sent events.")
    stream_options: StreamOptions | None = field("implemented", "`include_usage`, `continuous_usage_stats`.")
    temperature: float | None = field("implemented", "0 is greedy. 1 if left out.", ge=0, le=100)
    top_p: float | None = field("implemented", "Keep the likeliest tokens that reach this together.", gt=0, le=1)
    n: int | None = field("implemented", "Outputs for a prompt; at most 128.", ge=1, le=128)
    stop: Stops = field(
        "deviates", f"At most {MAX_STOPS} texts (OpenAI: 4), of at most {MAX_STOP_LENGTH} characters each."
    )
    seed: int | None = field(
        "deviates", "0 to 2^63 - 1; outputs are then the same whatever else runs.", ge=0, le=MAX_SEED
    )
    presence_penalty: float | None = field("implemented", "-2 to 2.", ge=-2, le=2)
    frequency_penalty: float | None = field("implemented", "-2 to 2.", ge=-2, le=2)
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = field(
        "implemented", "Token id to what is added to its logit, -100 to 100."
    )
    user: str | None = field("no effect", "")
    top_k: int | None = field("extension", "Keep so many tokens; 0 keeps all.", ge=0, lt=2**31)
    min_p: float | None = field("extension", "Drop tokens below this share of the largest probability.", ge=0, le=1)
    repetition_penalty: float | None = field(
        "extension", "Above 1, what was said becomes less likely.", ge=0.01, le=100
    )
    min_tokens: int | None = field("extension", "Do not end before so many tokens.", ge=0, lt=2**31)
    stop_token_ids: Annotated[list[TokenId], Field(max_length=256)] | None = field(
        "extension", "Tokens that end an output."
    )
    ignore_eos: bool | None = field("extension", "Go on after the end-of-sequence token.")
    exit: ExitDial | None = field("extension", "Where tokens may leave the network; see above.")

    def sampling(
        self, max_tokens: int | None, logprobs: int | None, schema: Mapping[str, Any] | None = None
    ) -> SamplingParams:
        """How tokens are drawn.

        Raises:
            InvalidParameter: a value that is not allowed.
        """
        given = {name: value for name in SAME if (value := getattr(self, name)) is not None}
        return SamplingParams(
            **{"temperature": 1.0, **given},
            logit_bias=read_bias(self.logit_bias or {}),
            max_tokens=max_tokens,
            logprobs=logprobs,
            json_schema=schema,
        )


def read_bias(bias: dict[str, float]) -> dict[int, float]:
    """A bias by token id; names of fields are text in JSON.

    Raises:
        InvalidParameter: a name that is no token id.
    """
    for name in bias:
        if not (name.isascii() and name.isdecimal() and len(name) < 10):
            raise InvalidParameter(f"`logit_bias` names `{name[:40]}`, which is no token id", param="logit_bias")
    return {int(name): value for name, value in bias.items()}


class CompletionRequest(Generation):
    """`POST /v1/completions`."""

    prompt: (
        str
        | Annotated[list[TokenId], Field(min_length=1)]
        | Annotated[list[str], Field(min_length=1, max_length=MAX_PROMPTS)]
        | Annotated[list[Annotated[list[TokenId], Field(min_length=1)]], Field(min_length=1, max_length=MAX_PROMPTS)]
    ) = field("implemented", f"Text, token ids, or a list of at most {MAX_PROMPTS} of either.", default=...)
    max_tokens: int | None = field("implemented", "16 if left out; 0 with `echo`.", ge=0, lt=2**31)
    logprobs: int | None = field("deviates", "Up to 100 (OpenAI: 5).", ge=0, le=100)
    echo: bool | None = field(
        "implemented", "The prompt comes first, with `logprobs` if asked for; not beside an encoder."
    )
    best_of: int | None = field("deviates", "Only the same as `n`.", ge=1, le=128)
    suffix: None = field("refused", "nothing can be filled in between two texts")


class JsonSchema(Body):
    """A JSON schema and its name."""

    name: str = Field(min_length=1, max_length=64)
    description: str | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = None


class ResponseFormat(Body):
    """What form the answer has."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    def wanted(self) -> dict[str, Any] | None:
        """The schema that outputs must satisfy; {} for any object; None for free text.

        Raises:
            InvalidParameter: `json_schema` is missing, or is given with another type.
        """
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise InvalidParameter(
                "`response_format.json_schema` belongs to the type `json_schema`", param="response_format"
            )
        if self.type == "text":
            return None
        return {} if self.json_schema is None else self.json_schema.schema_ or {}


class FunctionCall(BaseModel):
    """A call that the model made."""

    name: str
    arguments: str = Field(description="JSON.")


class ToolCall(BaseModel):
    """A call, with the id that its result refers to."""

    id: str
    type: Literal["function"] = "function"
    function: FunctionCall


class Part(BaseModel):
    """A part of a message; only text is served."""

    model_config = ConfigDict(json_schema_extra={"required": ["type", "text"]})

    type: str = Field(json_schema_extra={"enum": ["text"]})
    text: str | None = None


class Message(BaseModel):
    """A message. Further fields reach the chat template if they are text."""

    model_config = ConfigDict(extra="allow", json_schema_extra={"additionalProperties": {"type": ["string", "null"]}})

    role: str = Field(min_length=1)
    content: str | list[Part] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None


class Function(Body):
    """A function that the model may call."""

    name: str = Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(Body):
    """A tool; only functions are served."""

    type: Literal["function"]
    function: Function


class FunctionName(Body):
    """The name of a function."""

    name: str


class ToolChoice(Body):
    """One function that is to be called."""

    type: Literal["function"]
    function: FunctionName


class ChatRequest(Generation):
    """`POST /v1/chat/completions`."""

    messages: list[Message] = field("deviates", "Text only.", default=..., min_length=1, max_length=10_000)
    max_completion_tokens: int | None = field(
        "implemented", "Fills the context, or the KV cache, if left out.", ge=1, lt=2**31
    )
    max_tokens: int | None = field("implemented", "The older name of `max_completion_tokens`.", ge=1, lt=2**31)
    logprobs: bool | None = field("implemented", "Log-probabilities of the output's tokens.")
    top_logprobs: int | None = field("implemented", "And of so many of the likeliest, up to 20.", ge=0, le=20)
    response_format: ResponseFormat | None = field("implemented", "`text`, `json_object` or `json_schema`.")
    tools: Annotated[list[Tool], Field(max_length=128)] | None = field(
        "deviates", "Where the model's chat template takes tools, and `tool_choice` is `required` or names a function."
    )
    tool_choice: Literal["none", "auto", "required"] | ToolChoice | None = field(
        "deviates", "`none`, `required`, or one function; `auto` where the template marks calls by `<tool_call>`."
    )
    parallel_tool_calls: bool | None = field("deviates", "An output has at most one call where it must have one.")
    modalities: list[Literal["text"]] | None = field("deviates", "Only text.")
    reasoning_effort: str | None = field("no effect", "")
    verbosity: str | None = field("no effect", "")
    store: bool | None = field("no effect", "Nothing is stored.")
    metadata: dict[str, str] | None = field("no effect", "")
    service_tier: str | None = field("no effect", "")
    safety_identifier: str | None = field("no effect", "")
    prompt_cache_key: str | None = field("no effect", "Prompts that begin alike share their beginning anyway.")
    prompt_cache_options: dict[str, Any] | None = field("no effect", "")
    prompt_cache_retention: str | None = field("no effect", "")
    prediction: dict[str, Any] | None = field("no effect", "It could only make answers faster.")
    audio: None = field("refused", "there is no sound")
    functions: None = field("refused", "use `tools`")
    function_call: None = field("refused", "use `tool_choice`")
    moderation: None = field("refused", "nothing is moderated")
    web_search_options: None = field("refused", "nothing is searched")
