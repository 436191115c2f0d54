"""Algebraic multigrid: levels set up by PyAMG, cycles in torch."""

from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from tsgu._core.factors import _amg, _galerkin
from tsgu._core.pattern._symbolic import Symbolic
from tsgu._matrix import _products
from tsgu._matrix._pattern import Pattern
from tsgu._matrix._sparse_matrix import SparseMatrix
from tsgu.precond._base import Origin, Preconditioner, matrix, undifferentiated


@dataclass(frozen=True)
class Level:
    """The matrix of a level, the transfers to the next one, and the scale of the smoother.

    ``spectrum`` and ``paired``: see :class:`tsgu._core.factors._amg.Level`.
    """

    A: SparseMatrix
    P: SparseMatrix
    R: SparseMatrix
    scale: Tensor
    spectrum: _galerkin.Spectrum
    paired: bool

    def transposed(self) -> "Level":
        P, R = (self.P, self.R) if self.paired else (self.R.T, self.P.T)
        return replace(self, A=self.A.T, P=P, R=R)

    def to(self, dtype: torch.dtype) -> "Level":
        A, P, R = (matrix.to(dtype) for matrix in (self.A, self.P, self.R))
        return replace(self, A=A, P=P, R=R, scale=self.scale.to(dtype))


@dataclass(frozen=True)
class Made:
    """How the levels were made, and what is true of all of them. ``unit`` is what A was divided by."""

    kind: str
    degree: int
    complexity: float
    selfadjoint: bool
    narrow: bool
    """Whether the cycles are in single precision, whatever that of M."""
    unit: float = 1.0


class AMG(Preconditioner):
    """One V-cycle from zero, with the same smoother before and after the coarse correction."""

    _origin: Origin

    def __init__(self, made: Made, levels: list[Level], coarse: Tensor, dtype: torch.dtype, origin: Origin) -> None:
        super().__init__(origin.pattern.shape[0], dtype, coarse.device)
        self._made, self._levels, self._coarse, self._origin = made, levels, coarse, origin
        self._coefficients = _amg.smoothing(made.degree)
        self._csr = [[_products.csr(m.values, m.pattern) for m in (level.A, level.P, level.R)] for level in levels]

    def apply(self, v: Tensor) -> Tensor:
        if not v.numel():
            return v.clone()
        if not self._made.narrow:
            return self._cycle(0, v)
        size = _power_of_two(v)
        return self._cycle(0, (v / size).to(self._coarse.dtype)).to(v.dtype).mul_(size / self._made.unit)

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
        return _transposed(self)

    def to(self, dtype: torch.dtype) -> "AMG":
        return self if dtype == self.dtype else _converted(self, dtype)

    def _anew(self, A: SparseMatrix) -> "AMG":
        made, symbolic = self._made, A.pattern.symbolic
        values = _products.host(A.values)
        _amg.check_refreshed(values, symbolic, made.selfadjoint)
        double = sp.csr_array((_double(values), symbolic.col, symbolic.indptr), shape=symbolic.shape)
        sizes = [level.A.pattern.nnz for level in self._levels[1:]]
        spectra = [level.spectrum for level in self._levels]
        anew = _galerkin.anew(double, self._transfers, sizes, spectra, made.degree, made.selfadjoint)
        if made.narrow:
            made = replace(made, unit=_amg.unit(double))
            _amg.check_single(anew, made.unit)
        lift = partial(_lifted, self._coarse)
        values = [double.data, *anew.values][: len(self._levels)]
        levels = [
            replace(level, A=level.A.with_values(lift(a / made.unit)), scale=lift(scale * made.unit))
            for level, a, scale in zip(self._levels, values, anew.scales, strict=True)
        ]
        return AMG(made, levels, lift(anew.coarse * made.unit), self.dtype, self._origin)

    @cached_property
    def _transfers(self) -> list[_galerkin.Transfers]:
        """P and R of each level on the host."""
        return [(_on_host(level.P), _on_host(level.R)) for level in self._levels]

    def __reduce__(self) -> tuple[Any, ...]:
        return AMG, (self._made, self._levels, self._coarse, self.dtype, self._origin)

    def __repr__(self) -> str:
        made = self._made
        cycles = f", cycles in {self._coarse.dtype}" if made.narrow else ""
        return (
            f"<amg {made.kind}: {len(self._levels) + 1} levels, {made.complexity:.1f} entries per entry of A, "
            f"shape={self.shape}, dtype={self.dtype}, device={self.device}{cycles}>"
        )


