"""The inverse of the diagonal, or of diagonal blocks."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.tree_util import register_dataclass

from tsgu._core.factors import _amg, _blocks
from tsgu_jax._matrix._sparse_matrix import SparseMatrix
from tsgu_jax._program import _internals
from tsgu_jax._program._promotion import as_usual
from tsgu_jax.precond._base import Apply, Origin, Preconditioner, is_traced, matrix


@partial(register_dataclass, data_fields=["inverse", "origin"], meta_fields=[])
@dataclass(frozen=True, eq=False, repr=False)
class Jacobi(Preconditioner):
    """M = D^-1."""

    inverse: Array
    origin: Origin

    @property
    def shape(self) -> tuple[int, int]:
        return self.inverse.shape[0], self.inverse.shape[0]

    @property
    def dtype(self) -> Any:
        return self.inverse.dtype

    @property
    def apply(self) -> Apply:
        return lambda v: self.inverse * v if v.ndim == 1 else self.inverse[:, None] * v

    @property
    def T(self) -> Jacobi:  # noqa: N802
        return Jacobi(self.inverse, self.origin.T)

    def _anew(self, A: SparseMatrix) -> Jacobi:
        return jacobi(A)


@partial(register_dataclass, data_fields=["inverses", "origin"], meta_fields=[])
@dataclass(frozen=True, eq=False, repr=False)
class BlockJacobi(Preconditioner):
    """The inverses of the blocks, (blocks, block, block), the last one padded by the identity."""

    inverses: Array
    origin: Origin

    @property
    def shape(self) -> tuple[int, int]:
        return self.origin.n, self.origin.n

    @property
    def dtype(self) -> Any:
        return self.inverses.dtype

    @property
    def apply(self) -> Apply:
        count, block, _ = self.inverses.shape

        def apply(v: Array) -> Array:
            padded = jnp.pad(v, ((0, count * block - self.origin.n), *((0, 0) for _ in v.shape[1:])))
            parts = padded.reshape(count, block, *v.shape[1:])
            product = jnp.einsum("bij,bj...->bi...", self.inverses, parts, precision="highest")
            return product.reshape(padded.shape)[: self.origin.n]

        return apply

    @property
    def T(self) -> BlockJacobi:  # noqa: N802
        return BlockJacobi(self.inverses.mT, self.origin.T)

    def _anew(self, A: SparseMatrix) -> BlockJacobi:
        return block_jacobi(A, self.inverses.shape[1])

    def __repr__(self) -> str:
        shape = getattr(self.inverses, "shape", (None, None))
        return f"<blockjacobi: {self._text}, block={shape[1]}>"


@as_usual
def jacobi(A: Any) -> Jacobi:
    """Precondition by the inverse of the diagonal of A.

    The least that can be done, and enough where the equations are of different scale. Definite if A is; where the
    diagonal has entries of both signs, not for :data:`linear_cg` and :data:`minres`.

    Parameters
    ----------
    A : BCOO, BCSR or SparseMatrix, shape (n, n)
        float32, float64, complex64 or complex128; may be traced. No gradient flows into it: the solution does not
        depend on a preconditioner.

    Returns
    -------
    Preconditioner
        To be given as ``M``; a pytree, callable on arrays (n,) and (n, k), with ``.T``.

    Raises
    ------
    ValueError
        If A is not a sparse matrix, not square, a batch, or, where it is concrete, not finite or with a diagonal entry
        that is zero or not stored. In a traced matrix such an entry makes the solve break down, which is reported.
    TypeError
        If A is dense or of another dtype.

    References
    ----------
    Y. Saad, *Iterative Methods for Sparse Linear Systems*, 2nd ed., SIAM 2003, section 10.2.

    Examples
    --------
    >>> import jax.numpy as jnp, tsgu_jax
    >>> from jax.experimental.sparse import BCOO
    >>> A = BCOO.fromdense(jnp.array([[4.0, 1.0], [1.0, 2.0]]))
    >>> tsgu_jax.precond.jacobi(A)(jnp.ones(2))
    Array([0.25, 0.5 ], dtype=float32)
    """
    A = matrix(A)
    n, row, col = A.shape[0], A.pattern.row, A.pattern.col
    traced = is_traced(A)
    with _eagerly(traced):
        place = jnp.where(row == col, row, n)
        diagonal = jnp.zeros(n, A.dtype).at[place].add(A.values, mode="drop")
        inverse = 1 / diagonal
    if not traced:
        _amg.check_diagonal("jacobi", np.asarray(diagonal))
    return Jacobi(inverse, Origin.of(A))


@as_usual
def block_jacobi(A: Any, block: int) -> BlockJacobi:
    """Precondition by the inverses of the diagonal blocks of A, which are dense.

    For several unknowns per node that are numbered together, with ``block`` their number. Definite if A is.

    Parameters
    ----------
    A : BCOO, BCSR or SparseMatrix, shape (n, n)
        float32, float64, complex64 or complex128; may be traced. No gradient flows into it, as for :func:`jacobi`.
    block : int
        Rows of a block, at least 1. Where it does not divide n, the last block is smaller. Memory for n ``block``
        entries is needed.

    Returns
    -------
    Preconditioner
        To be given as ``M``; a pytree, callable on arrays (n,) and (n, k), with ``.T``.

    Raises
    ------
    ValueError
        As :func:`jacobi`; if ``block`` is out of range or, where A is concrete, a block singular to working precision.
    TypeError
        As :func:`jacobi`.

    References
    ----------
    Y. Saad, *Iterative Methods for Sparse Linear Systems*, 2nd ed., SIAM 2003, section 4.1.1.

    Examples
    --------
    >>> import jax.numpy as jnp, tsgu_jax
    >>> from jax.experimental.sparse import BCOO
    >>> A = BCOO.fromdense(jnp.array([[0.0, 2.0, 0.0], [1.0, 0.0, 1.0], [0.0, 0.0, 4.0]]))
    >>> tsgu_jax.precond.block_jacobi(A, 2)(jnp.array([2.0, 3.0, 4.0]))
    Array([3., 1., 1.], dtype=float32)
    """
    size = _blocks.check_size(block)
    A = matrix(A)
    n = A.shape[0]
    size = max(1, min(size, n))
    traced = is_traced(A)
    with _eagerly(traced):
        blocks = _blocks_of(A, size)
        inverses = jnp.linalg.inv(blocks)
    if not traced:
        _blocks.check_inverses(np.asarray(blocks), np.asarray(inverses), n)
    return BlockJacobi(inverses, Origin.of(A))


def _blocks_of(A: SparseMatrix, size: int) -> Array:
    n, row, col = A.shape[0], A.pattern.row, A.pattern.col
    count = _blocks.count(n, size)
    # An entry past the end, the padding of a traced BCOO, falls out, or into the padding that is set below.
    place = jnp.where(row // size == col // size, row // size, count), row % size, col % size
    blocks = jnp.zeros((count, size, size), A.dtype).at[place].add(A.values, mode="drop")
    padding = np.arange(n, count * size)
    return blocks.at[padding // size, padding % size, padding % size].set(1)


def _eagerly(traced: bool) -> Any:
    """Concrete values stay concrete inside ``jit`` too, where an operation on them would be traced."""
    return nullcontext() if traced else _internals.concretely()
