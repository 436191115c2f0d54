"""The inverse of the diagonal, or of diagonal blocks."""

from typing import Any

import torch
from torch import Tensor

from tsgu._core.factors import _amg, _blocks
from tsgu._matrix._sparse_matrix import SparseMatrix
from tsgu.precond._base import Origin, Preconditioner, matrix, undifferentiated


class Jacobi(Preconditioner):
    """M = D^-1."""

    _origin: Origin

    def __init__(self, inverse: Tensor, origin: Origin) -> None:
        super().__init__(inverse.shape[0], inverse.dtype, inverse.device)
        self._inverse, self._origin = inverse, origin

    def apply(self, v: Tensor) -> Tensor:
        return self._inverse * v if v.dim() == 1 else self._inverse.unsqueeze(1) * v

    @property
    def T(self) -> "Jacobi":  # noqa: N802
        return Jacobi(self._inverse, self._origin.T)

    def to(self, dtype: torch.dtype) -> "Jacobi":
        return self if dtype == self.dtype else Jacobi(self._inverse.to(dtype), self._origin)

    def _anew(self, A: SparseMatrix) -> "Jacobi":
        return jacobi(A)


class BlockJacobi(Preconditioner):
    """The inverses of the blocks, (blocks, block, block), the last one padded by the identity."""

    _origin: Origin

    def __init__(self, inverses: Tensor, origin: Origin) -> None:
        super().__init__(origin.pattern.shape[0], inverses.dtype, inverses.device)
        self._inverses, self._origin = inverses, origin

    def apply(self, v: Tensor) -> Tensor:
        count, block, _ = self._inverses.shape
        n, columns = v.shape[0], v.shape[1:].numel()
        padded = v.reshape(n, columns)
        if count * block != n:
            padded = torch.cat([padded, padded.new_zeros(count * block - n, columns)])
        product = torch.bmm(self._inverses, padded.reshape(count, block, columns))
        return product.reshape(count * block, columns)[:n].reshape(v.shape)

    @property
    def T(self) -> "BlockJacobi":  # noqa: N802
        return BlockJacobi(self._inverses.mT.contiguous(), self._origin.T)

    def to(self, dtype: torch.dtype) -> "BlockJacobi":
        return self if dtype == self.dtype else BlockJacobi(self._inverses.to(dtype), self._origin)

    def _anew(self, A: SparseMatrix) -> "BlockJacobi":
        return block_jacobi(A, self._inverses.shape[1])

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]}, block={self._inverses.shape[1]}>"


@undifferentiated
def jacobi(A: Any) -> Jacobi:
    """Precondition by the inverse of the diagonal of A.

    The least that can be done, and enough where the equations are of different scale. Definite if A is; where the
    diagonal has entries of both signs, not for :data:`linear_cg` and :data:`minres`.

    Parameters
    ----------
    A : Tensor (sparse COO or CSR) or SparseMatrix, shape (n, n)
        float32, float64, complex64 or complex128, on any device. Detached: nothing is differentiated with respect to a
        preconditioner, on which the solution does not depend.

    Returns
    -------
    Preconditioner
        To be given as ``M``; callable on tensors (n,) and (n, k), with ``.T``.

    Raises
    ------
    ValueError
        If A is not a sparse matrix, not square, a batch, or not finite; if a diagonal entry is zero or not stored.
    TypeError
        If A is dense or of another dtype, or ``torch.func.vmap`` maps over its values.

    References
    ----------
    Y. Saad, *Iterative Methods for Sparse Linear Systems*, 2nd ed., SIAM 2003, section 10.2.

    Examples
    --------
    >>> import torch, tsgu
    >>> A = torch.tensor([[4.0, 1.0], [1.0, 2.0]]).to_sparse()
    >>> tsgu.precond.jacobi(A)(torch.ones(2))
    tensor([0.2500, 0.5000])
    """
    A = matrix(A)
    place = torch.nonzero(A.pattern.row == A.pattern.col).squeeze(1)
    diagonal = A.values.new_zeros(A.shape[0])
    diagonal[A.pattern.row[place].long()] = A.values[place]
    _amg.check_diagonal("jacobi", diagonal.cpu().numpy())
    return Jacobi(1 / diagonal, Origin(A.pattern))


@undifferentiated
def block_jacobi(A: Any, block: int) -> BlockJacobi:
    """Precondition by the inverses of the diagonal blocks of A, which are dense.

    For several unknowns per node that are numbered together, with ``block`` their number. Definite if A is.

    Parameters
    ----------
    A : Tensor (sparse COO or CSR) or SparseMatrix, shape (n, n)
        float32, float64, complex64 or complex128, on any device. Detached, as for :func:`jacobi`.
    block : int
        Rows of a block, at least 1. Where it does not divide n, the last block is smaller. Memory for n ``block``
        entries is needed.

    Returns
    -------
    Preconditioner
        To be given as ``M``; callable on tensors (n,) and (n, k), with ``.T``.

    Raises
    ------
    ValueError
        As :func:`jacobi`; if ``block`` is out of range, or a block singular to working precision.
    TypeError
        As :func:`jacobi`.

    References
    ----------
    Y. Saad, *Iterative Methods for Sparse Linear Systems*, 2nd ed., SIAM 2003, section 4.1.1.

    Examples
    --------
    >>> import torch, tsgu
    >>> A = torch.tensor([[0.0, 2.0, 0.0], [1.0, 0.0, 1.0], [0.0, 0.0, 4.0]]).to_sparse()
    >>> tsgu.precond.block_jacobi(A, 2)(torch.tensor([2.0, 3.0, 4.0]))
    tensor([3., 1., 1.])
    """
    size = _blocks.check_size(block)
    A = matrix(A)
    n = A.shape[0]
    size = max(1, min(size, n))
    count = _blocks.count(n, size)
    row, col = A.pattern.row.long(), A.pattern.col.long()
    inside = row // size == col // size
    row, col, values = row[inside], col[inside], A.values[inside]
    blocks = values.new_zeros(count, size, size)
    blocks[row // size, row % size, col % size] = values
    padding = torch.arange(n, count * size, device=values.device)
    blocks[padding // size, padding % size, padding % size] = 1
    inverses = torch.linalg.inv_ex(blocks)[0]
    _blocks.check_inverses(blocks.cpu().numpy(), inverses.cpu().numpy(), n)
    return BlockJacobi(inverses, Origin(A.pattern))
