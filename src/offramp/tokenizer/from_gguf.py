"""Building a tokenizer from the metadata of a GGUF file (key names and token types: llama.cpp)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from offramp.errors import TokenizerError
from offramp.tokenizer.tokenizer import Tokenizer

if TYPE_CHECKING:
    import tokenizers

CONTROL, USER_DEFINED = 3, 4

QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3_SPLIT = QWEN2_SPLIT.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
"""How the models' own `tokenizer.json` split text into words; they differ in how they group digits."""

PRE_TOKENIZERS = ("llama-bpe", "qwen2", "smollm")


def tokenizer_from_gguf(metadata: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer of a GGUF file: byte-level BPE with one of `PRE_TOKENIZERS`.

    Raises:
        TokenizerError: metadata that is missing or inconsistent, or another kind of tokenizer.
    """
    model, pre = metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.pre")
    if model != "gpt2":
        raise TokenizerError(
            f"GGUF tokenizer model {model!r} is not supported; `gpt2` (byte-level BPE) is",
            hint="use the model's folder in Hugging Face form",
        )
    if pre not in PRE_TOKENIZERS:
        raise TokenizerError(
            f"GGUF pre-tokenizer {pre!r} is not supported; these are: "
            + ", ".join(f"`{name}`" for name in PRE_TOKENIZERS),
            hint="use the model's folder in Hugging Face form",
        )
    tokens = _strings(metadata, "tokenizer.ggml.tokens")
    backend = _backend(pre, tokens, _strings(metadata, "tokenizer.ggml.merges"))
    _add_special(backend, tokens, metadata)
    template = metadata.get("tokenizer.chat_template")
    return Tokenizer(
        backend,
        bos=_token(metadata, tokens, "bos"),
        eos=_token(metadata, tokens, "eos"),
        add_bos=bool(metadata.get("tokenizer.ggml.add_bos_token", pre == "llama-bpe")),
        add_eos=bool(metadata.get("tokenizer.ggml.add_eos_token", False)),
        chat_template=template if isinstance(template, str) else None,
    )


def _backend(pre: str, tokens: list[str], merges: list[str]) -> tokenizers.Tokenizer:
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models, normalizers

    vocab = {token: i for i, token in enumerate(tokens)}
    if len(vocab) != len(tokens):
        raise TokenizerError("the GGUF vocabulary spells two tokens alike")
    pairs = [tuple(merge.split(" ")) for merge in merges]
    wrong = next((merge for merge, pair in zip(merges, pairs, strict=True) if len(pair) != 2), None)
    if wrong is not None:
        raise TokenizerError(f"the GGUF merge {wrong!r} does not join two tokens")
    try:
        bpe = models.BPE(vocab=vocab, merges=pairs, ignore_merges=pre == "llama-bpe")  # type: ignore[arg-type]
    except Exception as error:  # tokenizers raises bare Exception
        raise TokenizerError(f"the GGUF vocabulary and merges do not fit together: {error}") from error
    backend = Backend(bpe)
    if pre == "qwen2":
        backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = _pre_tokenizer(pre)
    backend.decoder = decoders.ByteLevel()
    return backend


def _pre_tokenizer(pre: str) -> tokenizers.pre_tokenizers.PreTokenizer:
    from tokenizers import Regex, pre_tokenizers

    if pre == "smollm":
        first: tokenizers.pre_tokenizers.PreTokenizer = pre_tokenizers.Digits(individual_digits=True)
    else:
        first = pre_tokenizers.Split(Regex(QWEN2_SPLIT if pre == "qwen2" else LLAMA3_SPLIT), behavior="isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pre == "smollm")
    return pre_tokenizers.Sequence([first, byte_level])


def _add_special(backend: tokenizers.Tokenizer, tokens: list[str], metadata: Mapping[str, Any]) -> None:
    """Register control and user-defined tokens, so that they are found in text before it is split."""
    from tokenizers import AddedToken

    types = metadata.get("tokenizer.ggml.token_type")
    if not isinstance(types, list) or len(types) != len(tokens):
        raise TokenizerError("the GGUF metadata gives no `tokenizer.ggml.token_type` for every token")
    kinds = list(zip(tokens, types, strict=True))
    backend.add_special_tokens([AddedToken(t, special=True, normalized=False) for t, kind in kinds if kind == CONTROL])
    backend.add_tokens([AddedToken(t, special=False, normalized=False) for t, kind in kinds if kind == USER_DEFINED])


def _strings(metadata: Mapping[str, Any], key: str) -> list[str]:
    value = metadata.get(key)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise TokenizerError(f"the GGUF metadata has no list of strings `{key}`")
    return value


def _token(metadata: Mapping[str, Any], tokens: list[str], which: str) -> str | None:
    key = f"tokenizer.ggml.{which}_token_id"
    token = metadata.get(key)
    if token is None:
        return None
    if type(token) is not int or not 0 <= token < len(tokens):
        raise TokenizerError(f"`{key}` is {token!r}, which is no id of the {len(tokens)} tokens")
    return tokens[token]
