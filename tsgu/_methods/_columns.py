"""Vector arithmetic for one column, or for a group of columns that do not mix.

A method is written once, against the names below. Vectors are tensors, (n,) or (n, k), changed in place; a scalar is
one number per column. Where the scalars live decides the speed of a step on a small system, so there are three kinds:

- ``Column``: one column on the CPU, scalars are Python numbers;
- ``HostColumns``: a group on the CPU, scalars are NumPy arrays;
- ``DeviceColumns``: a group on an accelerator, scalars are tensors there, and no step waits for a transfer.
"""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

Scalar = Any
"""A number per column: a Python number, a NumPy array (k,) or a tensor (k,); for GMRES with leading dimensions."""


class Column:
    """One column on the CPU: vectors (n,), scalars are Python numbers."""

    width = 1

    def dot(self, u: Tensor, v: Tensor) -> Scalar:
        """u^H v."""
        return torch.vdot(u, v).item()

    def norm(self, u: Tensor) -> Scalar:
        return math.sqrt(torch.vdot(u, u).real.item()) if u.is_complex() else math.sqrt(torch.dot(u, u).item())

    def add(self, y: Tensor, a: Scalar, x: Tensor) -> None:
        """y += a x."""
        y.add_(x, alpha=a)

    def scale(self, y: Tensor, a: Scalar) -> None:
        """y *= a."""
        y.mul_(a)

    def combine(self, x: Tensor, b: Scalar, y: Tensor) -> None:
        """y = x + b y."""
        torch.add(x, y, alpha=b, out=y)

    def divide(self, a: Scalar, b: Scalar) -> Scalar:
        """a / b, and 0 where b is 0: a step that breaks down then changes nothing."""
        return a / b if b != 0 else 0.0

    def root(self, a: Scalar) -> Scalar:
        """sqrt(a), and 0 where a is negative."""
        return math.sqrt(max(a, 0.0))

    def hypot(self, a: Scalar, b: Scalar) -> Scalar:
        """sqrt(a^2 + b^2) of real numbers."""
        return math.hypot(a, b)

    def larger(self, a: Scalar, b: Scalar) -> Scalar:
        return max(a, b)

    def smaller(self, a: Scalar, b: Scalar) -> Scalar:
        return min(a, b)

    def dots(self, basis: Tensor, v: Tensor) -> Scalar:
        """u^H v for each u of a basis (m, n), shape (m,)."""
        # By mm, which conjugates on the way; mv would first write the conjugate of the whole basis to memory.
        return torch.mm(basis.conj(), v.unsqueeze(1)).squeeze(1).numpy()

    def subtract(self, v: Tensor, basis: Tensor, h: Scalar) -> None:
        """v -= sum_i h_i u_i."""
        v.unsqueeze(1).addmm_(basis.T, torch.from_numpy(h).unsqueeze(1), alpha=-1)

    def zeros(self, *shape: int, like: Tensor) -> Scalar:
        """Scalars with leading dimensions, of the dtype of a vector."""
        return np.zeros(shape, dtype=_numpy_dtype(like))

    def tolist(self, a: Scalar) -> list[Any]:
        """One Python number per column."""
        return [a]


