"""How a linear system and its transpose are to be solved: the user's callables, resolved to two solves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental.sparse import BCOO, BCSR
from jax.lax import stop_gradient
from jax.tree_util import register_dataclass

from tsgu._core import _kinds
from tsgu._core.methods import _registry
from tsgu._core.methods._options import ATTAINABLE, SAME
from tsgu._core.report import _function_words, _solver_words
from tsgu_jax._matrix import _autodiff, _checks, _products
from tsgu_jax._matrix._columns import norm, power_of_two, relative_to
from tsgu_jax._matrix._pattern import Pattern, positions
from tsgu_jax._matrix._sparse_matrix import SparseMatrix, csr_of
from tsgu_jax._program import _mesh
from tsgu_jax._program._conditions import in_any
from tsgu_jax._program._report import CODE, Member, Outcome
from tsgu_jax._rule import _implicit
from tsgu_jax._rule._function import Derived, Function, derive, deviation, is_function, trace
from tsgu_jax._rule._method import Bound, Method, Prepared, PreparedSolver, Reporting
from tsgu_jax._rule._operator import CallableOperator, MatrixOperator, TransposedCallable
from tsgu_jax._rule._operator import transposed as transpose_of
from tsgu_jax.precond._base import Preconditioner

Solver = Callable[..., Any]


def check_solver(name: str, solver: Any, prepares: bool = True) -> None:
    """Refuse what cannot solve; ``prepares`` says whether it may be prepared for a matrix, or be so already."""
    ours = Preconditioner.__module__.rpartition(".")[0]  # where the functions that make them are, too
    if isinstance(solver, Preconditioner) or str(getattr(solver, "__module__", "")).startswith(ours):
        raise TypeError(_solver_words.preconditioner_as_solver(name, solver, "tsgu_jax"))
    _checks.check_callable(name, solver)
    if not prepares and solver is not None and not callable(solver):
        raise TypeError(_solver_words.not_a_solver(name, solver, _registry.meant(name, solver, "tsgu_jax")))


@dataclass(frozen=True)
class Plan:
    """The callables and their arguments, as the user gave them.

    A callable given as ``solve`` is applied to A, and to A^T in the adjoint where no ``transpose_solve`` is given. A
    foreign ``transpose_solve(A, G)`` receives A and solves A^T Y = G; where no ``solve`` is given it is applied to A^T,
    and so solves A X = B. An own method needs no such distinction: it knows both.

    ``x0`` and ``atol`` serve the forward solve alone, and the adjoint gets ``M.T`` for ``M``. A callable from outside
    gets ``atol`` in all its solves: what it means by it is not known.
    """

    solve: Solver | None
    transpose_solve: Solver | None
    arguments: Mapping[str, Any]
    verify: float | None

    def check(self) -> None:
        """Refuse, before anything is computed, what cannot be honoured in the forward or in the adjoint."""
        for name, solver in (("solve", self.solve), ("transpose_solve", self.transpose_solve)):
            check_solver(name, solver)
            if isinstance(solver, Method):
                solver.arguments(self.arguments)
            elif _kinds.is_prepared(solver) and self.arguments:
                raise TypeError(_solver_words.arguments_of_prepared(name, sorted(self.arguments)))
        _checks.check_verify(self.verify)

    @property
    def x0(self) -> Any:
        return self.arguments.get("x0")

    @property
    def is_own(self) -> bool:
        """Whether the package's own methods do it all, so that the package may compile the whole."""
        own = Method, PreparedSolver
        return all(solver is None or isinstance(solver, own) for solver in (self.solve, self.transpose_solve))

    def system(self, pattern: Pattern | None, values: Array | None, given: Any, like: Any) -> LinearSystem:
        """The linear system for A on a pattern, or for a matrix that is only a function; ``like`` is one B."""
        matrix = None if pattern is None else SparseMatrix.tree_unflatten(None, (values, pattern))
        bound = partial(self._bound, given=given, like=like, matrix=matrix)
        forward = bound(self.transpose_solve, True) if self.solve is None else bound(self.solve, False)
        known = self.solve is self.transpose_solve and isinstance(self.solve, Method)
        same = self.solve is None or self.transpose_solve is None or known
        adjoint = None if same else bound(self.transpose_solve, True)
        return LinearSystem(
            pattern, None if pattern is not None else given, forward, adjoint, tried=self.verify is not None
        )

    def _bound(self, solver: Any, of_transpose: bool, given: Any, like: Any, matrix: Any) -> Bound:
        arguments = {name: value for name, value in self.arguments.items() if name != "x0"}
        if isinstance(solver, Method):  # which solves with A and with A^T, so that one preparation serves both
            if is_function(arguments.get("M")):
                arguments["M"] = trace("M", arguments["M"], like, convert=True)
            return solver.bind(arguments, like.shape[0], like.dtype, matrix)
        of_transpose = of_transpose and not _kinds.is_prepared(solver)  # which solves with both
        return Foreign(solver, of_transpose, given, arguments, self.verify, _ForeignSystem, like)


