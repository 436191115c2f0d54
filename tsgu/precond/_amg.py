"""Algebraic multigrid: levels set up by PyAMG, cycles in torch."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import scipy.sparse as sp
import torch
from torch import Tensor

from tsgu._core.factors import _amg
from tsgu._core.pattern._symbolic import Symbolic
from tsgu._matrix import _products
from tsgu._matrix._pattern import Pattern
from tsgu._matrix._sparse_matrix import SparseMatrix
from tsgu.precond._base import Preconditioner, matrix, undifferentiated


@dataclass(frozen=True)
class Level:
    """The matrix of a level, the transfers to the next one, and the scale of the smoother."""

    A: SparseMatrix
    P: SparseMatrix
    R: SparseMatrix
    scale: Tensor
    paired: bool

    def transposed(self) -> "Level":
        P, R = (self.P, self.R) if self.paired else (self.R.T, self.P.T)
        return Level(self.A.T, P, R, self.scale, self.paired)

    def to(self, dtype: torch.dtype) -> "Level":
        A, P, R = (matrix.to(dtype) for matrix in (self.A, self.P, self.R))
        return Level(A, P, R, self.scale.to(dtype), self.paired)


class AMG(Preconditioner):
    """One V-cycle from zero, with the same smoother before and after the coarse correction."""

    def __init__(
        self, kind: str, levels: list[Level], coarse: Tensor, degree: int, complexity: float, selfadjoint: bool, n: int
    ) -> None:
        super().__init__(n, coarse.dtype, coarse.device)
        self._kind, self._levels, self._coarse = kind, levels, coarse
        self._degree, self._complexity, self._selfadjoint = degree, complexity, selfadjoint
        self._coefficients = _amg.smoothing(degree)
        self._csr = [[_products.csr(m.values, m.pattern) for m in (level.A, level.P, level.R)] for level in levels]

    def apply(self, v: Tensor) -> Tensor:
        return self._cycle(0, v)

    def _cycle(self, depth: int, b: Tensor) -> Tensor:
        if depth == len(self._levels):
            return self._coarse @ b
        A, P, R = self._csr[depth]
        scale = self._levels[depth].scale
        scale = scale if b.dim() == 1 else scale.unsqueeze(1)
        r = b.clone()
        x = self._smoothed(A, scale, r, True)
        _products.csr_add(x, P, self._cycle(depth + 1, _products.csr_product(R, r)), 1)
        r.copy_(b)
        _products.csr_add(r, A, x, -1)
        x += self._smoothed(A, scale, r, False)
        return x

    def _smoothed(self, A: Tensor, scale: Tensor, r: Tensor, again: bool) -> Tensor:
        """The correction of :func:`tsgu._core.factors._amg.smoothing` for r, which ``again`` brings up to date."""
        z = scale * r
        x = z.clone() if self._coefficients else z
        for a, b in self._coefficients:
            _products.csr_add(r, A, z, -1)
            z.mul_(a).addcmul_(scale, r, value=b)
            x += z
        if again:
            _products.csr_add(r, A, z, -1)
        return x

    @cached_property
    def T(self) -> "AMG":  # noqa: N802 - made once, for any number of adjoint solves
        if self._selfadjoint and not self.dtype.is_complex:
            return self
        return self._like([level.transposed() for level in self._levels], self._coarse.mT.contiguous())

    def to(self, dtype: torch.dtype) -> "AMG":
        if dtype == self.dtype:
            return self
        return self._like([level.to(dtype) for level in self._levels], self._coarse.to(dtype))

    def _like(self, levels: list[Level], coarse: Tensor) -> "AMG":
        return AMG(self._kind, levels, coarse, self._degree, self._complexity, self._selfadjoint, self.shape[0])

    def __reduce__(self) -> tuple[Any, ...]:
        parts = self._kind, self._levels, self._coarse, self._degree, self._complexity, self._selfadjoint, self.shape[0]
        return AMG, parts

    def __repr__(self) -> str:
        return (
            f"<amg {self._kind}: {len(self._levels) + 1} levels, {self._complexity:.1f} entries per entry of A, "
            f"shape={self.shape}, dtype={self.dtype}, device={self.device}>"
        )


@undifferentiated
def amg(
    A: Any,
    kind: str = "ruge_stuben",
    *,
    degree: int = 1,
    block: int = 1,
    **pyamg_arguments: Any,
) -> AMG:
    """Precondition by algebraic multigrid: levels set up by PyAMG, applied as one symmetric V-cycle.

    For elliptic problems, whose solution then takes about as many steps on a fine grid as on a coarse one. A cycle
    consists of products alone: the smoother is a polynomial in D^-1 A, the same before and after the correction from
    the coarser level, so that M is Hermitian positive definite if A is, and fit for :data:`linear_cg` and
    :data:`minres`. For other matrices, with :data:`bicgstab` and :data:`gmres`.

    Parameters
    ----------
    A : Tensor (sparse COO or CSR) or SparseMatrix, shape (n, n)
        float32, float64, complex64 or complex128; complex for "smoothed_aggregation" and "root_node". On any device,
        and detached, as for :func:`jacobi`. The levels are set up on the host, in double precision.
    kind : str, optional
        "ruge_stuben": classical coarsening, for M-matrices such as those of finite differences. "smoothed_aggregation"
        and "root_node": fewer entries and more steps; for elasticity and other systems give the near-null space as
        ``B``. "pairwise": the cheapest levels.
    degree : int, optional
        Degree of the smoother. 1 is damped Jacobi, and on Poisson problems the fastest; more degrees take fewer steps
        of more products, and are more robust.
    block : int, optional
        Unknowns per node, numbered together, for all kinds but "ruge_stuben".
    **pyamg_arguments
        Of PyAMG's ``ruge_stuben_solver``, ``smoothed_aggregation_solver``, ``rootnode_solver`` or ``pairwise_solver``,
        such as ``strength``, ``CF``, ``aggregate``, ``max_levels``, or ``B``, an array of shape (n, modes). Not those
        that choose a smoother. ``max_coarse``, the size at which coarsening stops, is 200 by default, and ``symmetry``
        as A is.

    Returns
    -------
    Preconditioner
        To be given as ``M``; callable on tensors (n,) and (n, k), with ``.T``. Its text says how many levels
        it has and how many entries they store.

    Raises
    ------
    ImportError
        If PyAMG is not installed.
    ValueError
        As :func:`jacobi`; if an argument is out of range, or the coarsest level has more than 4000 unknowns; if
        interpolation divides by zero, as it may for an indefinite A.
    TypeError
        As :func:`jacobi`; for an argument that the kind does not have, or a complex matrix for a kind that is real.

    Notes
    -----
    The smoother is the Chebyshev polynomial of the fourth kind. It needs an upper bound of the eigenvalues of D^-1 A,
    for which a Hermitian matrix takes a dozen Lanczos steps and any other its Gershgorin bound. The coarsest matrix is
    inverted, by a pseudo-inverse where it is singular. The same matrix gives the same levels: PyAMG draws from NumPy's
    global random numbers, which are seeded for the set-up and put back.

    References
    ----------
    J. W. Ruge and K. Stueben, in *Multigrid Methods*, SIAM 1987, 73-130; P. Vanek, J. Mandel and M. Brezina, Computing
    56 (1996), 179-196; N. Bell, L. N. Olson, J. Schroder and B. Southworth, J. Open Source Softw. 8 (2023), 5495;
    J. Lottes, Numer. Linear Algebra Appl. 30 (2023), e2518.

    Examples
    --------
    >>> import torch, tsgu
    >>> n = 1000
    >>> i = torch.arange(n)
    >>> row, col = torch.cat([i, i[1:], i[:-1]]), torch.cat([i, i[:-1], i[1:]])
    >>> values = torch.cat([torch.full((n,), 2.0), -torch.ones(2 * n - 2)]).double()
    >>> A = tsgu.SparseMatrix.from_coo(row, col, values, (n, n))
    >>> M = tsgu.precond.amg(A)
    >>> M
    <amg ruge_stuben: 4 levels, 1.9 entries per entry of A, shape=(1000, 1000), dtype=torch.float64, device=cpu>
    >>> with tsgu.record() as log:
    ...     x = tsgu.linear_cg(A, torch.ones(n, dtype=torch.float64), M=M)
    >>> log[0].iterations < 10
    True
    """
    degree = _amg.check_degree(degree)
    A = matrix(A)
    if isinstance(pyamg_arguments.get("B"), Tensor):
        pyamg_arguments["B"] = pyamg_arguments["B"].detach().resolve_conj().cpu().numpy()
    found = _amg.build(A.values.cpu().numpy(), A.pattern.symbolic, kind, block, pyamg_arguments)
    lift: Callable[[Any], Tensor] = lambda array: torch.from_numpy(array).to(A.device, A.dtype)  # noqa: E731
    levels = [
        Level(_lifted(own.A, A), _lifted(own.P, A), _lifted(own.R, A), lift(own.scale), own.paired)
        for own in found.levels
    ]
    return AMG(kind, levels, lift(found.coarse), degree, found.complexity, found.hermitian, A.shape[0])


def _lifted(m: sp.csr_array, like: SparseMatrix) -> SparseMatrix:
    pattern = Pattern._of(Symbolic(m.indptr, m.indices, m.shape), like.device)
    return SparseMatrix(torch.from_numpy(m.data).to(like.device, like.dtype), pattern)
