"""Small tokenizers of the kinds there are."""

from __future__ import annotations

from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

from offramp.tokenizer.pieces import byte_alphabet

SPECIAL = ["<|start|>", "<|end|>"]
WORDS = ["Ġt", "he", "Ġthe", "12", "Ã©"]
MERGES = [("Ġ", "t"), ("h", "e"), ("Ġt", "he"), ("1", "2"), ("Ã", "©")]
BYTE_VOCAB = [*SPECIAL, *byte_alphabet(), *WORDS]


def byte_level() -> Tokenizer:
    """Byte-level BPE, as GPT-2, Llama 3 and Qwen have it; ids 0 and 1 are special."""
    backend = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(BYTE_VOCAB)}, merges=MERGES))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    return backend


def byte_fallback() -> Tokenizer:
    """SentencePiece-style BPE with byte fallback, as Llama 2 and Mistral have it; ids 0, 1 and 2 are special."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "b", "c", "▁a", "é"]
    backend = Tokenizer(
        models.BPE(
            vocab={piece: i for i, piece in enumerate(pieces)},
            merges=[("▁", "a")],
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(content=" ", left=1)]
    )
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in pieces[:3]])
    return backend


def gguf_metadata(pre: str = "smollm", **changes: Any) -> dict[str, Any]:
    """The byte-level vocabulary as GGUF metadata; `changes` are keys below `tokenizer.ggml.`."""
    own = {
        "model": "gpt2",
        "pre": pre,
        "tokens": BYTE_VOCAB,
        "merges": [" ".join(pair) for pair in MERGES],
        "token_type": [3, 3] + [1] * (len(BYTE_VOCAB) - 2),
        "bos_token_id": 0,
        "eos_token_id": 1,
    }
    return {f"tokenizer.ggml.{key}": value for key, value in {**own, **changes}.items()}
