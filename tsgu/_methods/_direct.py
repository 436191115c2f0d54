"""Sparse LU factorisation."""

import copy
import math
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tsgu._core.factors._batch import Factorisations
from tsgu._core.factors._factorisation import Factorisation, library_for
from tsgu._core.factors._superlu import SingularMatrixError
from tsgu._core.methods._options import default_rtol
from tsgu._core.report import _log, _matrix_words, _status, _wording
from tsgu._core.report._status import ColumnInfo
from tsgu._matrix import _products
from tsgu._matrix._pattern import Pattern
from tsgu._matrix._sparse_matrix import SparseMatrix
from tsgu._rule._frontend import call
from tsgu._rule._method import Method
from tsgu.precond._factored import Factored


class DirectSystem:
    """Factors of one matrix, and reported solves with them.

    A singular matrix is an error, but NaN and a report where it is the member of a batch.
    """

    def __init__(self, A: Any, arguments: Mapping[str, Any]) -> None:
        if not isinstance(A, SparseMatrix):
            raise TypeError(_wording.not_a("A", "a sparse tensor or a SparseMatrix for direct, which factors it", A))
        library, rtol = library_for(arguments.get("library")), arguments.get("rtol")
        self._rtol = default_rtol(torch.finfo(A.dtype).eps) if rtol is None else rtol
        began = time.perf_counter()
        self._factors: Factorisation | None = None
        try:
            values, threads = _products.host(A.values), torch.get_num_threads()
            self._factors = Factorisation(A.pattern.symbolic, values, library, rtol, threads)
        except SingularMatrixError as error:
            if not _log.goes_on():
                raise _singular(error) from error
        self._factoring = time.perf_counter() - began
        self._flipped = False

    def solve(self, B: Tensor, x0: Tensor | None = None, primal: bool = True) -> Tensor:
        return self._solve(B, False)

    def solve_transpose(self, G: Tensor) -> Tensor:
        return self._solve(G, True)

    @property
    def T(self) -> "DirectSystem":  # noqa: N802
        """The same factors for the transpose."""
        other = copy.copy(self)
        other._flipped, other._factoring = not self._flipped, 0.0
        return other

    def preconditioner(self, dtype: torch.dtype, device: torch.device) -> Factored:
        """The factors as ``M``, for a matrix of this dtype and on this device."""
        assert self._factors is not None  # else it was an error to make them
        try:
            self._factors.settle()
        except SingularMatrixError as error:
            raise _singular(error) from error
        return Factored(self._factors, dtype, device, self._flipped)

    def _solve(self, B: Tensor, transposed: bool) -> Tensor:
        began = time.perf_counter()
        b = _products.host(B)
        x, columns = self._solved(b, transposed)
        seconds, self._factoring = self._factoring + time.perf_counter() - began, 0.0  # counted once
        info = _status.summarize("direct", transposed, columns, seconds)
        _log.report(info, self._rtol)
        return torch.from_numpy(x).to(B)

    def _solved(self, b: Any, transposed: bool) -> tuple[Any, list[ColumnInfo]]:
        if self._factors is not None:
            try:
                return self._factors.solve(b, transposed != self._flipped)
            except SingularMatrixError as error:
                if not _log.goes_on():
                    raise _singular(error) from error
        return np.full_like(b, np.nan), [ColumnInfo("singular", None, math.nan)] * (1 if b.ndim == 1 else b.shape[1])