@partial(register_dataclass, data_fields=["pattern", "function", "forward", "adjoint", "member"], meta_fields=["tried"])
@dataclass(frozen=True, eq=False)
class LinearSystem:
    """A linear system as the gradient rule sees it; see :class:`tsgu_jax._rule._implicit.System`.

    A pytree where the methods are the package's own, so that it can be an argument of a compiled program.
    """

    pattern: Pattern | None
    function: Function | None
    forward: Bound
    adjoint: Bound | None
    """None where the forward serves the adjoint too."""
    tried: bool = False
    """Whether it is tried that the function is linear."""
    member: Member | None = None

    transposed = False
    members = None

    def of(self, member: Member) -> LinearSystem:
        return replace(self, member=member)

    @property
    def name(self) -> str:
        return self.forward.name

    def differentiated(self, values: Array | None, B: Array, x0: Array | None) -> Array:
        return _implicit.solve(self, values, B, x0)

    def primal(self, values: Array | None, B: Array, x0: Array | None) -> tuple[Array, Outcome]:
        prepared = self.prepared(values)
        return prepared.solve(B, x0, prepared.atol)

    @cached_property
    def _derived(self) -> Derived | str:
        assert self.function is not None
        return derive(self.function, self.function.like)

    @property
    def transposable(self) -> bool:
        return self.function is None or not isinstance(self._derived, str)

    def product(self, values: Array | None, x: Array) -> Array:
        if self.function is None:
            assert values is not None
            assert self.pattern is not None
            return _products.entrywise(values, x, self.pattern.entries)
        if isinstance(self._derived, str):
            consts = _autodiff.refusing(_function_words.closed_over(self._derived), self.function.consts)
            return replace(self.function, consts=consts)(x)
        return self._derived.linear(x)

    def prepare(self, values: Array | None) -> Solves:
        forward = Reporting(self.forward.name, self.prepared(values), self.member)
        if self.adjoint is None:
            return Solves(forward, forward)
        adjoint = self.adjoint.prepare(self._matrix(values))
        return Solves(forward, Reporting(self.adjoint.name, adjoint, self.member))

    def prepared(self, values: Array | None) -> Prepared:
        """Made ready for the forward solve."""
        prepared = self.forward.prepare(self._matrix(values))
        if self.function is None or not self.tried:
            return prepared
        return _Tried(prepared, deviation(self.function.held, self.function.like))

    def _matrix(self, values: Array | None) -> Any:
        if values is None or self.pattern is None:
            return self.function
        return SparseMatrix.tree_unflatten(None, (values, self.pattern))


@dataclass(frozen=True)
class _Tried:
    """A solve with a function, whose result is NaN where that was seen not to be linear."""

    prepared: Prepared
    deviation: Array

    @property
    def refusal(self) -> str | None:
        return self.prepared.refusal

    @property
    def atol(self) -> Any:
        return self.prepared.atol

    def solve(self, B: Array, x0: Array | None, atol: Any = None) -> tuple[Array, Outcome]:
        x, outcome = self.prepared.solve(B, x0, atol)
        finite = jnp.isfinite(self.deviation)
        linear = self.deviation <= float(jnp.finfo(B.dtype).eps) ** 0.5
        fault = jnp.where(finite, CODE["not linear"], CODE["non-finite matrix"])
        code = jnp.where(linear, outcome.code, fault).astype(outcome.code.dtype)
        return jnp.where(linear, x, jnp.nan), outcome._replace(code=code)

    def solve_transpose(self, G: Array) -> tuple[Array, Outcome]:
        return self.prepared.solve_transpose(G)


