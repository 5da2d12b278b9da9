"""Reading `tokenizer.json` and the files beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from offramp.errors import TokenizerError
from offramp.tokenizer.tokenizer import Tokenizer

TOKENIZER, CONFIG, TEMPLATE = "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"
SENTENCEPIECE = "spiece.model"


def tokenizer_from_folder(folder: Path) -> Tokenizer:
    """The tokenizer of a folder in Hugging Face form.

    Which special tokens go around a text is what `tokenizer.json` says; `add_bos_token` and `add_eos_token` in the
    configuration are not read, as in Transformers 5.

    Raises:
        TokenizerError: a file that is missing or cannot be read.
    """
    import tokenizers

    path = folder / TOKENIZER
    if not path.is_file() and (folder / SENTENCEPIECE).is_file():
        where = repr(str(folder))
        raise TokenizerError(
            f"`{folder}` has its tokenizer as `{SENTENCEPIECE}`, which is not read; `{TOKENIZER}` is",
            hint=f"`AutoTokenizer.from_pretrained({where}).save_pretrained({where})` of Transformers writes it",
        )
    if not path.is_file():
        raise TokenizerError(
            f"`{folder}` has no tokenizer: looked for `{TOKENIZER}`",
            hint="save a fast tokenizer there with `AutoTokenizer.from_pretrained(...).save_pretrained(folder)`",
        )
    try:
        backend = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exception
        raise TokenizerError(f"`{path}` is not a tokenizer: {error}") from error
    backend.no_truncation()
    backend.no_padding()
    config = _config(folder / CONFIG)
    return Tokenizer(
        backend,
        bos=_token(config, "bos_token"),
        eos=_token(config, "eos_token"),
        chat_template=_template(folder / TEMPLATE, config),
    )


def _config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        config = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise TokenizerError(f"`{path}` is not JSON") from error
    if not isinstance(config, dict):
        raise TokenizerError(f"`{path}` is not a JSON object")
    return config


def _token(config: dict[str, Any], key: str) -> str | None:
    """A special token: a string, or an object with its `content`."""
    value = config.get(key)
    if isinstance(value, dict):
        value = value.get("content")
    if value is not None and not isinstance(value, str):
        raise TokenizerError(f"`{key}` in {CONFIG} must be a string, not {value!r}")
    return value


def _template(path: Path, config: dict[str, Any]) -> str | None:
    """The file of its own if there is one; else the configuration's, or its `default` one where it names several."""
    if path.is_file():
        try:
            return path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise TokenizerError(f"`{path}` is not UTF-8") from error
    value = config.get("chat_template")
    if isinstance(value, list):
        named = {entry.get("name"): entry.get("template") for entry in value if isinstance(entry, dict)}
        value = named.get("default")
    if value is not None and not isinstance(value, str):
        raise TokenizerError(f"`chat_template` in {CONFIG} must be a string or a list of named templates")
    return value
