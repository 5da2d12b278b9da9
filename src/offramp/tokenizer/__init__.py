"""Text to token ids and back, chat templates, streaming text, and stop strings."""

from __future__ import annotations

from offramp.tokenizer.detokenizer import Detokenizer
from offramp.tokenizer.from_gguf import tokenizer_from_gguf
from offramp.tokenizer.from_hf import tokenizer_from_folder
from offramp.tokenizer.stop import StopStrings
from offramp.tokenizer.tokenizer import Tokenizer

__all__ = ["Detokenizer", "StopStrings", "Tokenizer", "tokenizer_from_folder", "tokenizer_from_gguf"]
