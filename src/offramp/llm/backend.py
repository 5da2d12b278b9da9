"""Which executor runs a model, and in which types."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from offramp.errors import InvalidParameter, MissingDependency, did_you_mean
from offramp.types.checks import check_one_of

ExecutorName = Literal["auto", "native", "torch"]

NATIVE_DTYPES = ("int8", "int4", "float32", "float16", "bfloat16")
NATIVE_KV_DTYPES = ("float16", "float32")
TORCH_DTYPES = ("float32", "bfloat16", "float64")
"""Types that an executor has, the default first."""

ITEM_BYTES: Mapping[str, int] = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}


@dataclass(frozen=True, slots=True)
class Backend:
    """An executor by name, its device, and its types of weights and of K and V. Nothing is `auto` any more."""

    executor: str
    device: str
    dtype: str
    kv_dtype: str

    @property
    def kv_bytes(self) -> int:
        """Bytes of a number of K or V."""
        return ITEM_BYTES[self.kv_dtype]

    @property
    def hidden_bytes(self) -> int:
        """Bytes of a number of a hidden state."""
        return 4 if self.executor == "native" else ITEM_BYTES[self.dtype]


def choose_backend(executor: str, device: str, dtype: str, kv_dtype: str) -> Backend:
    """Settle what was left to us: the native executor on the CPU, else torch.

    Raises:
        InvalidParameter: an executor, or a type that the executor does not have.
        MissingDependency: the executor is not installed.
    """
    check_one_of("executor", executor, ("auto", "native", "torch"))
    if executor == "auto":
        executor = "native" if device == "cpu" else "torch"
    if executor == "native":
        if device != "cpu":
            raise InvalidParameter(
                f"the native executor runs on the device `cpu`, not on {device!r}",
                param="device",
                hint='executor "torch" runs on others',
            )
        dtype = _one_of("dtype", dtype, NATIVE_DTYPES, executor)
        kv_dtype = _one_of("kv_dtype", kv_dtype, NATIVE_KV_DTYPES, executor)
    else:
        dtype = _one_of("dtype", dtype, TORCH_DTYPES, executor)
        kv_dtype = _one_of("kv_dtype", kv_dtype, (dtype,), executor)
    _check_installed(executor)
    return Backend(executor, device, dtype, kv_dtype)


def _one_of(name: str, value: str, allowed: tuple[str, ...], executor: str) -> str:
    if value == "auto":
        return allowed[0]
    if value not in allowed:
        raise InvalidParameter(
            f"`{name}` cannot be {value!r} on the {executor} executor",
            param=name,
            hint=did_you_mean(str(value), allowed),
        )
    return value


def _check_installed(executor: str) -> None:
    if executor == "torch" and importlib.util.find_spec("torch") is None:
        raise MissingDependency(
            "the torch executor needs torch, which is not installed", hint="pip install 'offramp[torch]'"
        )
    if executor == "native" and importlib.util.find_spec("offramp._native") is None:
        raise MissingDependency(
            "the native executor needs offramp's C++ core, which was not built",
            hint="install offramp from a wheel, or from source with a C++ compiler at hand",
        )
