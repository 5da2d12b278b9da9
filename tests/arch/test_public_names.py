"""What `import offramp` offers, and what it costs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import offramp
from tests.models.toys import save_model

HEAVY = ("torch", "numpy", "transformers", "tokenizers", "rich")


def test_public_names_are_exactly_these() -> None:
    assert offramp.__all__ == ["LLM", "ExitParams", "OfframpError", "SamplingParams", "__version__"]
    assert dir(offramp) == sorted(offramp.__all__)


@pytest.mark.parametrize("name", offramp.__all__)
def test_every_public_name_can_be_had(name: str) -> None:
    assert getattr(offramp, name) is not None


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module `offramp` has no attribute `Engine`"):
        _ = offramp.Engine


def loaded_after(code: str) -> list[str]:
    """Which of `HEAVY` a fresh interpreter has imported after `code`."""
    report = f"{code}\nimport sys\nprint(*(m for m in {HEAVY} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_importing_offramp_imports_nothing_heavy() -> None:
    assert loaded_after("import offramp; offramp.SamplingParams, offramp.ExitParams, offramp.OfframpError") == []


def test_the_llm_class_does_not_import_torch() -> None:
    assert "torch" not in loaded_after("from offramp import LLM")


def test_generating_on_the_native_executor_imports_neither_torch_nor_transformers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OFFRAMP_CACHE", str(tmp_path / "cache"))
    save_model(tmp_path)
    code = f"from offramp import LLM\nwith LLM({str(tmp_path)!r}, exits=[1]) as llm: llm.generate('abc')"
    assert {"torch", "transformers"}.isdisjoint(loaded_after(code))
