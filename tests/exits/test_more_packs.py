"""Packs with heads that read the past, and packs that come with offramp."""

from __future__ import annotations

from pathlib import Path

import pytest

from offramp.errors import PackError
from offramp.exits.read import read_pack
from offramp.exits.shipped import find_pack, shipped_packs
from tests.exits.test_pack import EXITS, D, write


def test_a_head_that_reads_the_past_at_the_embedding(tmp_path: Path) -> None:
    values = {"format": 1, "base": EXITS["base"], "exits": [{"layer": 0, "past": "deep"}, {"layer": 3}]}
    tensors = {"hidden_norm.weight": (D,), "state_norm.weight": (D,), "weight": (D, 2 * D)}
    shapes = {f"exits.0.past.{name}": shape for name, shape in tensors.items()}
    pack = read_pack(write(tmp_path, values, shapes=shapes))
    assert (pack.layers, pack.exits[0].past, pack.reads_past) == ((0, 3), "deep", True)
    assert not read_pack(write(tmp_path)).reads_past


def test_a_pack_that_comes_with_offramp_is_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("offramp.exits.shipped.FOLDER", tmp_path)
    (tmp_path / "mails").mkdir()
    write(tmp_path / "mails")
    assert read_pack("mails").layers == (2, 4)
    with pytest.raises(PackError) as error:
        read_pack("mail")
    assert error.value.hint == "give the pack's folder, or a pack that comes with offramp: `mails`"


@pytest.mark.parametrize("name", shipped_packs())
def test_what_comes_with_offramp_is_small_and_says_how_it_was_made(name: str) -> None:
    pack = read_pack(name)
    assert pack.tensors is not None and pack.provenance["command"].startswith("offramp tune ")
    folder = find_pack(name)
    assert (folder / "MODEL_CARD.md").is_file()
    assert sum(path.stat().st_size for path in folder.iterdir()) < 32e6
