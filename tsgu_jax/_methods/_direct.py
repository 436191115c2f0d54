"""Sparse LU factorisation, on the host."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.lax import stop_gradient
from jax.tree_util import register_dataclass

from tsgu._core.factors._factorisation import library_for
from tsgu._core.methods._options import default_rtol
from tsgu._core.report._log import recording
from tsgu_jax._matrix._products import Entries
from tsgu_jax._program import _factors, _host, _internals
from tsgu_jax._program._outcome import Outcome
from tsgu_jax._rule._frontend import call
from tsgu_jax._rule._method import Method, refuse_callable
from tsgu_jax.precond._factored import Factored


@partial(register_dataclass, data_fields=[], meta_fields=["keep", "library", "rtol"])
@dataclass(frozen=True)
class Direct:
    """A library, and the residual that calls for no refinement; None for that of every method."""

    keep: bool
    library: str
    rtol: float | None = None
    name = "direct"

    def prepare(self, matrix: Any) -> _DirectSystem:
        refuse_callable(self.name, matrix)
        values, entries = matrix.values, matrix.pattern.entries
        if not _internals.is_traced(values, entries.row, entries.col):
            arrays = (np.asarray(a) for a in (values, entries.row, entries.col))
            _factors.factors(self.library, self.rtol, entries.shape, *arrays)
        return _DirectSystem(values, entries, self.library, self.rtol)


@partial(register_dataclass, data_fields=["_values", "_entries"], meta_fields=["_library", "_rtol", "_flipped"])
@dataclass(frozen=True, eq=False)
class _DirectSystem:
    """One matrix, whose factors the host finds by its entries: see :mod:`tsgu_jax._program._store`."""

    _values: Array
    _entries: Entries
    _library: str
    _rtol: float | None
    _flipped: bool = False

    refusal = atol = evidence = None

    def solve(self, B: Array, x0: Array | None, atol: Any = None) -> tuple[Array, Outcome]:
        return self._solve(B, False)

    def solve_transpose(self, G: Array) -> tuple[Array, Outcome]:
        return self._solve(G, True)

    @property
    def T(self) -> _DirectSystem:  # noqa: N802
        """The same factors for the transpose."""
        return replace(self, _flipped=not self._flipped)

    @property
    def preconditioner(self) -> Factored:
        """The factors as ``M``."""
        values, entries = stop_gradient(self._values), self._entries
        return Factored(values, entries.row, entries.col, entries.shape[0], self._library, self._rtol, self._flipped)

    def _solve(self, B: Array, transposed: bool) -> tuple[Array, Outcome]:
        columns = B.shape[1:]
        real = jnp.finfo(B.dtype).dtype
        x, code, residual = _host.call(
            "direct",
            partial(
                _factors.solve, self._library, self._rtol, self._entries.shape, transposed != self._flipped, B.ndim
            ),
            (
                jax.ShapeDtypeStruct(B.shape, B.dtype),
                jax.ShapeDtypeStruct(columns, jnp.int32),
                jax.ShapeDtypeStruct(columns, real),
            ),
            self._values,
            self._entries.row,
            self._entries.col,
            B,
        )
        target = default_rtol(float(jnp.finfo(B.dtype).eps)) if self._rtol is None else self._rtol
        return x, Outcome(code, None, residual, None, jnp.asarray(target, real))


def _configure(arguments: Mapping[str, Any], n: int, dtype: Any, matrix: Any) -> Direct:
    return Direct(recording(), library_for(arguments.get("library")))


def _direct(
    A: Any,
    B: Array,
    *,
    library: str | None = None,
    on_failure: str | None = None,
    return_info: bool = False,
) -> Any:
    """Solve A X = B by sparse LU factorisation, once for the solution and every derivative.

    SuperLU orders by minimum degree of A + A^T on a symmetric pattern, with pivots preferred on the diagonal, and by
    COLAMD otherwise, or where the residual shows that the first was not good enough. PARDISO takes about the same time
    in two dimensions, half of it for a definite matrix, and a small part of it in three. It makes Cholesky factors
    where the values are those of a Hermitian definite matrix, symmetric ones where they are symmetric or Hermitian, and
    LU factors otherwise, in double precision whatever that of A. It replaces small pivots; where the residual shows
    that refinement did not make up for them, the next kind of factors is tried, in the end those of SuperLU.

    rslab factors symmetric matrices, complex ones too, as L D L^T, others as LU, and small or narrow ones column by
    column, in the precision of A; its analysis is kept with the pattern. What it refuses, or does not solve to rounding
    level, SuperLU factors. After a fork SuperLU does.

    PARDISO runs on the threads that MKL takes: as many as ``MKL_NUM_THREADS`` or ``OMP_NUM_THREADS`` say, else one for
    each core. rslab heeds ``OMP_NUM_THREADS`` too. Nothing here sets their number.

    The work is done on the host, also under ``jit``; under ``vmap`` a batch of B over one A is solved with one
    factorisation.

    Parameters
    ----------
    A : BCOO, BCSR or SparseMatrix, shape (n, n)
        float32, float64, complex64 or complex128; any nonsingular matrix.
    B : Array, shape (n,) or (n, k)
        Right-hand sides.
    library : {"superlu", "pardiso", "rslab"}, optional
        Who factors. By default PARDISO where pypardiso is installed, else rslab where that is, else SuperLU.
    on_failure : {"warn", "nan", "ignore"}, optional
        What is done where a column misses its target: see :func:`on_failure`.
    return_info : bool
        Whether to return ``(X, info)``, with the :class:`Info` of the forward solve.

    Returns
    -------
    Array
        X, with the shape and dtype of B; differentiable with respect to A and B, to any order, in both modes. The
        adjoint uses the same factors. NaN where A is singular, exactly or to working precision.

    Raises
    ------
    ImportError
        If the library asked for is not installed.
    ValueError
        If there is no such library.
    jax.errors.JaxRuntimeError
        If the factors would take more memory than is free, where the system tells, as Linux does.
    ValueError, TypeError
        As :func:`solve`.

    Warns
    -----
    ConvergenceWarning
        If A is singular, exactly or to working precision; if it is nearly so, and less than two digits of X are sure.

    References
    ----------
    J. W. Demmel, S. C. Eisenstat, J. R. Gilbert, X. S. Li and J. W. H. Liu, SIAM J. Matrix Anal. Appl. 20 (1999),
    720-755. O. Schenk and K. Gaertner, ETNA 23 (2006), 158-179.

    Examples
    --------
    >>> import jax.numpy as jnp, tsgu_jax
    >>> from jax.experimental.sparse import BCOO
    >>> A = BCOO.fromdense(jnp.array([[0.0, 2.0], [1.0, 1.0]]))
    >>> tsgu_jax.direct(A, jnp.array([2.0, 3.0]))
    Array([2., 1.], dtype=float32)
    """
    return call(direct, A, B, library=library, on_failure=on_failure, return_info=return_info)


_direct.__name__ = _direct.__qualname__ = "direct"

direct = Method(_direct, _configure, settings=None, hermitian=False)
