"""How vocabularies spell bytes."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tokenizers

BYTE_PIECE = re.compile(r"<0x[0-9A-Fa-f]{2}>")


def is_byte_piece(piece: str | None) -> bool:
    """Whether a piece such as `<0xE2>` stands for one byte (SentencePiece's byte fallback)."""
    return piece is not None and BYTE_PIECE.fullmatch(piece) is not None


def byte_alphabet() -> dict[str, int]:
    """Character -> byte of byte-level BPE (GPT-2, Radford et al. 2019).

    Printable Latin-1 characters stand for themselves, the other 68 bytes for U+0100 and up, in order.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


def piece_bytes(piece: str, alphabet: dict[str, int] | None) -> bytes:
    """The bytes a piece stands for: by `alphabet` if byte-level, else with `▁` for a space and byte pieces as bytes.

    A byte-level piece with a character outside the alphabet (an added token) stands for itself.
    """
    if alphabet is None:
        return bytes([int(piece[3:5], 16)]) if is_byte_piece(piece) else piece.replace("\u2581", " ").encode()
    try:
        return bytes(alphabet[char] for char in piece)
    except KeyError:
        return piece.encode()


def is_byte_level(backend: tokenizers.Tokenizer) -> bool:
    """Whether the backend's decoder maps characters to bytes and does nothing else."""
    decoder = json.loads(backend.to_str())["decoder"] if backend.decoder is not None else None
    return decoder is not None and decoder.get("type") == "ByteLevel"