class DirectBatch:
    """Factors of a batch of matrices on one pattern, and solves with them, reported member by member."""

    def __init__(self, pattern: Pattern, values: Tensor, arguments: Mapping[str, Any]) -> None:
        library, rtol = library_for(arguments.get("library")), arguments.get("rtol")
        self._rtol = default_rtol(torch.finfo(values.dtype).eps) if rtol is None else rtol
        began = time.perf_counter()
        blocks = pattern._blocks(values.shape[0]).symbolic
        given, threads = _products.host(values), torch.get_num_threads()
        self._factors = Factorisations(pattern.symbolic, blocks, given, library, rtol, threads)
        self._factoring = time.perf_counter() - began

    def solve(self, B: Tensor, x0: Tensor | None = None, primal: bool = True) -> Tensor:
        return self._solve(B, False)

    def solve_transpose(self, G: Tensor) -> Tensor:
        return self._solve(G, True)

    def _solve(self, B: Tensor, transposed: bool) -> Tensor:
        began = time.perf_counter()
        b = _products.host(B)
        x, residual, told = self._factors.solve(b.reshape(*b.shape[:2], -1), transposed)
        seconds, self._factoring = self._factoring + time.perf_counter() - began, 0.0
        count = len(b)
        for index in range(count) if _log.listening() else told:
            columns = told.get(index) or [ColumnInfo("converged", None, r) for r in residual[index].tolist()]
            with _log.of_member((index, count)):
                _log.report(_status.summarize("direct", transposed, columns, seconds / count), self._rtol)
        return torch.from_numpy(x.reshape(b.shape)).to(B)


def _singular(error: SingularMatrixError) -> Exception:
    message = _matrix_words.singular(str(error))
    return torch.linalg.LinAlgError(message)  # type: ignore[attr-defined]  # exported, but not in torch's __all__


def _direct(
    A: Any,
    B: Tensor,
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

    rslab runs on as many threads as ``torch.set_num_threads`` says, no more than the process has cores, and on one for
    small or narrow matrices. PARDISO runs on those that MKL takes: as many as ``MKL_NUM_THREADS`` or
    ``OMP_NUM_THREADS`` say, else one for each core, or as many as torch's where MKL shares its OpenMP library. Nothing
    here sets their number.

    A batch, of a :class:`SparseMatrix` or under ``torch.func.vmap``, is analysed once and factored in one pass, whose
    factors serve the adjoint. From 4000 entries in a matrix on, its members are shared out among as many threads as
    torch has, one a core at most.

    A tensor on an accelerator is factored on the host.

    Parameters
    ----------
    A : Tensor (sparse COO or CSR) or SparseMatrix, shape (n, n)
        float32, float64, complex64 or complex128; any nonsingular matrix.
    B : Tensor, shape (n,) or (n, k)
        Right-hand sides.
    library : {"superlu", "pardiso", "rslab"}, optional
        Who factors. By default PARDISO where pypardiso is installed, else rslab where that is, else SuperLU.
    on_failure : {"warn", "nan", "ignore"}, optional
        What is done where a column misses its target: see :func:`on_failure`.
    return_info : bool
        Whether to return ``(X, info)``, with the :class:`Info` of the forward solve.

    Returns
    -------
    Tensor
        X, with the shape, dtype and device of B; differentiable with respect to A and B, to any order (a sparse tensor
        A: to second order, in reverse mode). The adjoint uses the same factors.

    Raises
    ------
    torch.linalg.LinAlgError
        If A is singular, exactly or to working precision, whatever B. Not for the member of a batch: its X is NaN.
    ImportError
        If the library asked for is not installed.
    ValueError
        If there is no such library.
    MemoryError
        If the factors would take more memory than is free, where the system tells, as Linux does.
    ValueError, TypeError
        As :func:`sparse_generic_solve`.

    Warns
    -----
    ConvergenceWarning
        If A is nearly singular, so that less than two digits of X are sure; if the member of a batch is singular.

    References
    ----------
    J. W. Demmel, S. C. Eisenstat, J. R. Gilbert, X. S. Li and J. W. H. Liu, SIAM J. Matrix Anal. Appl. 20 (1999),
    720-755. O. Schenk and K. Gaertner, ETNA 23 (2006), 158-179.

    Examples
    --------
    >>> import torch, tsgu
    >>> A = torch.tensor([[0.0, 2.0], [1.0, 1.0]], dtype=torch.float64).to_sparse()
    >>> tsgu.direct(A, torch.tensor([2.0, 3.0], dtype=torch.float64))
    tensor([2., 1.], dtype=torch.float64)
    """
    return call(direct, A, B, library=library, on_failure=on_failure, return_info=return_info)


_direct.__name__ = _direct.__qualname__ = "direct"

direct = Method(_direct, DirectSystem, settings=None, hermitian=False, prepare_batch=DirectBatch)