class HostColumns:
    """A group of columns on the CPU: vectors (n, k), scalars are NumPy arrays (k,)."""

    def __init__(self, width: int) -> None:
        self.width = width

    def dot(self, u: Tensor, v: Tensor) -> Scalar:
        # The diagonal of a product of thin matrices: as fast as a reduction, and without a temporary of their size.
        return torch.mm(u.mH, v).diagonal().numpy()

    def norm(self, u: Tensor) -> Scalar:
        return np.sqrt(self.dot(u, u).real)

    def add(self, y: Tensor, a: Scalar, x: Tensor) -> None:
        y.addcmul_(x, self._lift(a, y))

    def scale(self, y: Tensor, a: Scalar) -> None:
        y.mul_(self._lift(a, y))

    def combine(self, x: Tensor, b: Scalar, y: Tensor) -> None:
        torch.addcmul(x, y, self._lift(b, y), out=y)

    def divide(self, a: Scalar, b: Scalar) -> Scalar:
        if 0 not in b.tolist():  # for a handful of columns a fraction of the time of b.all()
            return a / b
        a, b = np.asarray(a), np.asarray(b)
        return np.divide(a, b, out=np.zeros(b.shape, np.result_type(a, b)), where=b != 0)

    def root(self, a: Scalar) -> Scalar:
        return np.sqrt(np.maximum(a, 0.0))

    def hypot(self, a: Scalar, b: Scalar) -> Scalar:
        return np.hypot(a, b)

    def larger(self, a: Scalar, b: Scalar) -> Scalar:
        return np.maximum(a, b)

    def smaller(self, a: Scalar, b: Scalar) -> Scalar:
        return np.minimum(a, b)

    def dots(self, basis: Tensor, v: Tensor) -> Scalar:
        return torch.einsum("mnk,nk->mk", basis, v.conj()).conj().resolve_conj().numpy()

    def subtract(self, v: Tensor, basis: Tensor, h: Scalar) -> None:
        v.sub_(torch.einsum("mnk,mk->nk", basis, self._lift(h, v)))

    def zeros(self, *shape: int, like: Tensor) -> Scalar:
        return np.zeros((*shape, self.width), dtype=_numpy_dtype(like))

    def tolist(self, a: Scalar) -> list[Any]:
        return a.tolist()

    def _lift(self, a: Scalar, like: Tensor) -> Tensor:
        lifted = torch.from_numpy(a)
        return lifted if lifted.dtype == like.dtype else lifted.to(like.dtype)


class DeviceColumns:
    """A group of columns on an accelerator: vectors (n, k), scalars are tensors (k,) on the same device."""

    def __init__(self, width: int) -> None:
        self.width = width

    def dot(self, u: Tensor, v: Tensor) -> Scalar:
        return torch.linalg.vecdot(u, v, dim=0)

    def norm(self, u: Tensor) -> Scalar:
        return torch.linalg.vector_norm(u, dim=0)

    def add(self, y: Tensor, a: Scalar, x: Tensor) -> None:
        y.addcmul_(x, a.to(y.dtype))

    def scale(self, y: Tensor, a: Scalar) -> None:
        y.mul_(a)

    def combine(self, x: Tensor, b: Scalar, y: Tensor) -> None:
        y.mul_(b).add_(x)

    def divide(self, a: Scalar, b: Scalar) -> Scalar:
        return torch.where(b != 0, a / torch.where(b != 0, b, torch.ones_like(b)), torch.zeros_like(b))

    def root(self, a: Scalar) -> Scalar:
        return a.clamp(min=0).sqrt()

    def hypot(self, a: Scalar, b: Scalar) -> Scalar:
        return torch.hypot(a, b)

    def larger(self, a: Scalar, b: Scalar) -> Scalar:
        return torch.maximum(a, b)

    def smaller(self, a: Scalar, b: Scalar) -> Scalar:
        return torch.minimum(a, b)

    def dots(self, basis: Tensor, v: Tensor) -> Scalar:
        return torch.einsum("mnk,nk->mk", basis, v.conj()).conj().resolve_conj()

    def subtract(self, v: Tensor, basis: Tensor, h: Scalar) -> None:
        v.sub_(torch.einsum("mnk,mk->nk", basis, h))

    def zeros(self, *shape: int, like: Tensor) -> Scalar:
        return torch.zeros((*shape, self.width), dtype=like.dtype, device=like.device)

    def tolist(self, a: Scalar) -> list[Any]:
        return a.tolist()


Arithmetic = Column | HostColumns | DeviceColumns


def arithmetic(device: torch.device, width: int) -> Arithmetic:
    """The kind for a group of ``width`` columns on a device."""
    if device.type != "cpu":
        return DeviceColumns(width)
    return Column() if width == 1 else HostColumns(width)


def _numpy_dtype(like: Tensor) -> Any:
    return torch.empty(0, dtype=like.dtype).numpy().dtype