@undifferentiated
def amg(
    A: Any,
    kind: str = "ruge_stuben",
    *,
    degree: int = 1,
    block: int = 1,
    dtype: torch.dtype | None = None,
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
    dtype : torch.dtype, optional
        torch.float32 for cycles in single precision inside a method in double precision, complex ones for a complex A:
        the same steps to 1e-8, for about half the memory. The levels are made in double precision all the same, A and
        the residuals are scaled by powers of two before they are rounded, and where an entry would be lost even so,
        the cycles are in double precision. By default that of A.
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
        As :func:`jacobi`; for an argument that the kind does not have, a complex matrix for a kind that is real, or a
        ``dtype`` that is wider than that of A, or neither float32 nor float64.

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
    wanted = _amg.check_dtype(None if dtype is None else _name(dtype), _name(A.dtype))
    if isinstance(pyamg_arguments.get("B"), Tensor):
        pyamg_arguments["B"] = pyamg_arguments["B"].detach().resolve_conj().cpu().numpy()
    found = _amg.build(A.values.cpu().numpy(), A.pattern.symbolic, kind, block, pyamg_arguments)
    unit = _amg.unit(found.A)
    narrow = wanted and _amg.fits_single(found)
    unit = unit if narrow else 1.0
    like = torch.empty(0, dtype=_single(A.dtype) if narrow else A.dtype, device=A.device)
    lift = partial(_lifted, like)

    def sparse(m: sp.csr_array, values: Any) -> SparseMatrix:
        return SparseMatrix(lift(values), Pattern._of(Symbolic(m.indptr, m.indices, m.shape), A.device))

    levels = [
        Level(
            SparseMatrix(lift(own.A.data / unit), A.pattern) if own.A is found.A else sparse(own.A, own.A.data / unit),
            sparse(own.P, own.P.data),
            sparse(own.R, own.R.data),
            lift(own.scale * unit),
            own.spectrum,
            own.paired,
        )
        for own in found.levels
    ]
    made = Made(kind, degree, found.complexity, found.hermitian, narrow, unit)
    return AMG(made, levels, lift(found.coarse * unit), A.dtype, Origin(A.pattern))


@undifferentiated
def _converted(M: AMG, dtype: torch.dtype) -> AMG:
    inner = _single(dtype) if M._made.narrow else dtype
    return AMG(M._made, [level.to(inner) for level in M._levels], M._coarse.to(inner), dtype, M._origin)


@undifferentiated
def _transposed(M: AMG) -> AMG:
    levels, coarse = M._levels, M._coarse
    if not M._made.selfadjoint or M.dtype.is_complex:
        levels, coarse = [level.transposed() for level in levels], coarse.mT.contiguous()
    return AMG(M._made, levels, coarse, M.dtype, M._origin.T)


def _lifted(like: Tensor, array: Any) -> Tensor:
    """An array as a tensor of the dtype and on the device of another."""
    return torch.from_numpy(array).to(like)


def _on_host(m: SparseMatrix) -> sp.csr_array:
    symbolic = m.pattern.symbolic
    return sp.csr_array((_double(_products.host(m.values)), symbolic.col, symbolic.indptr), shape=symbolic.shape)


def _double(values: Any) -> Any:
    return values.astype(np.result_type(values, np.float64), copy=False)


def _single(dtype: torch.dtype) -> torch.dtype:
    return torch.complex64 if dtype.is_complex else torch.float32


def _name(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.") if isinstance(dtype, torch.dtype) else repr(dtype)


def _power_of_two(v: Tensor) -> Tensor:
    """One for each column, so that its largest entry is between 1/2 and 1; 1 for zero."""
    largest = (torch.view_as_real(v).abs().amax(-1) if v.is_complex() else v.abs()).amax(0)
    exponent = torch.frexp(largest)[1]
    return torch.ldexp(torch.ones_like(largest), exponent)
