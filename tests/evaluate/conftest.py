"""The toy chat model of the calibration tests."""

from __future__ import annotations

from tests.calibrate.conftest import cache, data, llm, model, pack

__all__ = ["cache", "data", "llm", "model", "pack"]
