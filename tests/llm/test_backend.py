"""What `auto` stands for, and what is missing."""

from __future__ import annotations

import importlib.util

import pytest

from offramp.errors import MissingDependency
from offramp.executors.native import DTYPES, KV_DTYPES
from offramp.executors.torch.executor import DTYPES as TORCH
from offramp.llm import backend
from offramp.llm.backend import Backend, choose_backend


@pytest.mark.parametrize(
    ("asked", "settled"),
    [
        (("auto", "cpu", "auto", "auto"), Backend("native", "cpu", "int8", "float16")),
        (("auto", "cpu", "int4", "float32"), Backend("native", "cpu", "int4", "float32")),
        (("auto", "cuda:1", "auto", "auto"), Backend("torch", "cuda:1", "float32", "float32")),
        (("torch", "cpu", "float64", "auto"), Backend("torch", "cpu", "float64", "float64")),
        (("torch", "cpu", "bfloat16", "bfloat16"), Backend("torch", "cpu", "bfloat16", "bfloat16")),
    ],
)
def test_what_is_left_open_is_settled(asked: tuple[str, str, str, str], settled: Backend) -> None:
    assert choose_backend(*asked) == settled


def test_the_types_listed_are_those_the_executors_have() -> None:
    assert set(backend.NATIVE_DTYPES) == set(DTYPES) and set(backend.NATIVE_KV_DTYPES) == set(KV_DTYPES)
    assert set(backend.TORCH_DTYPES) == set(TORCH)


def test_numbers_take_the_bytes_of_their_types() -> None:
    assert [choose_backend("auto", "cpu", "int8", kv).kv_bytes for kv in ("float16", "float32")] == [2, 4]
    assert choose_backend("auto", "cpu", "int8", "float16").hidden_bytes == 4
    assert choose_backend("torch", "cpu", "bfloat16", "auto").hidden_bytes == 2


@pytest.mark.parametrize(
    ("executor", "message"),
    [
        ("torch", "the torch executor needs torch, which is not installed\nhint: pip install 'offramp[torch]'"),
        ("native", "the native executor needs offramp's C++ core, which was not built\nhint: install offramp from a "),
    ],
)
def test_an_executor_that_is_not_installed(executor: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependency) as error:
        choose_backend(executor, "cpu", "auto", "auto")
    assert str(error.value).startswith(message)
