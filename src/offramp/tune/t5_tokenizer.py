"""A tokenizer for a T5 that is trained from nothing: byte-level BPE, learnt from the texts."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from offramp.errors import InvalidParameter
from offramp.files import replace_file
from offramp.tune.t5_shape import END, PAD

SPECIAL = {PAD: "<pad>", END: "</s>"}


def new_tokenizer(texts: Iterable[str], size: int) -> bytes:
    """The `tokenizer.json` of a vocabulary of `size` tokens. Any text can be said in it; digits stand alone, and every
    text ends with the token that ends it.

    Raises:
        InvalidParameter: the texts have too few words for so many tokens.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    backend = Tokenizer(models.BPE())
    words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), words])
    backend.decoder = decoders.ByteLevel()
    end = SPECIAL[END]
    backend.post_processor = processors.TemplateProcessing(single=f"$A {end}", special_tokens=[(end, END)])
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(SPECIAL.values()),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    if backend.get_vocab_size() < size:
        raise InvalidParameter(
            f"the data give {backend.get_vocab_size()} tokens, and the shape asks for {size}",
            param="shape",
            hint="give more data, or a smaller `vocabulary`",
        )
    return backend.to_str().encode()


def write_tokenizer(folder: Path, tokenizer: bytes) -> None:
    """Write `tokenizer.json` and `tokenizer_config.json`."""
    replace_file(folder / "tokenizer.json", tokenizer)
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": SPECIAL[PAD], "eos_token": SPECIAL[END]}
    replace_file(folder / "tokenizer_config.json", json.dumps(config, indent=1).encode())
