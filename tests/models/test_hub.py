"""A name resolves to files, or the error says what it could have been."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from offramp.errors import DownloadError, ModelNotFound, OfframpError
from offramp.models import resolve
from offramp.models.hub import HUB_FILES
from offramp.models.shipped import FOLDER, shipped_models
from tests.models.real import smollm2


class TransportError(Exception):
    """As the hub's client has from its library: no `OSError`."""


def refusal(model: str, error: type[OfframpError] = ModelNotFound) -> OfframpError:
    with pytest.raises(error) as caught:
        resolve(model)
    return caught.value


def test_an_alias_is_a_file_in_the_cache() -> None:
    assert resolve("smollm2-135m") == ("smollm2-135m", "gguf", smollm2())


def test_a_model_that_comes_with_offramp_is_found_by_its_name_unless_there_is_a_folder_of_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in shipped_models():
        found = resolve(name)
        assert (found.name, found.form, found.path.parent) == (name, "hf", FOLDER)
        assert (found.path / "model.safetensors").is_file()
    (tmp_path / "t5-restore").mkdir()
    (tmp_path / "t5-restore" / "config.json").touch()
    assert resolve("t5-restore").path == Path("t5-restore")


def test_a_folder_with_a_configuration_is_a_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").touch()
    assert resolve(str(tmp_path)) == (tmp_path.name, "hf", tmp_path)


def test_a_gguf_file_is_a_model(tmp_path: Path) -> None:
    path = tmp_path / "m.Q4_1.gguf"
    path.touch()
    assert resolve(str(path)) == ("m.Q4_1", "gguf", path)


def test_another_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.touch()
    error = refusal(str(path))
    assert error.message == f"`{path}` is not a model: a file must end in `.gguf`"
    assert error.hint == "for a Hugging Face model give the folder that holds its config.json"


def test_a_folder_without_a_configuration_is_refused(tmp_path: Path) -> None:
    assert refusal(str(tmp_path)).message == f"`{tmp_path}` has no config.json"


def test_a_gguf_file_in_the_folder_is_suggested(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").touch()
    assert refusal(str(tmp_path)).hint == f"did you mean the file `{tmp_path / 'm.gguf'}`?"


@pytest.mark.parametrize("model", ["smollm2-135", "./none", "none/none.gguf", "", "~nobody-of-that-name", "a\0b"])
def test_a_name_that_is_nothing_is_refused(model: str) -> None:
    assert refusal(model).message == (
        f"no model `{model}`: it is no alias, no folder, no `.gguf` file and no Hugging Face id `owner/name`"
    )


def test_the_nearest_alias_is_suggested() -> None:
    assert (
        refusal("smollm2-135").hint
        == "for an alias, did you mean `smollm2-135m`? Allowed: `smollm2-135m`, `t5-restore`"
    )


class Hub:
    """Stands in for the hub: gives a folder, or raises."""

    def __init__(self, outcome: Path | Exception) -> None:
        self.outcome = outcome
        self.asked: tuple[Any, ...] = ()

    def __call__(self, model: str, allow_patterns: list[str]) -> str:
        self.asked = (model, allow_patterns)
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return str(self.outcome)


def test_an_id_is_downloaded_without_what_is_not_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").touch()
    hub = Hub(tmp_path)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub)
    assert resolve("owner/name") == ("owner/name", "hf", tmp_path)
    assert hub.asked == ("owner/name", list(HUB_FILES))


@pytest.mark.parametrize(
    "cause", [LocalEntryNotFoundError("x"), OfflineModeIsEnabled("x"), OSError("x"), TransportError("x")]
)
def test_an_unreachable_hub_is_a_failed_download(cause: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", Hub(cause))
    error = refusal("owner/name", DownloadError)
    assert error.message == (
        "no folder `owner/name` here, and the Hugging Face hub could not be reached to download it: x"
    )
    assert error.hint == "check the network, or copy the model's folder here and give its path"


class Gated(GatedRepoError):
    def __init__(self) -> None:
        Exception.__init__(self)


class Gone(RepositoryNotFoundError):
    def __init__(self) -> None:
        Exception.__init__(self)


def test_a_gated_model_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", Hub(Gated()))
    error = refusal("owner/name", DownloadError)
    assert error.message == "`owner/name` is gated on the Hugging Face hub"
    assert error.hint == "accept its terms there and run `hf auth login`"


@pytest.mark.parametrize("cause", [Gone(), HFValidationError("x")])
def test_an_id_that_the_hub_does_not_know_is_refused(cause: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", Hub(cause))
    error = refusal("owner/name")
    assert error.message == "no folder `owner/name` here and no public model of that id on the Hugging Face hub"
    assert error.hint == "check the spelling; private models need `hf auth login`"


def test_a_download_without_a_configuration_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", Hub(tmp_path))
    assert refusal("owner/name").message == "`owner/name` has no config.json"


def test_a_name_too_long_for_a_path_is_refused() -> None:
    assert refusal("x" * 5000).message.startswith("no model `xxx")