@dataclass(frozen=True)
class Solves:
    """Both solves with one matrix, reported."""

    forward: Reporting
    adjoint: Reporting

    @property
    def refusal(self) -> str | None:
        return self.adjoint.refusal

    @property
    def atol(self) -> Any:
        return self.forward.prepared.atol

    def solve(self, b: Array, x0: Array | None, atol: Any) -> Array:
        return self.forward.reported(False, *self.forward.prepared.solve(b, x0, atol))

    def solve_transpose(self, g: Array) -> Array:
        return self.adjoint.solve_transpose(g)


@partial(
    register_dataclass,
    data_fields=["solver", "given", "arguments"],
    meta_fields=["of_transpose", "verify", "ready", "like"],
)
@dataclass(frozen=True, eq=False)
class Foreign:
    """A callable from outside the package: given A as the user has it, and its result checked. Or a method of the
    package that the user has prepared: a pytree, as the rest is then too.

    ``of_transpose`` marks one that receives A to solve with A^T; ``ready`` is what checks it, for a linear system or
    for least squares.
    """

    solver: Any
    of_transpose: bool
    given: Any
    arguments: Mapping[str, Any]
    verify: float | None
    ready: Callable[[Foreign, Any, Any], Any]
    like: Any = None
    """One right-hand side, where a transpose may have to be derived."""

    @property
    def name(self) -> str:
        return _kinds.name_of(self.solver)

    def prepare(self, matrix: Any) -> Any:
        if isinstance(self.given, Function):
            given: Any = self.given.held
        else:
            given = matrix if isinstance(self.given, SparseMatrix) else _detached(self.given)
        return self.ready(self, given, matrix)


