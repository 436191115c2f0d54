"""The argument checks, applied to tensors: shapes, layouts and dtypes; values are checked where they are concrete."""

from __future__ import annotations

import cmath
import math
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from tsgu._core import _kinds
from tsgu._core.methods import _registry
from tsgu._core.pattern import _indices, _operands, _values
from tsgu._core.pattern._symbolic import Symbolic
from tsgu._core.report import _across, _place, _solver_words, _wording
from tsgu._matrix import _internals


class Pattern(Protocol):
    """What a check asks of a :class:`tsgu.Pattern`."""

    symbolic: Symbolic
    device: torch.device
    shape: tuple[int, int]
    nnz: int


class SparseMatrix(Protocol):
    """What a check asks of a :class:`tsgu.SparseMatrix`."""

    values: Tensor

    @property
    def pattern(self) -> Pattern: ...

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def device(self) -> torch.device: ...


DTYPES = (torch.float32, torch.float64, torch.complex64, torch.complex128)


def check_tensor_matrix(A: Any, batches: bool = False) -> None:
    """A sparse COO or CSR matrix, or a batch where that is taken; the layout is judged before the shape."""
    if not isinstance(A, Tensor):
        raise ValueError(_wording.not_a("A", "a sparse torch.Tensor (COO or CSR) or a SparseMatrix", A))
    if A.layout not in (torch.sparse_coo, torch.sparse_csr):
        remedy = "Convert it, for example by A.to_sparse_csr()."
        raise TypeError(_wording.layout("A", "sparse COO or CSR", str(A.layout), remedy))
    if _internals.is_mapped(A):
        raise NotImplementedError(_wording.vmap_of_sparse_tensor())
    if A.dim() - A.dense_dim() not in ((2, 3) if batches else (2,)):
        words = _wording.not_matrix_or_batch if batches else _wording.not_matrix
        raise ValueError(words(tuple(A.shape), str(A.layout)))
    if A.dense_dim():
        raise ValueError(_wording.hybrid(tuple(A.shape[A.dim() - A.dense_dim() :])))


def check_square(shape: tuple[int, ...], kind: str) -> None:
    if shape[-2] != shape[-1]:
        raise ValueError(_wording.not_square(shape, kind))


def check_rhs(B: Any, n: int, batch: int | None, name: str = "B") -> None:
    """A dense right-hand side for n unknowns, or for a batch of such systems."""
    if not isinstance(B, Tensor):
        raise ValueError(_wording.not_a(name, "a dense torch.Tensor", B))
    if B.layout != torch.strided:
        raise TypeError(_wording.layout(name, "dense (strided)", str(B.layout), f"Convert it by {name}.to_dense()."))
    head = (n,) if batch is None else (batch, n)
    if B.dim() not in (len(head), len(head) + 1) or tuple(B.shape[: len(head)]) != head:
        raise ValueError(_wording.rhs_shape(n, tuple(B.shape), batch, name))


def check_dtype(name: str, tensor: Tensor) -> None:
    if tensor.dtype not in DTYPES:
        raise TypeError(_wording.dtype(name, tensor.dtype))


def check_devices(a: torch.device, b: torch.device) -> None:
    if a != b:
        raise ValueError(_wording.devices(a, b))


