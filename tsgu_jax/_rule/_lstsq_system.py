"""How a least-squares problem and its adjoint are to be solved: the user's callables, resolved to two solves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import jax.numpy as jnp
from jax import Array
from jax.tree_util import register_dataclass

from tsgu._core import _kinds
from tsgu._core.methods._options import default_rtol
from tsgu._core.report import _solver_words
from tsgu._core.report._log import recording
from tsgu._core.report._status import CODE
from tsgu_jax._matrix import _checks, _products
from tsgu_jax._matrix._columns import norm, power_of_two, relative_to
from tsgu_jax._matrix._pattern import Pattern
from tsgu_jax._matrix._sparse_matrix import SparseMatrix
from tsgu_jax._program import _mesh, _report
from tsgu_jax._program._conditions import in_any
from tsgu_jax._program._outcome import Info, Member, Outcome
from tsgu_jax._program._report import Label
from tsgu_jax._rule import _implicit_lstsq
from tsgu_jax._rule._foreign import Foreign, transpose_in_kind
from tsgu_jax._rule._implicit_lstsq import Pair
from tsgu_jax._rule._method import Method
from tsgu_jax._rule._plan import Solver, check_solver


class PreparedLeastSquares(Protocol):
    """A method prepared for one matrix; it says what became of a solve, and leaves the reporting to others."""

    def least_squares(self, B: Array, x0: Array | None) -> tuple[Array, Array, Outcome]:
        """X that minimises ||A X - B||, and B - A X; with damping, for B of m + n rows."""

    def minimum_norm(self, C: Array) -> tuple[Array, Outcome]:
        """Y with A^H Y = C; with damping, of m + n rows."""


@dataclass(frozen=True)
class LeastSquaresPlan:
    """The callables and their arguments, as the user gave them.

    ``lstsq`` is applied to A, and to A^T in the adjoint where no ``transpose_lstsq`` is given. A foreign
    ``transpose_lstsq(A, G)`` receives A and solves A^T Y = G. ``x0`` serves the forward solve alone.
    """

    lstsq: Solver
    transpose_lstsq: Solver | None
    arguments: Mapping[str, Any]
    verify: float | None
    policy: str = "warn"
    """What is done where a solve fails."""

    @property
    def is_damped(self) -> bool:
        return bool(self.arguments.get("damp"))

    @property
    def is_own(self) -> bool:
        """Whether the package's own method does it all, so that the package may compile the whole."""
        return all(solver is None or isinstance(solver, Method) for solver in (self.lstsq, self.transpose_lstsq))

    def check(self) -> None:
        """Refuse, before anything is computed, what cannot be honoured in the forward or in the adjoint."""
        for name, solver in (("lstsq", self.lstsq), ("transpose_lstsq", self.transpose_lstsq)):
            check_solver(name, solver, prepares=False)
            if isinstance(solver, Method):
                if not solver.rectangular:
                    raise TypeError(_solver_words.not_for_rectangular(name, solver.name))
                solver.arguments(self.arguments)
            elif solver is not None and self.is_damped:
                raise TypeError(_solver_words.damp_of_another(_kinds.name_of(solver)))
        _checks.check_verify(self.verify)

    def system(self, pattern: Pattern, given: Any, dtype: Any) -> LeastSquaresSystem:
        """The problem for A on a pattern."""
        configured = partial(self._configured, given=given, n=pattern.shape[1], dtype=dtype)
        same = self.transpose_lstsq is None or (self.transpose_lstsq is self.lstsq and isinstance(self.lstsq, Method))
        adjoint = None if same else configured(self.transpose_lstsq, True)
        damp = float(self.arguments["damp"]) if self.is_damped else None
        return LeastSquaresSystem(pattern, damp, configured(self.lstsq, False), adjoint, policy=self.policy)

    def _configured(self, solver: Any, of_transpose: bool, given: Any, n: int, dtype: Any) -> Any:
        arguments = {name: value for name, value in self.arguments.items() if name != "x0"}
        if isinstance(solver, Method):
            return solver.configure(arguments, n, dtype, None)
        return Foreign(solver, of_transpose, given, arguments, self.verify, _ForeignSystem)


