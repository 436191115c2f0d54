"""What torch2jax needs to turn a torch function that solves a sparse system into a JAX function.

``torch2jax.t2j(f)`` runs f with objects in place of tensors, and looks up every torch function that f calls in a table.
The sparse constructors and the solves are entered there. A sparse matrix is an object of this module meanwhile, with
the few methods that lie between assembling it and solving with it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import jax.numpy as jnp
import numpy as np
import torch
from jax import Array
from jax.experimental.sparse import BCOO, BCSR
from torch import Tensor
from torch2jax import Torchish, implements, j2t_dtype

import tsgu
import tsgu_jax
from tsgu._core import _kinds
from tsgu._core.methods import _registry
from tsgu._core.report import _wording
from tsgu._rule import _method as torch_method
from tsgu_jax._program._internals import is_traced
from tsgu_jax.interop._convert import pattern_to_jax, to_jax


@dataclass(frozen=True)
class SparseTorchish:
    """In place of a sparse tensor of torch, whatever its layout: sorted, and without repeated positions."""

    matrix: tsgu_jax.SparseMatrix

    @property
    def shape(self) -> tuple[int, ...]:
        return self.matrix.shape

    @property
    def dtype(self) -> torch.dtype:
        return j2t_dtype(self.matrix.dtype)

    @property
    def T(self) -> SparseTorchish:  # noqa: N802 - the name that NumPy and torch use
        return SparseTorchish(self.matrix.T)

    def coalesce(self) -> SparseTorchish:
        return self

    def to_sparse_csr(self) -> SparseTorchish:
        return self

    def to_sparse_coo(self) -> SparseTorchish:
        return self

    def values(self) -> Any:
        return Torchish(self.matrix.values)

    def to_dense(self) -> Any:
        return Torchish(self.matrix.to_dense())

    def __matmul__(self, x: Any) -> Any:
        return Torchish(self.matrix @ array("x", x))


@dataclass(frozen=True)
class MatrixTorchish:
    """In place of a :class:`tsgu.SparseMatrix`."""

    matrix: tsgu_jax.SparseMatrix

    @property
    def shape(self) -> tuple[int, ...]:
        return self.matrix.shape

    @property
    def dtype(self) -> torch.dtype:
        return j2t_dtype(self.matrix.dtype)

    @property
    def values(self) -> Any:
        return Torchish(self.matrix.values)

    @property
    def T(self) -> MatrixTorchish:  # noqa: N802 - the name that NumPy and torch use
        return MatrixTorchish(self.matrix.T)

    @property
    def mH(self) -> MatrixTorchish:  # noqa: N802
        return MatrixTorchish(self.matrix.mH)

    def with_values(self, values: Any) -> MatrixTorchish:
        return MatrixTorchish(self.matrix.with_values(array("values", values)))

    def to_dense(self) -> Any:
        return Torchish(self.matrix.to_dense())

    def diagonal(self) -> Any:
        return Torchish(self.matrix.diagonal())

    def __mul__(self, s: Any) -> MatrixTorchish:
        return MatrixTorchish(self.matrix * _scalar(s))

    __rmul__ = __mul__

    def __truediv__(self, s: Any) -> MatrixTorchish:
        return MatrixTorchish(self.matrix / _scalar(s))

    def __neg__(self) -> MatrixTorchish:
        return MatrixTorchish(-self.matrix)

    def __add__(self, X: Any) -> MatrixTorchish:
        return MatrixTorchish(self.matrix + _matrix("X", X))

    def __radd__(self, X: Any) -> MatrixTorchish:
        return MatrixTorchish(_matrix("X", X) + self.matrix)

    def __sub__(self, X: Any) -> MatrixTorchish:
        return MatrixTorchish(self.matrix - _matrix("X", X))

    def __rsub__(self, X: Any) -> MatrixTorchish:
        return MatrixTorchish(_matrix("X", X) - self.matrix)

    def __matmul__(self, x: Any) -> Any:
        if isinstance(x, MatrixTorchish | tsgu.SparseMatrix):
            return MatrixTorchish(self.matrix @ _matrix("X", x))
        return Torchish(self.matrix @ array("x", x))

    def __rmatmul__(self, A: Any) -> MatrixTorchish:
        return MatrixTorchish(_matrix("A", A) @ self.matrix)


F = TypeVar("F", bound=Callable[..., Any])


def stands_for(function: Any) -> Callable[[F], F]:
    """Enter a function in the table of torch2jax, in place of one of torch."""
    decorate: Callable[[F], F] = implements(function, Torchishify_output=False)
    return decorate


@stands_for(torch.sparse_coo_tensor)
def _sparse_coo_tensor(indices: Any, values: Any, size: Any = None, **kwargs: Any) -> SparseTorchish:
    check_options("torch.sparse_coo_tensor", kwargs, ("is_coalesced", "check_invariants"))
    indices, values = known_indices(indices), array("values", values, kwargs.get("dtype"))
    if size is None:
        if is_traced(indices):
            raise ValueError("size must be given to torch.sparse_coo_tensor where the indices are computed inside jit.")
        size = tuple(int(largest) + 1 for largest in indices.max(axis=1))
    return SparseTorchish(tsgu_jax.SparseMatrix.from_bcoo(BCOO((values, indices.T), shape=_shape(size))))


@stands_for(torch.sparse_csr_tensor)
def _sparse_csr_tensor(
    crow_indices: Any, col_indices: Any, values: Any, size: Any = None, **kwargs: Any
) -> SparseTorchish:
    check_options("torch.sparse_csr_tensor", kwargs, ("check_invariants",))
    crow, col = known_indices(crow_indices), known_indices(col_indices)
    values = array("values", values, kwargs.get("dtype"))
    if size is None:
        if is_traced(col):
            raise ValueError("size must be given to torch.sparse_csr_tensor where the indices are computed inside jit.")
        size = (crow.shape[0] - 1, int(col.max()) + 1)
    return SparseTorchish(tsgu_jax.SparseMatrix.from_bcoo(BCSR((values, col, crow), shape=_shape(size))))


@stands_for(tsgu.SparseMatrix.from_coo)
def _from_coo(row: Any, col: Any, values: Any, shape: Any) -> MatrixTorchish:
    return MatrixTorchish(
        tsgu_jax.SparseMatrix.from_coo(known_indices(row), known_indices(col), array("values", values), _shape(shape))
    )


@stands_for(tsgu.SparseMatrix)
def _sparse_matrix(values: Any, pattern: tsgu.Pattern) -> MatrixTorchish:
    zeros = values.new_zeros(pattern.nnz) if isinstance(values, Tensor) else torch.zeros(pattern.nnz)
    return MatrixTorchish(to_jax(tsgu.SparseMatrix(zeros, pattern)).with_values(array("values", values)))


@stands_for(tsgu.SparseMatrix.__matmul__)
def _product(A: tsgu.SparseMatrix, x: Any) -> Any:
    return MatrixTorchish(to_jax(A)) @ x


@stands_for(tsgu.SparseMatrix.__mul__)
def _scaled(A: tsgu.SparseMatrix, s: Any) -> MatrixTorchish:
    return MatrixTorchish(to_jax(A) * _scalar(s))


@stands_for(tsgu.SparseMatrix.__truediv__)
def _divided(A: tsgu.SparseMatrix, s: Any) -> MatrixTorchish:
    return MatrixTorchish(to_jax(A) / _scalar(s))


@stands_for(tsgu.Pattern.gather)
def _gather(pattern: tsgu.Pattern, given: Any) -> Any:
    return Torchish(pattern_to_jax(pattern).gather(array("given", given)))


@stands_for(tsgu.sparse_generic_solve)
def _sparse_generic_solve(
    A: Any, B: Any, solve: Any = None, transpose_solve: Any = None, *, verify: float | None = 1e-3, **kwargs: Any
) -> Any:
    x = tsgu_jax.solve(
        _matrix("A", A),
        array("B", B),
        _method("solve", solve),
        _method("transpose_solve", transpose_solve),
        verify=verify,
        **{name: _argument(name, value) for name, value in kwargs.items()},
    )
    return Torchish(x)


@stands_for(tsgu.sparse_triangular_solve)
def _sparse_triangular_solve(A: Any, B: Any, *args: Any, **kwargs: Any) -> Any:
    return Torchish(tsgu_jax.triangular_solve(_matrix("A", A), array("B", B), *args, **kwargs))


@stands_for(tsgu.sparse_generic_lstsq)
def _sparse_generic_lstsq(
    A: Any, B: Any, lstsq: Any = None, transpose_lstsq: Any = None, *, verify: float | None = 1e-3, **kwargs: Any
) -> Any:
    x = tsgu_jax.lstsq(
        _matrix("A", A),
        array("B", B),
        _method("lstsq", lstsq),
        _method("transpose_lstsq", transpose_lstsq),
        verify=verify,
        **{name: _argument(name, value) for name, value in kwargs.items()},
    )
    return Torchish(x)


def _method(name: str, solver: Any) -> Any:
    """The method of tsgu_jax with the name of one of tsgu."""
    if solver is None:
        return None
    if not isinstance(solver, torch_method.Method):
        kind = _kinds.name_of(solver)
        raise TypeError(
            f"{name} must be a method of tsgu inside torch2jax.t2j, such as tsgu.linear_cg, or None; got {kind}. "
            "To call another torch solver from JAX use tsgu_jax with tsgu_jax.interop.torch_solver."
        )
    return getattr(tsgu_jax, solver.name)


def _argument(name: str, value: Any) -> Any:
    """A keyword argument of a method, for JAX."""
    if isinstance(value, Torchish | Tensor | SparseTorchish | MatrixTorchish | tsgu.SparseMatrix):
        sparse = not isinstance(value, Torchish) and not (isinstance(value, Tensor) and value.layout == torch.strided)
        return _matrix(name, value) if sparse else array(name, value)
    if name == "M" and value is not None and not type(value).__module__.startswith("tsgu_jax"):
        raise TypeError(
            "M must be a matrix inside torch2jax.t2j, or a preconditioner of tsgu_jax; got "
            f"{type(value).__name__}, which JAX cannot call."
        )
    return value


def _matrix(name: str, x: Any) -> Any:
    if isinstance(x, SparseTorchish | MatrixTorchish):
        return x.matrix
    if isinstance(x, tsgu.SparseMatrix) or (isinstance(x, Tensor) and x.layout != torch.strided):
        with torch._C.DisableTorchFunction():  # an operator is called where torch2jax still listens
            return to_jax(x)
    raise TypeError(_wording.not_a(name, "a sparse tensor or a SparseMatrix", x))


def _scalar(s: Any) -> Any:
    """A number as it is, which has no dtype of its own."""
    return array("s", s) if isinstance(s, Torchish | Tensor) else s


def array(name: str, x: Any, dtype: torch.dtype | None = None) -> Array:
    if isinstance(x, SparseTorchish | MatrixTorchish):
        raise TypeError(_wording.layout(name, "dense (strided)", "sparse"))
    if isinstance(x, Torchish):
        value: Array = jnp.asarray(x.value)
    else:
        with torch._C.DisableTorchFunction():  # where a method calls, torch2jax still listens
            value = to_jax(x if isinstance(x, Tensor) else torch.as_tensor(x))
    return value if dtype is None else value.astype(str(dtype).removeprefix("torch."))


def known_indices(x: Any) -> Any:
    """Indices as a NumPy array where they are known, which a pattern can be built from inside jit."""
    if isinstance(x, Torchish):
        return x.value if is_traced(x.value) else np.asarray(x.value)
    return x.detach().cpu().numpy() if isinstance(x, Tensor) else np.asarray(x)


def _shape(size: Any) -> tuple[int, int]:
    m, n = size
    return int(m), int(n)


def check_options(name: str, options: dict[str, Any], ignored: tuple[str, ...]) -> None:
    """What means nothing in JAX is passed over only where it asks for nothing."""
    for option, value in options.items():
        if option not in (*ignored, "dtype") and value not in (None, False):
            raise TypeError(f"{name} has no counterpart of {option}={value!r} inside torch2jax.t2j.")


def _called_alone(method: torch_method.Method[Any]) -> Callable[..., Any]:
    return lambda A, B, **kwargs: _sparse_generic_solve(A, B, method, **kwargs)


def _minimised_alone(method: torch_method.Method[Any]) -> Callable[..., Any]:
    return lambda A, B, **kwargs: _sparse_generic_lstsq(A, B, method, **kwargs)


for _own in _registry.loaded("tsgu", _registry.METHODS).values():
    stands_for(_own)(_minimised_alone(_own) if _own.rectangular else _called_alone(_own))
