"""Algebraic multigrid: levels set up by PyAMG on the host, cycles compiled."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.tree_util import register_dataclass

from tsgu._core.factors import _amg
from tsgu._core.pattern._symbolic import Symbolic
from tsgu_jax._matrix import _products
from tsgu_jax._matrix._columns import power_of_two
from tsgu_jax._matrix._products import Operand
from tsgu_jax._matrix._sparse_matrix import SparseMatrix
from tsgu_jax._program import _host, _internals, _mesh
from tsgu_jax.precond import _levels
from tsgu_jax.precond._base import Apply, Origin, Preconditioner, is_traced, matrix

_UNROLL = 2
"""Where the solvers unroll further: a cycle has a dozen products, each in two places of a method, to be compiled."""


@partial(
    register_dataclass,
    data_fields=["A", "P", "R", "scale", "A_transposed", "P_transposed", "R_transposed"],
    meta_fields=[],
)
@dataclass(frozen=True, eq=False)
class Level:
    """The matrix of a level, the transfers to the next one, and the scale of the smoother.

    A transpose has a layout of its own. None where it is not needed: all for a cycle that is its own adjoint, those of
    the transfers where one is the transpose of the other.
    """

    A: Operand
    P: Operand
    R: Operand
    scale: Array
    A_transposed: Operand | None
    P_transposed: Operand | None
    R_transposed: Operand | None

    @property
    def transposed(self) -> Level:
        assert self.A_transposed is not None
        level = replace(self, A=self.A_transposed, A_transposed=self.A)
        if self.P_transposed is None or self.R_transposed is None:
            return level
        P, R = self.R_transposed, self.P_transposed
        return replace(level, P=P, R=R, P_transposed=self.R, R_transposed=self.P)


@partial(
    register_dataclass,
    data_fields=["levels", "coarse", "unit", "spectra", "transfers", "origin"],
    meta_fields=["kind", "degree", "complexity", "form", "outer"],
)
@dataclass(frozen=True, eq=False, repr=False)
class AMG(Preconditioner):
    """One V-cycle from zero, with the same smoother before and after the coarse correction."""

    levels: tuple[Level, ...]
    coarse: Array
    unit: Any
    """What A was divided by, where the cycles are in single precision whatever the dtype of M; else None."""
    spectra: Array
    transfers: tuple[Array, ...]
    """For ``refresh``; see :mod:`tsgu_jax.precond._levels`, also for ``form``."""
    origin: Origin
    kind: str
    degree: int
    complexity: str  # as it is printed, so that hierarchies that differ in less are of one structure
    form: _levels.Form
    outer: str

    @property
    def shape(self) -> tuple[int, int]:
        return self.origin.n, self.origin.n

    @property
    def dtype(self) -> Any:
        return jnp.dtype(self.outer)

    @property
    def apply(self) -> Apply:
        coefficients = tuple(_amg.smoothing(self.degree))
        cycle: Apply = lambda v: _compiled(self.levels, self.coarse, v, coefficients)  # noqa: E731
        if not self.form.narrow:
            return cycle

        def apply(v: Array) -> Array:
            if v.size == 0:
                return v
            size = power_of_two(v)
            x = cycle((v / size).astype(self.coarse.dtype))
            return x.astype(v.dtype) * (size / self.unit).astype(size.dtype)

        return apply

    @property
    def T(self) -> AMG:  # noqa: N802
        if not self.form.hermitian:
            levels = tuple(level.transposed for level in self.levels)
            return replace(self, levels=levels, coarse=self.coarse.T, origin=self.origin.T)
        # The transpose of a Hermitian operator is its conjugate.
        conj: Any = jnp.conj if jnp.iscomplexobj(self.coarse) else lambda a: a
        levels, coarse = jax.tree.map(conj, (self.levels, self.coarse))
        return replace(self, levels=levels, coarse=coarse, origin=self.origin.T)

    def astype(self, dtype: Any) -> AMG:
        """The same in another dtype."""
        outer = jnp.dtype(dtype).name
        if outer == self.outer:
            return self
        inner = jnp.dtype(_single(outer) if self.form.narrow else outer)
        cast = partial(jax.tree.map, lambda a: a.astype(inner) if jnp.issubdtype(a.dtype, jnp.inexact) else a)
        levels, coarse, transfers = cast((self.levels, self.coarse, self.transfers))
        form = self.form._replace(dtype=inner.name)
        return replace(self, levels=levels, coarse=coarse, transfers=transfers, form=form, outer=outer)

    def _anew(self, A: SparseMatrix) -> AMG:
        given = A.values, self.origin.row, self.origin.col, self.spectra, *self.transfers
        if _internals.is_traced(A.values, self):
            results = [jax.ShapeDtypeStruct(*each) for each in self.form.results]
            found = _host.call("amg", partial(_levels.anew, self.form), results, *given)
        else:
            found = _mesh.lifted(_levels.made(self.form, *map(np.asarray, given)))
        unit = found.pop() if self.form.narrow else None
        coarse, *found = found
        fine = A.values if unit is None else A.values / unit
        values = [fine.astype(coarse.dtype), *found[len(self.levels) :]]
        levels = tuple(map(_refilled, self.levels, values, found))
        return replace(self, levels=levels, coarse=coarse, unit=unit)

    def __repr__(self) -> str:
        levels = f"{len(self.levels) + 1} levels, {self.complexity} entries per entry of A"
        cycles = f", cycles in {self.form.dtype}" if self.form.narrow else ""
        return f"<amg {self.kind}: {levels}, {self._text}{cycles}>"


def _refilled(level: Level, values: Array, scale: Array) -> Level:
    transposed = level.A_transposed and _products.refilled(level.A_transposed, values)
    return replace(level, A=_products.refilled(level.A, values), A_transposed=transposed, scale=scale)


def _cycle(levels: tuple[Level, ...], coarse: Array, b: Array, coefficients: tuple[tuple[float, float], ...]) -> Array:
    if not levels:
        return jnp.matmul(coarse, b, precision="highest")
    level = levels[0]
    scale = level.scale if b.ndim == 1 else level.scale[:, None]

    def smoothed(r: Array) -> tuple[Array, Array, Array]:
        """The correction of :func:`tsgu._core.factors._amg.smoothing` for r; its last term, and r before that."""
        z = x = scale * r
        for a, c in coefficients:
            r = r - _times(level.A, z)
            z = a * z + c * scale * r
            x = x + z
        return x, z, r

    x, z, r = smoothed(b)
    r = r - _times(level.A, z)
    e = _cycle(levels[1:], coarse, _times(level.R, r), coefficients)
    x = x + _times(level.P, e)
    return x + smoothed(b - _times(level.A, x))[0]


_compiled = jax.jit(_cycle, static_argnums=3)
"""Traced once, though the methods apply M in two places."""

_times = partial(_products.apply, unroll=_UNROLL)


def amg(
    A: Any,
    kind: str = "ruge_stuben",
    *,
    degree: int = 1,
    block: int = 1,
    dtype: Any = None,
    **pyamg_arguments: Any,
) -> AMG:
    """Precondition by algebraic multigrid: levels set up by PyAMG, applied as one symmetric V-cycle.

    For elliptic problems, whose solution then takes about as many steps on a fine grid as on a coarse one. A cycle
    consists of products alone: the smoother is a polynomial in D^-1 A, the same before and after the correction from
    the coarser level, so that M is Hermitian positive definite if A is, and fit for :data:`linear_cg` and
    :data:`minres`. For other matrices, with :data:`bicgstab` and :data:`gmres`.

    Parameters
    ----------
    A : BCOO, BCSR or SparseMatrix, shape (n, n)
        float32, float64, complex64 or complex128; complex for "smoothed_aggregation" and "root_node". No gradient flows
        into it, as for :func:`jacobi`. Concrete: build the preconditioner outside of ``jit`` and pass it in.
        The levels are set up on the host, in double precision.
    kind : str, optional
        "ruge_stuben": classical coarsening, for M-matrices such as those of finite differences. "smoothed_aggregation"
        and "root_node": fewer entries and more steps; for elasticity and other systems give the near-null space as
        ``B``. "pairwise": the cheapest levels.
    degree : int, optional
        Degree of the smoother. 1 is damped Jacobi, and on Poisson problems the fastest; more degrees take fewer steps
        of more products, and are more robust.
    block : int, optional
        Unknowns per node, numbered together, for all kinds but "ruge_stuben".
    dtype : dtype, optional
        jnp.float32 for cycles in single precision inside a method in double precision, complex ones for a complex A:
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
        To be given as ``M``; a pytree, callable on arrays (n,) and (n, k), with ``.T``. Its text says how many levels
        it has and how many entries they store.

    Raises
    ------
    ImportError
        If PyAMG is not installed.
    ValueError
        As :func:`jacobi`; if an argument is out of range, or the coarsest level has more than 4000 unknowns; if
        interpolation divides by zero, as it may for an indefinite A.
    TypeError
        As :func:`jacobi`; if A is traced; for an argument that the kind does not have, a complex matrix for a kind that
        is real, or a ``dtype`` that is wider than that of A, or neither float32 nor float64.

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
    >>> import jax.numpy as jnp, numpy as np, tsgu_jax
    >>> n = 1000
    >>> i = np.arange(n)
    >>> row, col = np.concatenate([i, i[1:], i[:-1]]), np.concatenate([i, i[:-1], i[1:]])
    >>> values = jnp.concatenate([jnp.full(n, 2.0), -jnp.ones(2 * n - 2)])
    >>> A = tsgu_jax.SparseMatrix.from_coo(row, col, values, (n, n))
    >>> tsgu_jax.precond.amg(A)
    <amg ruge_stuben: 4 levels, 1.9 entries per entry of A, shape=(1000, 1000), dtype=float32>
    """
    degree = _amg.check_degree(degree)
    _amg.check_kind(kind)
    A = matrix(A)
    wanted = _amg.check_dtype(None if dtype is None else _name(dtype), A.dtype.name)
    if is_traced(A):
        raise TypeError(
            "A must be concrete for amg, which sets up its levels on the host; got traced values. "
            "Build the preconditioner outside of jit and pass it in as an argument."
        )
    values = np.asarray(A.values)
    found = _amg.build(values, A.pattern.symbolic, kind, block, pyamg_arguments)
    unit = _amg.unit(found.A)
    narrow = wanted and _amg.fits_single(found)
    unit = unit if narrow else 1.0
    inner = np.dtype(_single(values.dtype)) if narrow else values.dtype

    def level(given: _amg.Level) -> Level:
        A = given.A / unit
        A, P, R = (m.astype(inner) for m in (A, given.P, given.R))
        transposes: list[Operand | None] = [None, None, None]
        if not found.hermitian:
            order = Symbolic(A.indptr, A.indices, A.shape).transposition
            transposes[0] = _products.host_operand(A.T.tocsr(), order, keep=True)
            if not given.paired:
                transposes[1:] = [_products.host_operand(m.T.tocsr()) for m in (P, R)]
        operands = _products.host_operand(A, keep=True), _products.host_operand(P), _products.host_operand(R)
        scale: Any = (given.scale * unit).astype(inner)
        return Level(*operands, scale, *transposes)

    form = _levels.Form.of(found, degree, narrow, inner.name)
    transfers: Any = _levels.flat(found, inner)
    spectra: Any = np.array([own.spectrum for own in found.levels], values.real.dtype).reshape(-1)
    coarse: Any = (found.coarse * unit).astype(inner)
    text, outer = f"{found.complexity:.1f}", values.dtype.name
    scaled = np.float64(unit) if narrow else None
    host = AMG(
        tuple(map(level, found.levels)),
        *(coarse, scaled, spectra, transfers, Origin.of(A), kind, degree, text, form, outer),
    )
    lifted: AMG = _mesh.lifted(host)
    return replace(lifted, origin=host.origin)


def _name(dtype: Any) -> str:
    try:
        return jnp.dtype(dtype).name
    except TypeError:
        return repr(dtype)


def _single(dtype: Any) -> str:
    return "complex64" if jnp.issubdtype(dtype, jnp.complexfloating) else "float32"