@partial(register_dataclass, data_fields=["pattern", "damp", "forward", "adjoint", "member"], meta_fields=["policy"])
@dataclass(frozen=True, eq=False)
class LeastSquaresSystem:
    """A least-squares problem as the gradient rule sees it; see :class:`tsgu_jax._rule._implicit_lstsq.System`.

    A pytree where the method is the package's own, so that it can be an argument of a compiled program.
    """

    pattern: Pattern
    damp: Any
    forward: Any
    adjoint: Any
    """None where the forward serves the adjoint too."""
    member: Member | None = None
    policy: str = "warn"
    """What is done where a solve fails."""

    transposed = False
    members = None

    def of(self, member: Member) -> LeastSquaresSystem:
        return replace(self, member=member)

    @property
    def name(self) -> str:
        name: str = self.forward.name
        return name

    @property
    def shape(self) -> tuple[int, int]:
        return self.pattern.shape

    def differentiated(self, values: Array, B: Array, x0: Array | None) -> tuple[Array, Info]:
        return _implicit_lstsq.lstsq(self, values, B, x0)

    def primal(self, values: Array, B: Array, x0: Array | None) -> tuple[Array, Outcome]:
        x, _, outcome = self.prepared(values).least_squares(self.extended(B), x0)
        return _report.masked(self.policy, x, outcome), outcome

    def evidence(self, values: Array) -> None:
        """Nothing that a matrix shows explains a failure here."""

    def product(self, values: Array, r: Array, x: Array) -> Pair:
        entries = self.pattern.entries
        upper = r + _products.entrywise(values, x, entries)
        lower = _products.entrywise(values.conj(), r, _swapped(entries))
        return upper, lower if self.damp is None else lower - jnp.asarray(self.damp**2, x.real.dtype) * x

    def prepare(self, values: Array) -> Solves:
        forward = self.prepared(values)
        if self.adjoint is None:
            return Solves(self, forward, self.forward.name, forward, self.forward.name)
        adjoint = self.adjoint.prepare(self._matrix(values))
        return Solves(self, forward, self.forward.name, adjoint, self.adjoint.name)

    def prepared(self, values: Array) -> PreparedLeastSquares:
        """Prepared for the forward solve."""
        prepared: PreparedLeastSquares = self.forward.prepare(self._matrix(values))
        return prepared

    def extended(self, b: Array) -> Array:
        """[b; 0], where x is damped."""
        return b if self.damp is None else jnp.concatenate([b, jnp.zeros((self.shape[1], *b.shape[1:]), b.dtype)])

    def _matrix(self, values: Array) -> SparseMatrix:
        return SparseMatrix.tree_unflatten(None, (values, self.pattern))


def _swapped(entries: _products.Entries) -> _products.Entries:
    """The entries of the transpose, in the same order."""
    return _products.Entries(
        entries.col,
        entries.row,
        None,
        entries.columns,
        entries.rows,
        (entries.shape[1], entries.shape[0]),
    )