class _ForeignSystem:
    """Its result checked by one product."""

    def __init__(self, bound: Foreign, given: Any, matrix: SparseMatrix | Function) -> None:
        self._bound, self._given = bound, given
        self._operator: Any = (
            CallableOperator(matrix.held, False, (matrix.like,))
            if isinstance(matrix, Function)
            else MatrixOperator(matrix.values, matrix.pattern.entries)
        )
        solver = bound.solver
        prepared: Any = solver.prepare(given, **bound.arguments) if _kinds.prepares(solver) else solver
        self._prepared: Any = prepared if _kinds.is_prepared(prepared) else None

    @property
    def refusal(self) -> str | None:
        if isinstance(self._prepared, PreparedSolver):
            return self._prepared.refusal
        if isinstance(self._operator, CallableOperator) and self._operator.transpose is None:
            return _function_words.transpose_of_a(self._bound.name, str(self._operator.derived))
        M = self._transposed_preconditioner
        return _solver_words.transpose_of_m(self._bound.name, M) if isinstance(M, str) else None

    @property
    def atol(self) -> Any:
        return self._prepared.prepared.atol if isinstance(self._prepared, PreparedSolver) else None

    def solve(self, B: Array, x0: Array | None, atol: Any = None) -> tuple[Array, Outcome]:
        arguments = dict(self._bound.arguments) if x0 is None else {**self._bound.arguments, "x0": x0}
        return self._solve(B, arguments, atol, transposed=False)

    def solve_transpose(self, G: Array) -> tuple[Array, Outcome]:
        if self.refusal is not None:
            raise TypeError(self.refusal)
        arguments = dict(self._bound.arguments)
        if arguments.get("M") is not None:
            arguments["M"] = self._transposed_preconditioner
        return self._solve(G, arguments, None, transposed=True)

    @cached_property
    def _transposed_preconditioner(self) -> Any:
        M = self._bound.arguments.get("M")
        return None if M is None else transpose_of(M, self._bound.like)

    def _solve(self, B: Array, arguments: dict[str, Any], atol: Any, transposed: bool) -> tuple[Array, Outcome]:
        of_transpose, prepared = self._bound.of_transpose, self._prepared
        own: Outcome | None = None
        if isinstance(prepared, PreparedSolver):
            x, own = prepared.outcome(B, atol, transposed != of_transpose)
        elif prepared is not None:
            x = prepared.solve_transpose(B) if transposed != of_transpose else prepared.solve(B)
        else:
            matrix = self._given if transposed == of_transpose else self._transpose
            x = self._bound.solver(matrix, B, **arguments)
        x = _checks.solution(self._bound.name, x, B)
        return x, self._outcome(x, B, transposed) if own is None else self._held(own, x, B, atol, transposed)

    def _held(self, own: Outcome, x: Array, B: Array, atol: Any, transposed: bool) -> Outcome:
        """What a prepared method of the package reports of itself, held to its target with the matrix at hand."""
        operator = self._operator.transpose if transposed else self._operator
        residual = _compiled_residual if isinstance(operator, MatrixOperator) else _residual
        relative, least = residual(operator, x, B)[0], jnp.asarray(own.target)
        if own.residual is not None:
            least = jnp.maximum(least, SAME * own.residual)
        if atol is not None:
            size = norm(B / power_of_two(B)) * power_of_two(B)
            least = jnp.maximum(least, atol / jnp.where(size > 0, size, 1))
        rounding = _mesh.cond(
            in_any(jnp.any(relative > least)),
            lambda: _rounding(operator, x, B).astype(relative.dtype),
            lambda: jnp.zeros_like(relative),
        )
        another = relative > jnp.maximum(least, SAME * rounding)  # not for NaN, of which the method has told the reason
        code = jnp.where(another, CODE["prepared for another matrix"], own.code)
        fault = None if own.fault is None else jnp.where(another.any(), 0, own.fault)
        return own._replace(code=code, residual=relative, fault=fault)

    @cached_property
    def _transpose(self) -> Any:
        """As the solver gets it."""
        if isinstance(self._operator, CallableOperator):
            assert self._operator.transpose is not None
            return self._operator.transpose.apply
        return transpose_in_kind(self._given)

    def _outcome(self, x: Array, B: Array, transposed: bool) -> Outcome:
        """The true relative residual of each column, by one product; norms of columns scaled to be safe."""
        verify = self._bound.verify
        if verify is None:
            code = jnp.full(B.shape[1:], CODE["not verified"])
            return Outcome(code, None, None, None, None, None)
        operator = self._operator.transpose if transposed else self._operator
        residual = _compiled_residual if isinstance(operator, MatrixOperator) else _residual
        relative, finite = residual(operator, x, B)
        bad = jnp.where(finite, CODE["residual above verify"], CODE["non-finite"])
        code = jnp.where(relative <= verify, CODE["converged"], bad)
        outcome = Outcome(code, None, relative, None, jnp.asarray(verify), None)
        return operator.judged(x, B, outcome) if isinstance(operator, TransposedCallable) else outcome


def _residual(A: Any, x: Array, B: Array) -> tuple[Array, Array]:
    """The relative residual of each column, and whether its right-hand side is finite."""
    scale = power_of_two(B)
    size = norm(B / scale)
    left = norm((B - A.apply(x)) / scale)
    return relative_to(left, size), jnp.isfinite(size)


_compiled_residual = jax.jit(_residual)  # its loop would be compiled anew in each call


def _rounding(A: Any, x: Array, B: Array) -> Array:
    """Rounding level of the residual of each column, relative to its right-hand side."""
    scale = power_of_two(B)
    bound = A.magnitude(x / scale) + jnp.abs(B / scale)
    return ATTAINABLE * float(jnp.finfo(B.dtype).eps) * relative_to(norm(bound), norm(B / scale))


def _detached(A: BCOO | BCSR) -> BCOO | BCSR:
    """The same with data that carry no derivative."""
    data = stop_gradient(A.data)
    if isinstance(A, BCOO):
        return BCOO((data, A.indices), shape=A.shape, indices_sorted=A.indices_sorted, unique_indices=A.unique_indices)
    return BCSR(
        (data, A.indices, A.indptr),
        shape=A.shape,
        indices_sorted=A.indices_sorted,
        unique_indices=A.unique_indices,
    )


def transpose_in_kind(A: Any) -> Any:
    """A^T in A's own type; BCSR has no ``.T``."""
    if not isinstance(A, BCSR):
        return A.T
    row, col = positions(A)
    return csr_of(A.data, col, row, (A.shape[1], A.shape[0]))
