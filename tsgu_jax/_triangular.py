"""The differentiable sparse triangular solve."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.experimental.sparse import BCOO, BCSR
from jax.tree_util import register_dataclass

from tsgu._core.methods._judgement import attained
from tsgu._core.methods._options import ATTAINABLE, LOST, default_rtol
from tsgu._core.pattern._triangle import Triangle
from tsgu._core.report import _matrix_words
from tsgu._core.report._failure import policy_of
from tsgu._core.report._log import recording
from tsgu._core.report._status import CODE
from tsgu_jax._matrix import _checks, _products
from tsgu_jax._matrix._columns import norm, power_of_two, relative_to
from tsgu_jax._matrix._sparse_matrix import SparseMatrix
from tsgu_jax._methods import _substitution
from tsgu_jax._methods._levels import Values
from tsgu_jax._methods._seen import first_status
from tsgu_jax._methods._substitution import Rows
from tsgu_jax._program import _host, _internals, _mesh, _report
from tsgu_jax._program._outcome import Info, Member, Outcome, nothing_to_solve
from tsgu_jax._program._promotion import as_usual
from tsgu_jax._program._report import Label
from tsgu_jax._rule import _implicit
from tsgu_jax._rule._checked import checked_system
from tsgu_jax._rule._run import run


@as_usual
def triangular_solve(
    A: BCOO | BCSR | SparseMatrix,
    B: Any,
    upper: bool = True,
    unitriangular: bool = False,
    transpose: bool = False,
    *,
    on_failure: str | None = None,
    return_info: bool = False,
) -> Any:
    r"""Solve A X = B, or A^T X = B, for sparse triangular A and dense B, with gradients that keep A's sparsity.

    The rule is that of :func:`solve`, the adjoint being substitution in the other direction. Substitution is a compiled
    loop: over rows on the CPU; on an accelerator, where the indices are concrete, over levels of rows that do not
    depend on each other.

    Parameters
    ----------
    A : BCOO, BCSR or SparseMatrix, shape (m, m) or (batch, m, m)
        float32, float64, complex64 or complex128. Repeated positions are added, padding entries are ignored. A batch is
        a BCOO with three sparse dimensions, a BCOO or BCSR with ``n_batch=1``, whose members may have patterns of their
        own, or a SparseMatrix with a batch of values on one pattern.
    B : Array, shape (m,) or (m, k); for a batch (batch, m) or (batch, m, k)
        Right-hand sides. Where the dtypes differ, both are promoted, with a warning, and each gradient has the dtype of
        its own input.
    upper : bool
        Whether A is upper triangular, or lower. It says where A's entries are, whatever ``transpose`` is.
    unitriangular : bool
        Whether the diagonal consists of ones. It need not be stored; where it is, it is not a variable, and its
        gradient is zero.
    transpose : bool
        Whether to solve with A^T, without conjugation for complex A too.
    on_failure : {"warn", "nan", "ignore"}, optional
        What is done where a solve fails: see :func:`on_failure`.
    return_info : bool
        Whether to return ``(X, info)``, with the :class:`Info` of the forward solve.

    Returns
    -------
    Array
        X, with the shape of B. Differentiable with respect to ``A.data`` (or the values of a SparseMatrix) and B, to
        any order, in both modes, under ``jit``, ``vmap``, ``checkpoint`` and ``scan``. The gradient of padding is zero,
        and repeated entries receive the gradient of their sum.
        With ``return_info`` the pair of X and its :class:`Info`.

    Raises
    ------
    ValueError
        If A is not sparse or B not an array; if A is not square or B does not match it. For concrete indices, if an
        entry is stored on the wrong side of the diagonal, zero or not; if a diagonal entry is not stored; with
        ``unitriangular``, if only part of the diagonal is. Outside of compiled functions, if A or B has entries that
        are not finite, or with ``unitriangular`` something else than ones is stored on the diagonal.
    numpy.linalg.LinAlgError
        Outside of compiled functions, if an entry of the diagonal is zero, and A is no batch.
    TypeError
        If A is in another format or B is not dense; if a dtype is not supported, or NumPy arrays in double precision
        are given while 64-bit types are turned off; if ``upper``, ``unitriangular`` or ``transpose`` is not a bool.

    Warns
    -----
    ConvergenceWarning
        If A is singular to working precision, or the solution overflows. In a batch or inside compiled functions, if an
        entry of the diagonal is zero, or with ``unitriangular`` not one, or among traced indices one is missing or on
        the wrong side: the solution is NaN then. The warning names the member of a batch, and the others are solved.
    UserWarning
        If A and B have different dtypes.

    See Also
    --------
    solve : for any other square matrix.
    record : what each solve did.

    References
    ----------
    N. J. Higham, *Accuracy and Stability of Numerical Algorithms*, 2nd ed., SIAM 2002, chapter 8; M. B. Giles,
    *Collected Matrix Derivative Results for Forward and Reverse Mode Algorithmic Differentiation*, 2008, section 2.3.1.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, tsgu_jax
    >>> from jax.experimental.sparse import BCOO
    >>> L = BCOO.fromdense(jnp.array([[2.0, 0.0], [1.0, 4.0]]))
    >>> b = jnp.array([2.0, 9.0])
    >>> tsgu_jax.triangular_solve(L, b, upper=False)
    Array([1., 2.], dtype=float32)
    >>> def loss(data):
    ...     return tsgu_jax.triangular_solve(BCOO((data, L.indices), shape=L.shape), b, upper=False).sum()
    >>> jax.grad(loss)(L.data)
    Array([-0.375, -0.25 , -0.5  ], dtype=float32)
    """
    for name, flag in (
        ("upper", upper),
        ("unitriangular", unitriangular),
        ("transpose", transpose),
        ("return_info", return_info),
    ):
        _checks.check_flag(name, flag)
    policy = policy_of(on_failure)
    values, pattern, _, B = checked_system(A, B, batches=True)
    members = A.shape[0] if len(A.shape) == 3 and not isinstance(A, SparseMatrix) else None
    triangle, rows = _substitution.rows_of(pattern, upper, unitriangular, members or 1)
    _check_diagonal(triangle, values, len(A.shape) == 3)
    if B.size == 0:
        x, info = jnp.zeros_like(B), nothing_to_solve(B, len(A.shape) == 3)
    else:
        system = TriangularSystem(rows, members, transpose, recording(), policy)
        given = B if members is None else B.reshape(-1, *B.shape[2:])
        x, info = run(system, values, given, None, own=True)
    return (x.reshape(B.shape), info) if return_info else x.reshape(B.shape)


def _check_diagonal(triangle: Triangle | None, values: Array, batched: bool) -> None:
    """Of a batch a zero is left to the solve, which reports the member and solves the others."""
    if triangle is None or triangle.unit or _internals.is_traced(values) or (batched and not triangle.ones):
        return
    diagonal = np.atleast_2d(np.asarray(values)[..., triangle.diagonal])
    wrong = diagonal != 1 if triangle.ones else diagonal == 0
    if wrong.any():
        member, row = (int(i[0]) for i in np.nonzero(wrong))
        place = triangle.place(row) if wrong.shape[0] == 1 else (row, f" of member {member}")
        if triangle.ones:
            raise ValueError(_matrix_words.not_one_on_diagonal(int(wrong.sum()), wrong.size, *place))
        raise np.linalg.LinAlgError(_matrix_words.zero_on_diagonal(int(wrong.sum()), wrong.size, *place))


@partial(register_dataclass, data_fields=["rows", "member"], meta_fields=["members", "transposed", "keep", "policy"])
@dataclass(frozen=True, eq=False)
class TriangularSystem:
    """A triangular system as the gradient rule sees it; see :class:`tsgu_jax._rule._implicit.System`.

    A batch of BCOO or BCSR is one system whose diagonal blocks are the members.
    """

    rows: Rows
    members: int | None
    transposed: bool
    keep: bool
    policy: str
    member: Member | None = None

    name = "triangular"
    transposable = True

    def of(self, member: Member) -> TriangularSystem:
        return replace(self, member=member)

    def product(self, values: Array | None, x: Array) -> Array:
        assert values is not None
        if self.rows.ones:  # constants, stored or not
            values = jnp.where(self.rows.row == self.rows.col, 0, values)
        y = _products.entrywise(values, x, self.rows.entries(self.transposed))
        return x + y if self.rows.ones else y

    def differentiated(self, values: Array | None, B: Array, x0: Array | None) -> tuple[Array, Info]:
        return _implicit.solve(self, values, B, x0)

    def primal(self, values: Array | None, B: Array, x0: Array | None) -> tuple[Array, Outcome]:
        x, outcome = self.prepared(values).solve(B, x0)
        return self.masked(x, outcome), outcome

    def masked(self, x: Array, outcome: Outcome) -> Array:
        """x as the user wants it where it failed, member by member."""
        if self.members is None:
            return _report.masked(self.policy, x, outcome)
        by_member = x.reshape(self.members, -1, *x.shape[1:])
        code = jnp.expand_dims(outcome.code, 1)
        return _report.masked(self.policy, by_member, outcome._replace(code=code)).reshape(x.shape)

    def evidence(self, values: Array | None) -> None:
        """What is wrong with a triangle its status says."""

    def prepare(self, values: Array | None) -> Solves:
        return Solves(self, self.prepared(values))

    def prepared(self, values: Array | None) -> Substitution:
        assert values is not None
        return Substitution(self, _substitution.prepared(self.rows, values))


class Solves:
    """Both solves with one triangle, reported."""

    refusal = atol = None

    def __init__(self, system: TriangularSystem, prepared: Substitution) -> None:
        self._system, self._prepared = system, prepared

    def solve(self, b: Array, x0: Array | None, atol: Any) -> tuple[Array, Info]:
        return self._reported(self._system.transposed, *self._prepared.solve(b, x0))

    def solve_transpose(self, g: Array) -> tuple[Array, Info]:
        return self._reported(not self._system.transposed, *self._prepared.solve_transpose(g))

    def _reported(self, transposed: bool, x: Array, outcome: Outcome) -> tuple[Array, Info]:
        system = self._system
        emit = partial(_report.emit, Label(system.name, transposed, system.keep, system.policy == "warn"))
        if system.members is None:
            told = emit(outcome._replace(member=system.member))
        else:
            places = jnp.arange(system.members, dtype=jnp.int32)
            told = jax.vmap(emit)(outcome._replace(member=Member(places, system.members)))
        return system.masked(_host.after(told, x), outcome), outcome.info(x.dtype)


class Substitution:
    """A triangle prepared: solves with it and its transpose, and their residuals."""

    refusal = None

    def __init__(self, system: TriangularSystem, matrix: Values) -> None:
        self._system, self._matrix = system, matrix

    def solve(self, B: Array, x0: Array | None) -> tuple[Array, Outcome]:
        return self._solve(B, self._system.transposed)

    def solve_transpose(self, G: Array) -> tuple[Array, Outcome]:
        return self._solve(G, not self._system.transposed)

    def _solve(self, B: Array, transposed: bool) -> tuple[Array, Outcome]:
        """The columns of a batch are scaled and judged member by member: small in one may be large in another."""
        members = self._system.members or 1
        by_member = (members, B.shape[0] // members, *B.shape[1:])
        b = jnp.moveaxis(B.reshape(by_member), 0, 1)  # (size, members) or (size, members, k)
        finite = jnp.isfinite(b).all(axis=0)
        b = jnp.where(finite, b, 0)
        scale = power_of_two(b)
        b = b / scale

        def flat(a: Array) -> Array:
            return jnp.moveaxis(a, 1, 0).reshape(B.shape[0], -1)

        def split(a: Array) -> Array:
            return jnp.moveaxis(a.reshape(by_member), 0, 1)

        columns = flat(b)
        x = _substitution.substitute(self._system.rows, self._matrix, columns, transposed)
        residual = norm(split(columns - self._product(self._matrix, x, transposed)))
        code, relative, rtol = self._judge(residual, b, split(x), flat, split, transposed)
        solution = split(x) * scale
        code = jnp.where(jnp.isfinite(solution).all(axis=0), code, CODE["overflow"])
        sound = self._sound(members).reshape(members, *[1] * (b.ndim - 2))
        code = jnp.where(sound, code, CODE["singular"])
        misplaced = self._misplaced(members)
        if misplaced is not None:
            misplaced = misplaced.reshape(-1, *[1] * (b.ndim - 2))
            sound &= ~misplaced
            code = jnp.where(misplaced, CODE["not triangular"], code)
        code = jnp.where(finite, code, CODE["non-finite"])
        fine = sound & finite
        x = jnp.moveaxis(jnp.where(fine, solution, jnp.nan), 1, 0).reshape(B.shape)
        relative = jnp.where(fine, relative, jnp.nan)
        if self._system.members is None:
            return x, Outcome(code[0], None, relative[0], None, rtol)
        return x, Outcome(code, None, relative, None, jnp.full(members, rtol))

    def _judge(
        self, residual: Array, b: Array, x: Array, flat: Any, split: Any, transposed: bool
    ) -> tuple[Array, Array, Array]:
        """Status and relative residual of each column, by the rule of :mod:`tsgu._core.methods._options`."""
        eps = float(jnp.finfo(b.dtype).eps)
        rtol = jnp.asarray(default_rtol(eps), residual.dtype)
        size = norm(b)

        def rounding() -> Array:
            absolute = self._matrix._replace(
                values=jnp.abs(self._matrix.values), diagonal=jnp.abs(self._matrix.diagonal)
            )
            return ATTAINABLE * eps * norm(split(self._product(absolute, flat(jnp.abs(x)), transposed)) + jnp.abs(b))

        met = residual <= rtol * size
        level = _mesh.cond(met.all(), lambda: jnp.zeros_like(residual), rounding)
        code = attained(first_status, met, residual <= level, level > LOST * size, "inaccurate")
        return code, relative_to(residual, size), rtol

    def _product(self, matrix: Values, x: Array, transposed: bool) -> Array:
        return _substitution.product(matrix, x, transposed)

    def _misplaced(self, members: int) -> Array | None:
        """Whether each member, or any, has an entry where none should be, or no one; None where that is known."""
        rows, misplaced = self._system.rows, self._system.rows.misplaced
        if not rows.ones:
            return misplaced
        other = (self._matrix.diagonal.reshape(members, -1) != 1).any(axis=1)
        return other if misplaced is None else other | misplaced

    def _sound(self, members: int) -> Array:
        """Whether the diagonal of each member has no zero."""
        return (self._matrix.diagonal.reshape(members, -1) != 0).all(axis=1)
