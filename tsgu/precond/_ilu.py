"""Incomplete LU factors."""

from typing import Any

import torch
from torch import Tensor

from tsgu._core.factors import _ilu
from tsgu._core.factors._ilu import IncompleteFactors
from tsgu._matrix._sparse_matrix import SparseMatrix
from tsgu.precond._base import Origin, Preconditioner, matrix, undifferentiated


class ILU(Preconditioner):
    """Triangular solves on the host with factors that the transpose shares."""

    _origin: Origin

    def __init__(
        self, factors: IncompleteFactors, dtype: torch.dtype, origin: Origin, drop_tol: float, fill_factor: float
    ) -> None:
        super().__init__(origin.pattern.shape[0], dtype, origin.pattern.device)
        self._factors, self._origin = factors, origin
        self._options = drop_tol, fill_factor

    def apply(self, v: Tensor) -> Tensor:
        return torch.from_numpy(self._factors.precondition(v.cpu().numpy(), self._origin.transposed)).to(v)

    @property
    def T(self) -> "ILU":  # noqa: N802
        return ILU(self._factors, self.dtype, self._origin.T, *self._options)

    def to(self, dtype: torch.dtype) -> "ILU":
        return self if dtype == self.dtype else ILU(self._factors, dtype, self._origin, *self._options)

    def _anew(self, A: SparseMatrix) -> "ILU":
        drop_tol, fill_factor = self._options
        return ilu(A, drop_tol=drop_tol, fill_factor=fill_factor)

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]}, nnz={self._factors.nnz}>"


@undifferentiated
def ilu(A: Any, *, drop_tol: float = 1e-4, fill_factor: float = 10.0) -> ILU:
    """Precondition by incomplete LU factors of A (SuperLU).

    For general matrices, with :data:`bicgstab` and :data:`gmres`: the rows are exchanged and entries dropped, so that M
    is not symmetric where A is. The factors are made and applied on the host; a tensor on an accelerator is copied
    there and back in every step.

    Parameters
    ----------
    A : Tensor (sparse COO or CSR) or SparseMatrix, shape (n, n)
        float32, float64, complex64 or complex128, on any device. Detached, as for :func:`jacobi`.
    drop_tol : float, optional
        Entries smaller than this, relative to their column, are dropped; 0 to 1. 0 keeps all that ``fill_factor`` has
        room for.
    fill_factor : float, optional
        Largest ratio of entries in the factors to entries in A, at least 1.

    Returns
    -------
    Preconditioner
        To be given as ``M``; callable on tensors (n,) and (n, k), with ``.T``, which shares the factors.

    Raises
    ------
    ValueError
        If A is not a sparse matrix, not square, a batch, or not finite; if an argument is out of range; if a factor is
        exactly singular.
    TypeError
        If A is dense or of another dtype, or ``torch.func.vmap`` maps over its values.

    References
    ----------
    X. S. Li and M. Shao, ACM Trans. Math. Softw. 37 (2011), article 43.

    Examples
    --------
    >>> import torch, tsgu
    >>> A = torch.tensor([[4.0, 1.0], [0.0, 2.0]]).to_sparse()
    >>> tsgu.precond.ilu(A)(torch.tensor([6.0, 4.0]))
    tensor([1., 2.])
    """
    drop_tol, fill_factor = _ilu.check_options(drop_tol, fill_factor)
    A = matrix(A)
    factors = IncompleteFactors(A.values.cpu().numpy(), A.pattern.symbolic, drop_tol, fill_factor)
    return ILU(factors, A.dtype, Origin(A.pattern), drop_tol, fill_factor)
