"""Small tokenizers of the kinds there are."""

from __future__ import annotations

from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from offramp.tokenizer.pieces import byte_alphabet

SPECIAL = ["<|start|>", "<|end|>"]
WORDS = ["Ġt", "he", "Ġthe", "12", "Ã©"]
MERGES = [("Ġ", "t"), ("h", "e"), ("Ġt", "he"), ("1", "2"), ("Ã", "©")]
PIECES = ["▁", "▁the", "s", "▁a", "a", "b", "é", ".", "▁b", "th", "e", "c"]
UNIGRAM = [
    *((piece, 0.0) for piece in ("<pad>", "</s>", "<unk>")),
    *((piece, -2.0 - i / 8) for i, piece in enumerate(PIECES)),
    *((f"<extra_id_{i}>", 0.0) for i in (1, 0)),
]
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


def unigram() -> Tokenizer:
    """SentencePiece's unigram model as T5 has it: special pieces first, sentinels last, and `</s>` behind a text."""
    backend = Tokenizer(models.Unigram(UNIGRAM, unk_id=2, byte_fallback=False))
    backend.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")]
    )
    backend.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    backend.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    special = [piece for piece, _ in UNIGRAM if piece.startswith("<")]
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
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
