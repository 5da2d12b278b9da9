"""The default model's tokenizer as a folder in Hugging Face form, for programs that want one and can fetch none."""

from __future__ import annotations

from pathlib import Path

import transformers

from offramp.models import resolve


def save_tokenizer(model: str, folder: Path) -> str:
    """Write what Transformers itself reads from the model's GGUF file; returns the folder."""
    path = resolve(model).path
    tokenizer = transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, local_files_only=True)
    tokenizer.save_pretrained(folder)
    return str(folder)
