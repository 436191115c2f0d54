"""A rectangular matrix and its conjugate transpose, as what least squares multiplies with."""

import math
from functools import cached_property

import torch
from torch import Tensor

from tsgu._core.methods._least_squares import EQUILIBRATE
from tsgu._matrix._sparse_matrix import SparseMatrix
from tsgu._rule._operator import MatrixOperator


class RectangularOperator:
    """[A; damp I] D with a diagonal D of powers of two, and its conjugate transpose; both converted to CSR once.

    D brings the largest entry near one, so that no norm of a product overflows or vanishes. Where the norms of columns
    differ widely it brings each of them near one: then the tests of convergence look at every unknown, which they do
    not where one column is all that the norm of A knows, and LSMR needs fewer steps (van der Sluis 1969). What is
    minimised stays the same, with x = D x'; and A^H y = c becomes (A D)^H y = D c, with the same y.

    Attributes
    ----------
    scale : Tensor, shape (n,)
        The diagonal of D.
    rows, columns : int
        Size with damping: m + n and n.
    norm : float
        Frobenius norm of [A; damp I] D.
    """

    def __init__(self, matrix: SparseMatrix, damp: float) -> None:
        m, n = matrix.pattern.shape
        self.rows, self.columns, self._upper = m + n if damp else m, n, m
        self.scale, norms = _equilibration(matrix, damp)
        self.norm = torch.linalg.vector_norm(norms * self.scale).item()
        self._damp = damp * self.scale if damp else None
        self._matrix = matrix.with_values(matrix.values * self.scale.index_select(0, matrix.pattern.col))

    @cached_property
    def _forward(self) -> MatrixOperator:
        return MatrixOperator(self._matrix)

    @cached_property
    def _adjoint(self) -> MatrixOperator:
        transpose = self._matrix.T
        return MatrixOperator(transpose.with_values(torch.conj_physical(transpose.values)))

    def apply(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """A x, in the memory of ``out`` where that is given and nothing is damped."""
        if self._damp is None:
            return self._forward.apply(x, out)
        return torch.cat([self._forward.apply(x), _rows(self._damp, x) * x])

    def adjoint(self, u: Tensor, out: Tensor | None = None) -> Tensor:
        """A^H u."""
        if self._damp is None:
            return self._adjoint.apply(u, out)
        return self._adjoint.apply(u[: self._upper]).addcmul_(u[self._upper :], _rows(self._damp, u))

    def magnitude(self, x: Tensor) -> Tensor:
        """|A| |x|, which bounds what rounding does to A x."""
        upper = self._forward.magnitude(x)
        return upper if self._damp is None else torch.cat([upper, _rows(self._damp, x) * x.abs()])

    def adjoint_magnitude(self, u: Tensor) -> Tensor:
        """|A|^T |u|."""
        upper = self._adjoint.magnitude(u[: self._upper])
        return upper if self._damp is None else upper + _rows(self._damp, u) * u[self._upper :].abs()

    @cached_property
    def H(self) -> "ConjugateTranspose":  # noqa: N802 - the name of the literature
        return ConjugateTranspose(self)


class ConjugateTranspose:
    """The same with the roles exchanged."""

    def __init__(self, operator: RectangularOperator) -> None:
        self.norm = operator.norm
        self.rows, self.columns = operator.columns, operator.rows
        self.apply, self.adjoint = operator.adjoint, operator.apply
        self.magnitude, self.adjoint_magnitude = operator.adjoint_magnitude, operator.magnitude


Rectangular = RectangularOperator | ConjugateTranspose


def _equilibration(matrix: SparseMatrix, damp: float) -> tuple[Tensor, Tensor]:
    """The diagonal of D, and the 2-norms of the columns of [A; damp I] before scaling, as far as they can be held."""
    values, col, n = matrix.values.abs(), matrix.pattern.col, matrix.pattern.shape[1]
    largest = max(values.max().item() if values.numel() else 0.0, damp)
    top = math.ldexp(0.5, math.frexp(largest)[1]) if 0 < largest < math.inf else 1.0
    values, damp = values / top, damp / top
    # Sums of entries first: the square of an entry that is small beside others might vanish.
    sums = values.new_zeros(n).index_add_(0, col, values) + damp
    sums = torch.where(sums > 0, sums, 1.0)
    squares = values.new_zeros(n).index_add_(0, col, (values / sums.index_select(0, col)).square())
    norms = sums * (squares + (damp / sums).square()).sqrt()
    scale = torch.full_like(norms, 1 / top)
    if n and norms.max() > EQUILIBRATE * torch.where(norms > 0, norms, math.inf).min():
        exponent = torch.frexp(torch.where(norms > 0, norms, 0.5)).exponent
        scale = torch.ldexp(scale, -exponent)
    return scale, norms * top


def _rows(diagonal: Tensor, x: Tensor) -> Tensor:
    """A diagonal to multiply a vector or a block with."""
    diagonal = diagonal.to(x.dtype)
    return diagonal if x.dim() == 1 else diagonal.unsqueeze(1)
