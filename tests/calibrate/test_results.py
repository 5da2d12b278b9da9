"""Results on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from offramp.calibrate.results import Results
from offramp.errors import OfframpError


def test_results_are_there_the_next_time(tmp_path: Path) -> None:
    with Results({"model": "a"}, tmp_path) as first:
        first.add("s", "p", {"differ": 3})
    with Results({"model": "a"}, tmp_path) as again:
        assert again.find("s", "p") == {"differ": 3} and again.find("s", "q") is None


def test_results_of_another_model_are_not_found(tmp_path: Path) -> None:
    with Results({"model": "a"}, tmp_path) as first, Results({"model": "b"}, tmp_path) as other:
        first.add("s", "p", {"differ": 3})
        assert other.find("s", "p") is None and first.path != other.path


@pytest.mark.parametrize(
    "torn", [b'{"setting":"s","prompt":"r","dif', b'{"setting":"s","prompt":"r","differ":1}', b"7\n"]
)
def test_a_torn_line_is_forgotten_and_written_over(tmp_path: Path, torn: bytes) -> None:
    with Results({}, tmp_path) as first:
        first.add("s", "p", {"differ": 3})
    whole = first.path.read_bytes()
    first.path.write_bytes(whole + torn)
    with Results({}, tmp_path) as again:
        assert again.find("s", "r") is None and again.find("s", "p") == {"differ": 3}
        again.add("s", "r", {"differ": 2})
    assert first.path.read_bytes() == whole + b'{"setting":"s","prompt":"r","differ":2}\n'


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OfframpError, match=r"^results cannot be kept in `.*`: .*\nhint: set `OFFRAMP_CACHE`"):
        Results({}, tmp_path / "file" / "folder")
