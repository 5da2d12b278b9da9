"""Pieces of a layer with gradients written out, which take fewer passes over memory than torch would."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

Part = tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]
"""A linear layer: frozen weight [rows, columns] and bias [rows], and factors A [rank, columns] and B [rows, rank]."""


def adapted(x: Tensor, parts: Sequence[Part]) -> tuple[Tensor, ...]:
    """W x + b + B A x for each of `parts`, in the type of `x` [tokens, columns]; factors get gradients in their own.

    Either all have factors, of one rank, or none.
    """
    found: tuple[Tensor, ...] = _Adapted.apply(x, *(t for part in parts for t in part))  # type: ignore[no-untyped-call]
    return found


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """`Rotation.apply`: rotate `x` [..., rows, heads, head_dim]."""
    rotated: Tensor = _Rotate.apply(x, cos, sin)  # type: ignore[no-untyped-call]
    return rotated


def norm(x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
    """RMSNorm over the last dimension with frozen weights, computed in float32, as `dtype`."""
    normed: Tensor = _Norm.apply(x, weight, eps, dtype)  # type: ignore[no-untyped-call]
    return normed


class _Adapted(torch.autograd.Function):
    """What layers share is added up inside of the products, and their A are one matrix: narrow products are slow."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *tensors: Tensor | None) -> tuple[Tensor, ...]:
        parts = _parts(tensors)
        weights = [part[0] for part in parts]
        biases = [None if part[1] is None else part[1].to(x.dtype) for part in parts]
        outputs = [torch.nn.functional.linear(x, *frozen) for frozen in zip(weights, biases, strict=True)]
        if parts[0][2] is None:
            ctx.save_for_backward(x, *weights)
            return tuple(outputs)
        a = torch.cat([part[2].to(x.dtype) for part in parts])
        bs = [part[3].to(x.dtype) for part in parts]
        low = x @ a.T
        for y, own, b in zip(outputs, low.chunk(len(parts), dim=1), bs, strict=True):
            y.addmm_(own, b.T)
        ctx.save_for_backward(x, *weights, a, low, *bs)
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        count = len(gradients)
        x, *saved = ctx.saved_tensors
        total = gradients[0] @ saved[0]
        for gradient, weight in zip(gradients[1:], saved[1:count], strict=True):
            total.addmm_(gradient, weight)
        if len(saved) == count:
            return total, *[None] * (4 * count)
        a, low, *bs = saved[count:]
        inner = torch.cat([gradient @ b for gradient, b in zip(gradients, bs, strict=True)], dim=1)
        total.addmm_(inner, a)
        own_a = (inner.T @ x).float().chunk(count)
        own_b = [(g.T @ own).float() for g, own in zip(gradients, low.chunk(count, dim=1), strict=True)]
        return total, *(t for pair in zip(own_a, own_b, strict=True) for t in (None, None, *pair))


def _parts(tensors: Sequence[Any]) -> list[Sequence[Any]]:
    """Tensors in fours."""
    return [tensors[i : i + 4] for i in range(0, len(tensors), 4)]


class _Rotate(torch.autograd.Function):
    """Going back is to rotate the other way."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _rotated(x, cos, sin, 1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _rotated(gradients[0], cos, sin, -1), None, None


def _rotated(x: Tensor, cos: Tensor, sin: Tensor, way: int) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    rotated = torch.empty_like(x)
    low, high = rotated.chunk(2, dim=-1)
    torch.mul(first, cos, out=low).addcmul_(second, sin, value=-way)
    torch.mul(second, cos, out=high).addcmul_(first, sin, value=way)
    return rotated


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
        wide = x.float()
        scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
        ctx.save_for_backward(x, weight, scale)
        return (wide * scale).mul_(weight).to(dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        x, weight, scale = ctx.saved_tensors
        wide = x.float()
        gradient = gradients[0] * weight
        along = (gradient * wide).mean(-1, keepdim=True).mul_(scale**3)
        return gradient.mul_(scale).addcmul_(wide, along, value=-1).to(x.dtype), None, None, None
