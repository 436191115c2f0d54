"""Solvers from outside the package, and prepared ones: given A as the user has it, and their results checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental.sparse import BCOO, BCSR
from jax.lax import stop_gradient
from jax.tree_util import register_dataclass

from tsgu._core import _kinds
from tsgu._core.methods._options import ATTAINABLE, SAME
from tsgu._core.report import _function_words, _solver_words
from tsgu._core.report._status import CODE
from tsgu_jax._matrix import _checks
from tsgu_jax._matrix._columns import norm, power_of_two, relative_to
from tsgu_jax._matrix._pattern import positions
from tsgu_jax._matrix._sparse_matrix import SparseMatrix, csr_of
from tsgu_jax._program import _mesh
from tsgu_jax._program._conditions import in_any
from tsgu_jax._program._outcome import Outcome
from tsgu_jax._program._report import Evidence
from tsgu_jax._rule._function import Function
from tsgu_jax._rule._method import PreparedSolver
from tsgu_jax._rule._operator import CallableOperator, MatrixOperator, TransposedCallable
from tsgu_jax._rule._operator import transposed as transpose_of


@partial(
    register_dataclass,
    data_fields=["solver", "given", "arguments"],
    meta_fields=["of_transpose", "verify", "prepared_as", "like"],
)
@dataclass(frozen=True, eq=False)
class Foreign:
    """A callable from outside the package: given A as the user has it, and its result checked. Or a method of the
    package that the user has prepared: a pytree, as the rest is then too.

    ``of_transpose`` marks one that receives A to solve with A^T; ``prepared_as`` is what checks it, for a linear system
    or for least squares.
    """

    solver: Any
    of_transpose: bool
    given: Any
    arguments: Mapping[str, Any]
    verify: float | None
    prepared_as: Callable[[Foreign, Any, Any], Any]
    like: Any = None
    """One right-hand side, where a transpose may have to be derived."""

    @property
    def name(self) -> str:
        return _kinds.name_of(self.solver)

    @property
    def hermitian(self) -> bool | None:
        """What a prepared method needs of A; None for any other."""
        evidence = self.solver.prepared.evidence if isinstance(self.solver, PreparedSolver) else None
        return None if evidence is None else evidence.hermitian

    def prepare(self, matrix: Any) -> Any:
        if isinstance(self.given, Function):
            given: Any = self.given.held
        else:
            given = matrix if isinstance(self.given, SparseMatrix) else _detached(self.given)
        return self.prepared_as(self, given, matrix)


class ForeignSystem:
    """Its result checked by one product."""

    def __init__(self, configured: Foreign, given: Any, matrix: SparseMatrix | Function) -> None:
        self._configured, self._given = configured, given
        self._operator: Any = (
            CallableOperator(matrix.held, False, (matrix.like,))
            if isinstance(matrix, Function)
            else MatrixOperator(matrix.values, matrix.pattern.entries)
        )
        solver = configured.solver
        prepared: Any = solver.prepare(given, **configured.arguments) if _kinds.prepares(solver) else solver
        self._prepared: Any = prepared if _kinds.is_prepared(prepared) else None

    @property
    def refusal(self) -> str | None:
        if isinstance(self._prepared, PreparedSolver):
            return self._prepared.refusal
        if isinstance(self._operator, CallableOperator) and self._operator.transpose is None:
            return _function_words.transpose_of_a(self._configured.name, str(self._operator.derived))
        M = self._transposed_preconditioner
        return _solver_words.transpose_of_m(self._configured.name, M) if isinstance(M, str) else None

    @property
    def evidence(self) -> Evidence | None:
        return self._prepared.prepared.evidence if isinstance(self._prepared, PreparedSolver) else None

    @property
    def atol(self) -> Any:
        return self._prepared.prepared.atol if isinstance(self._prepared, PreparedSolver) else None

    def solve(self, B: Array, x0: Array | None, atol: Any = None) -> tuple[Array, Outcome]:
        arguments = dict(self._configured.arguments) if x0 is None else {**self._configured.arguments, "x0": x0}
        return self._solve(B, arguments, atol, transposed=False)

    def solve_transpose(self, G: Array) -> tuple[Array, Outcome]:
        if self.refusal is not None:
            raise TypeError(self.refusal)
        arguments = dict(self._configured.arguments)
        if arguments.get("M") is not None:
            arguments["M"] = self._transposed_preconditioner
        return self._solve(G, arguments, None, transposed=True)

    @cached_property
    def _transposed_preconditioner(self) -> Any:
        M = self._configured.arguments.get("M")
        return None if M is None else transpose_of(M, self._configured.like)

    def _solve(self, B: Array, arguments: dict[str, Any], atol: Any, transposed: bool) -> tuple[Array, Outcome]:
        of_transpose, prepared = self._configured.of_transpose, self._prepared
        own: Outcome | None = None
        if isinstance(prepared, PreparedSolver):
            x, own = prepared.outcome(B, atol, transposed != of_transpose)
        elif prepared is not None:
            x = prepared.solve_transpose(B) if transposed != of_transpose else prepared.solve(B)
        else:
            matrix = self._given if transposed == of_transpose else self._transpose
            x = self._configured.solver(matrix, B, **arguments)
        x = _checks.solution(self._configured.name, x, B)
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
        return own._replace(code=code, residual=relative)

    @cached_property
    def _transpose(self) -> Any:
        """As the solver gets it."""
        if isinstance(self._operator, CallableOperator):
            assert self._operator.transpose is not None
            return self._operator.transpose.apply
        return transpose_in_kind(self._given)

    def _outcome(self, x: Array, B: Array, transposed: bool) -> Outcome:
        """The true relative residual of each column, by one product; norms of columns scaled to be safe."""
        verify = self._configured.verify
        if verify is None:
            code = jnp.full(B.shape[1:], CODE["not verified"])
            return Outcome(code)
        operator = self._operator.transpose if transposed else self._operator
        residual = _compiled_residual if isinstance(operator, MatrixOperator) else _residual
        relative, finite = residual(operator, x, B)
        bad = jnp.where(finite, CODE["residual above verify"], CODE["non-finite"])
        code = jnp.where(relative <= verify, CODE["converged"], bad)
        outcome = Outcome(code, None, relative, None, jnp.asarray(verify))
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
    configured = A.magnitude(x / scale) + jnp.abs(B / scale)
    return ATTAINABLE * float(jnp.finfo(B.dtype).eps) * relative_to(norm(configured), norm(B / scale))


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