@dataclass(frozen=True)
class Solves:
    """Both solves with one matrix, reported."""

    system: LeastSquaresSystem
    forward: PreparedLeastSquares
    forward_name: str
    adjoint: PreparedLeastSquares
    adjoint_name: str

    def solve(self, b: Array, c: Array, x0: Array | None) -> tuple[Pair, Info]:
        """By r1 with A^H r1 = c, and x that minimises ||A x - (b - r1)||: then A^H (b - A x) = c.

        Any r1 would do; the smallest loses the fewest digits. With damping all of it is said of [A; damp I] and [b; 0].
        """
        side = self.system.extended(b)
        needed = jnp.any(c != 0)  # true for NaN
        shift = _mesh.cond(in_any(needed), partial(self._minimum_norm, needed), lambda c: jnp.zeros_like(side), c)
        x, r, outcome = self.forward.least_squares(side - shift, x0)
        x = self._settled(self.forward_name, False, x, outcome)
        return ((r + shift)[: b.shape[0]], x), outcome.info(x.dtype)

    def solve_transpose(self, b: Array, c: Array) -> tuple[Pair, Info]:
        """K^T is conj(K)."""
        (r, x), info = self.solve(b.conj(), c.conj(), None)
        return (r.conj(), x.conj()), info

    def _minimum_norm(self, needed: Array, c: Array) -> Array:
        y, outcome = self.adjoint.minimum_norm(c)
        # It is run for all members of a batch if for one, also where c is zero: nothing is told of those.
        outcome = outcome._replace(code=jnp.where(needed, outcome.code, 0))
        return self._settled(self.adjoint_name, True, y, outcome)

    def _settled(self, name: str, transposed: bool, x: Array, outcome: Outcome) -> Array:
        policy = self.system.policy
        label = Label(name, transposed, recording(), policy == "warn")
        return _report.settled(label, policy, x, outcome._replace(member=self.system.member))


class _ForeignSystem:
    """The result of a callable from outside checked by two products."""

    def __init__(self, configured: Foreign, given: Any, matrix: SparseMatrix) -> None:
        self._configured, self._given, self._matrix = configured, given, matrix

    def least_squares(self, B: Array, x0: Array | None) -> tuple[Array, Array, Outcome]:
        configured = self._configured
        arguments = dict(configured.arguments) if x0 is None else {**configured.arguments, "x0": x0}
        x = configured.solver(self._given, B, **arguments)
        x = _checks.solution(configured.name, x, B, (self._matrix.shape[1], *B.shape[1:]))
        r = B - self._product(x)
        return x, r, self._outcome(B, r, transposed=False)

    def minimum_norm(self, C: Array) -> tuple[Array, Outcome]:
        """By A^T conj(Y) = conj(C), which is what a callable is asked for."""
        configured, G = self._configured, C.conj()
        matrix = self._given if configured.of_transpose else transpose_in_kind(self._given)
        y = configured.solver(matrix, G, **configured.arguments)
        y = _checks.solution(configured.name, y, G, (self._matrix.shape[0], *C.shape[1:])).conj()
        left = C if configured.verify is None else C - self._adjoint_product(y)
        return y, self._outcome(C, left, transposed=True)

    def _product(self, x: Array) -> Array:
        return _products.apply(_products.operand(self._matrix.values, self._matrix.pattern.entries, False), x)

    def _adjoint_product(self, u: Array) -> Array:
        return _products.apply(_products.operand(self._matrix.values.conj(), self._matrix.pattern.entries, True), u)

    def _outcome(self, b: Array, r: Array, transposed: bool) -> Outcome:
        """The measure of :mod:`tsgu._core.methods._least_squares` for each column, with norms that cannot overflow."""
        verify = self._configured.verify
        if verify is None:
            return Outcome(jnp.full(b.shape[1:], CODE["not verified"]))
        values = self._matrix.values
        top = power_of_two(jnp.abs(values))
        frobenius = norm(values / top)
        scale, unit = power_of_two(b), r / power_of_two(r)
        size, left, unit_size = norm(b / scale), norm(r / scale), norm(unit)
        relative = relative_to(left, size)
        g = norm((self._product(unit) if transposed else self._adjoint_product(unit)) / top)
        optimality = g / jnp.where(unit_size * frobenius > 0, unit_size * frobenius, 1)
        measure = relative if transposed else jnp.minimum(relative, optimality)
        bad: Any = CODE["residual above verify"]
        if transposed:
            lost = optimality <= max(default_rtol(float(jnp.finfo(b.dtype).eps)), 1e-6)
            bad = jnp.where(lost, CODE["rank deficient"], bad)
        bad = jnp.where(jnp.isfinite(size), bad, CODE["non-finite"])
        code = jnp.where(measure <= verify, CODE["converged"], bad)
        return Outcome(code, None, measure, None, jnp.asarray(verify))