def promote(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Bring both to one dtype, with a warning where they differ."""
    if a.dtype == b.dtype:
        return a, b
    common = torch.promote_types(a.dtype, b.dtype)
    _place.warn(UserWarning(_wording.dtypes_differ(a.dtype, b.dtype, common)))
    return a.to(common), b.to(common)


def check_finite(name: str, tensor: Tensor) -> None:
    """Concrete tensors only."""
    if cmath.isfinite(tensor.sum().item()):  # one cheap pass; a sum that overflows is looked at again
        return
    finite = torch.isfinite(tensor)
    if not finite.all():
        raise ValueError(_wording.non_finite(name, int((~finite).sum()), tensor.numel()))


def check_finite_members(name: str, tensor: Tensor) -> None:
    """The same for a batch, (batch, ...), naming the first member that is not finite."""
    if cmath.isfinite(tensor.sum().item()):
        return
    bad = (~torch.isfinite(tensor)).flatten(1).sum(dim=1)
    if bad.any():
        first, of = int(bad.nonzero()[0]), tensor.numel() // tensor.shape[0]
        raise ValueError(_wording.non_finite(f"member {first} of {name}", int(bad[first]), of))


def check_callable(name: str, function: Any) -> None:
    other = _across.method_of_the_other_package(name, function, "tsgu")
    if other:
        raise TypeError(other)
    if function is not None and not _kinds.is_solver(function):
        raise TypeError(_solver_words.not_a_solver(name, function, _registry.meant(name, function, "tsgu")))


def check_verify(verify: Any) -> None:
    if verify is None:
        return
    if isinstance(verify, bool) or not isinstance(verify, int | float) or not 0 < verify < math.inf:
        raise ValueError(_solver_words.verify(verify))


def check_tall(shape: tuple[int, ...], kind: str) -> None:
    if shape[-2] < shape[-1]:
        raise ValueError(_wording.not_tall(shape, kind))


def check_no_empty_column(pattern: Pattern) -> None:
    """A column without a stored entry: all that a pattern tells of rank."""
    empty = np.flatnonzero(np.diff(pattern.symbolic.transpose.indptr) == 0)
    if empty.size:
        raise ValueError(_wording.empty_columns(empty.tolist()))


def start(x0: Any, B: Tensor, shape: tuple[int, ...] | None = None) -> Tensor:
    """x0 as a tensor like B, or like B but for its shape."""
    like, shape = ("B", tuple(B.shape)) if shape is None else ("the solution", shape)
    if not isinstance(x0, Tensor):
        raise TypeError(_wording.not_a("x0", "a torch.Tensor like B", x0))
    if tuple(x0.shape) != shape:
        raise ValueError(_wording.x0_shape(shape, tuple(x0.shape), like))
    if x0.is_complex() and not B.is_complex():
        raise TypeError(f"x0 must be real for a real system; got {x0.dtype}.")
    return x0.detach().to(B)


def solution(name: str, x: Any, B: Tensor, shape: tuple[int, ...] | None = None) -> Tensor:
    """What a user's solver returned, as a tensor like B, or like B but for its shape."""
    shape = tuple(B.shape) if shape is None else shape
    if isinstance(x, tuple) and x:
        x = x[0]  # (X, info), as the solvers of SciPy and JAX return
    expected = f"a tensor of shape {shape}"
    if not isinstance(x, Tensor):
        raise TypeError(_solver_words.result(name, expected, type(x).__name__))
    if tuple(x.shape) != shape:
        raise ValueError(_solver_words.result(name, expected, f"shape {tuple(x.shape)}"))
    if not torch.can_cast(x.dtype, B.dtype):
        raise TypeError(_solver_words.result(name, f"{expected} and dtype {B.dtype}", str(x.dtype)))
    return x.detach().to(B)


def check_values(values: Any, pattern: Pattern) -> None:
    if not isinstance(values, Tensor):
        raise ValueError(_wording.not_a("values", "a torch.Tensor", values))
    if values.layout != torch.strided or values.dim() not in (1, 2) or values.shape[-1] != pattern.nnz:
        raise ValueError(
            f"values must be dense with shape ({pattern.nnz},) or (batch, {pattern.nnz}), one per stored entry; "
            f"got {tuple(values.shape)} in layout {values.layout}."
        )
    if values.device != pattern.device:
        raise ValueError(_values.device_of_values("values", pattern.device, values.device))


def indices(name: str, given: Any, host: Callable[[Tensor], Any]) -> Any:
    """Indices as a NumPy array, from a tensor, which ``host`` brings there, or from what NumPy makes one of."""
    if not isinstance(given, Tensor):
        return _indices.as_indices(name, given, "a torch.Tensor")
    whole = not (given.dtype.is_floating_point or given.dtype.is_complex or given.dtype == torch.bool)
    _indices.check_index_dtype(name, given.dtype, whole, "a torch.Tensor")
    return _indices.as_indices(name, host(given), "a torch.Tensor")


def check_given(given: Any, nse: int, device: torch.device, any_batch: bool) -> None:
    """Values in the order that a pattern was built from."""
    if not isinstance(given, Tensor):
        raise ValueError(_wording.not_a("given", "a torch.Tensor", given))
    if given.layout != torch.strided:
        raise TypeError(_wording.layout("given", "dense (strided)", str(given.layout), "Give its values."))
    if given.dim() not in (range(1, given.dim() + 1) if any_batch else (1, 2)) or given.shape[-1] != nse:
        raise ValueError(_values.given_shape("given", nse, tuple(given.shape), any_batch))
    if given.device != device:
        raise ValueError(_values.device_of_values("given", device, given.device))


def check_members(nnz: int, given: int) -> None:
    """A batch in CSR has as many entries in each member, which the sum of repeated ones would not."""
    if nnz != given:
        raise ValueError(
            f"A must store each position once in a batch in layout torch.sparse_csr; got {given - nnz} repeated of "
            f"{given} entries. Give the batch in COO."
        )


def check_flag(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise TypeError(_wording.flag(name, value))


def check_preparable(A: SparseMatrix, rectangular: bool) -> None:
    """One matrix that a method can be prepared for."""
    if A.values.dim() != 1:
        raise ValueError(_solver_words.one_matrix(tuple(A.shape), _solver_words.PREPARE_EACH))
    if not rectangular:
        check_square(A.pattern.shape, "SparseMatrix")
    check_dtype("A", A.values)
    check_finite("A", A.values)


def check_convertible(A: Any) -> None:
    if isinstance(A, Tensor) and A.layout == torch.strided:
        if _internals.is_mapped(A):
            raise NotImplementedError(_values.vmap_of_dense())
        if A.dim() != 2:
            raise ValueError(_wording.not_matrix(tuple(A.shape), str(A.layout)))
        return
    check_tensor_matrix(A)


def check_unbatched(values: Tensor) -> None:
    if values.dim() != 1:
        raise ValueError(
            f"values must have shape (nnz,) to become one sparse tensor; got {tuple(values.shape)}. "
            "Convert the members of a batch one by one."
        )


def check_concrete(values: Tensor) -> None:
    if _internals.is_transformed(values):
        raise TypeError(_wording.not_concrete("one that torch.func transforms", "the transform"))


def check_layout(layout: Any) -> None:
    if layout not in (torch.sparse_coo, torch.sparse_csr):
        raise TypeError(_wording.layout("layout", "torch.sparse_coo or torch.sparse_csr", str(layout)))


def check_factor(shape: tuple[int, ...], values: Tensor, X: Any) -> None:
    """The right factor of a product with a matrix, or a batch, of this shape."""
    if not isinstance(X, Tensor) or X.layout != torch.strided:
        got = str(X.layout) if isinstance(X, Tensor) else type(X).__name__
        raise TypeError(f"X must be a dense torch.Tensor; got {got}.")
    head = (*shape[:-2], shape[-1])
    if X.dim() not in (len(head), len(head) + 1) or tuple(X.shape[: len(head)]) != head:
        block = str((*head, "k")).replace("'", "")
        raise ValueError(f"X must have shape {head} or {block}; got {tuple(X.shape)}.")
    if X.dtype != values.dtype or X.device != values.device:
        raise TypeError(
            f"X must have the dtype and device of the matrix, {values.dtype} on {values.device}; "
            f"got {X.dtype} on {X.device}."
        )


def refused_summand(symbol: str, X: Any) -> Any:
    """NotImplemented, for what may know itself how to be added to a SparseMatrix; words for anything else."""
    _operands.refuse_summand(symbol, X, (Tensor,), "SparseMatrix.from_tensor or from_scipy")
    return NotImplemented


def check_operands(symbol: str, a: SparseMatrix, b: SparseMatrix) -> None:
    _operands.check_shapes(symbol, a.shape, b.shape)
    if a.device != b.device:
        raise ValueError(_operands.one_device(symbol, a.device, b.device))
