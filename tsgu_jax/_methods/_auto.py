"""A method that chooses another one, verifies what it did, and falls back to the next, all in one program."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.lax import stop_gradient
from jax.tree_util import register_dataclass

from tsgu._core.factors._factorisation import library_for
from tsgu._core.methods import _choice, _registry
from tsgu._core.methods._choice import Candidate, Traits
from tsgu._core.methods._options import resolve_options
from tsgu._core.report._log import recording
from tsgu._core.report._status import CODE
from tsgu_jax import precond
from tsgu_jax._matrix._layout import Diagonals
from tsgu_jax._matrix._pattern import Pattern
from tsgu_jax._matrix._sparse_matrix import SparseMatrix
from tsgu_jax._methods._direct import Direct
from tsgu_jax._methods._seen import HISTORY
from tsgu_jax._program import _internals, _mesh
from tsgu_jax._program._conditions import in_all, in_any
from tsgu_jax._program._outcome import Choice, Outcome
from tsgu_jax._rule._frontend import call
from tsgu_jax._rule._method import Configured, Method, Prepared, refuse_callable
from tsgu_jax._rule._operator import MatrixOperator

_METHODS: dict[str, Method[Any]] = _registry.loaded("tsgu_jax", _registry.krylov())

_FINAL = tuple(CODE[status] for status in _choice.FINAL)
_SINGULAR = tuple(CODE[status] for status in _choice.SINGULAR)

_COMPILING = 5.0
"""Seconds to compile another multigrid hierarchy into a solve and its adjoint."""


@partial(register_dataclass, data_fields=["configured"], meta_fields=["precond", "definite"])
@dataclass(frozen=True, eq=False)
class _Attempt:
    """A method with its arguments.

    ``precond`` names a preconditioner to be made of the matrix at hand, where ``configured`` does not hold one;
    ``definite`` says that it is for matrices that look definite, which is seen when the program runs.
    """

    configured: Configured
    precond: str | None
    definite: bool

    def prepare(self, matrix: SparseMatrix) -> Prepared:
        configured: Any = self.configured
        if self.precond is not None:
            M = getattr(precond, self.precond)(matrix)
            configured = replace(configured, M=M.fitted(matrix.shape[0], matrix.dtype))
        prepared: Prepared = configured.prepare(matrix)
        return prepared


@partial(register_dataclass, data_fields=["attempts", "atol"], meta_fields=["names"])
@dataclass(frozen=True, eq=False)
class _Auto:
    """What is tried, one after the other, and what the log says of each."""

    attempts: tuple[_Attempt, ...]
    atol: Any
    names: tuple[tuple[str, str], ...]
    name = "auto"

    def prepare(self, matrix: Any) -> _AutoSystem:
        refuse_callable(self.name, matrix)
        first = self.attempts[0]
        return _AutoSystem(self, matrix, None if first.definite else first.prepare(matrix))


@partial(register_dataclass, data_fields=["_method", "_matrix", "_first"], meta_fields=[])
@dataclass(frozen=True, eq=False)
class _AutoSystem:
    """The attempts on one matrix. The first is prepared once, for forward and adjoint; others where they are run."""

    _method: _Auto
    _matrix: SparseMatrix
    _first: Prepared | None

    refusal = evidence = None

    @property
    def atol(self) -> Any:
        return self._method.atol

    def solve(self, B: Array, x0: Array | None, atol: Any = None) -> tuple[Array, Outcome]:
        return self._solve(B, atol, transposed=False)

    def solve_transpose(self, G: Array) -> tuple[Array, Outcome]:
        return self._solve(G, None, transposed=True)

    def _solve(self, B: Array, atol: Any, transposed: bool) -> tuple[Array, Outcome]:
        attempts, names = self._method.attempts, self._method.names
        real = jnp.finfo(B.dtype).dtype
        keep = any(getattr(attempt.configured, "keep", False) for attempt in attempts)

        def run(place: int, prepared: Prepared | None = None) -> tuple[Array, Outcome]:
            prepared = attempts[place].prepare(self._matrix) if prepared is None else prepared
            x, outcome = prepared.solve_transpose(B) if transposed else prepared.solve(B, None, atol)
            return x, _uniform(outcome, B, keep, names, place)

        if self._first is not None:
            found = run(0, self._first)
        else:
            wanted = _looks_definite(self._matrix)
            nothing = Outcome(jnp.full(B.shape[1:], CODE["breakdown"]), target=jnp.zeros((), real))
            otherwise = jnp.zeros_like(B), _uniform(nothing, B, keep, names, 0)
            tried = _mesh.cond(in_any(wanted), lambda: run(0), lambda: otherwise)
            found = jax.tree.map(lambda a, b: jnp.where(wanted, a, b), tried, otherwise)

        for place in range(1, len(attempts)):

            def another(found: tuple[Array, Outcome], place: int = place) -> tuple[Array, Outcome]:
                new = run(place)
                better = _solved(new[1]) | ~(_largest(new[1]) > _largest(found[1]))  # true for NaN in what was found
                if place + 1 == len(attempts):
                    better |= jnp.isin(new[1].code, jnp.array(_SINGULAR)).any()
                better &= ~_solved(found[1])  # a member of a batch that others had to go on for
                return jax.tree.map(lambda a, b: jnp.where(better, a, b), new, found)

            found = _mesh.cond(in_all(_solved(found[1])), lambda found: found, another, found)
        return found


def _solved(outcome: Outcome) -> Array:
    return jnp.isin(outcome.code, jnp.array(_FINAL)).all()


def _largest(outcome: Outcome) -> Any:
    residual = outcome.residual
    return jnp.inf if residual is None else jnp.where(jnp.isnan(residual), jnp.inf, residual).max(initial=0)


def _uniform(outcome: Outcome, B: Array, keep: bool, names: tuple[tuple[str, str], ...], place: int) -> Outcome:
    """The outcome of any method, with the same fields for all."""
    columns, real = B.shape[1:], jnp.finfo(B.dtype).dtype
    history = outcome.history
    if keep and history is None:
        history = jnp.zeros((HISTORY, *columns), real)
    return Outcome(
        outcome.code.astype(jnp.int32),
        jnp.full(columns, -1, jnp.int32) if outcome.steps is None else outcome.steps.astype(jnp.int32),
        jnp.full(columns, jnp.inf, real) if outcome.residual is None else outcome.residual.astype(real),
        history,
        jnp.asarray(outcome.target, real),
        Choice(jnp.int32(place), names),
    )


def _looks_definite(matrix: SparseMatrix) -> Array:
    """Whether A is Hermitian, with a diagonal of one sign."""
    entries = matrix.pattern.entries
    n = entries.shape[0]
    on = entries.row == entries.col
    diagonal = jnp.zeros(n, matrix.dtype).at[entries.row].add(jnp.where(on, matrix.values, 0), mode="drop").real
    return MatrixOperator(matrix.values, entries).is_hermitian & (jnp.all(diagonal > 0) | jnp.all(diagonal < 0))


def _configure(arguments: Mapping[str, Any], n: int, dtype: Any, matrix: Any) -> _Auto:
    refuse_callable("auto", matrix)
    options = resolve_options(arguments, n, float(jnp.finfo(dtype).eps))  # which checks them, whoever solves
    values = stop_gradient(matrix.values)
    known = values.ndim == 1 and not _internals.is_traced(values, matrix.pattern.row, matrix.pattern.col)
    traits, plan, places = _looked_at(matrix, values) if known else _guessed(matrix, n, dtype)
    attempts: list[_Attempt] = []
    names: list[tuple[str, str]] = []
    failures: list[str] = []
    for order, place in enumerate(places):
        candidate = plan[place]
        chosen = {**arguments, "maxiter": candidate.maxiter(arguments.get("maxiter"), order + 1 == len(places))}
        later = candidate.precond
        if candidate.precond == "amg":
            try:
                chosen["M"] = precond.amg(matrix.with_values(values), **dict(candidate.options))
            except ValueError as error:  # no levels for this matrix: the next candidate is there for that
                failures.append(f"{candidate.name} cannot be built: {error}")
                continue
            later = None
        if candidate.method == "direct":
            configured: Configured = Direct(recording(), dict(candidate.options)["library"], arguments.get("rtol"))
        else:
            configured = _METHODS[candidate.method].configure(chosen, n, dtype, matrix)
        attempt = _Attempt(configured, later, definite=not known and candidate.method == "linear_cg")
        attempts.append(attempt)
        names.append((candidate.name, _choice.note(traits, plan, place, failures)))
        failures.append(_failure(candidate.name, attempt))
    return _Auto(tuple(attempts), options.atol or None, tuple(names))


def _failure(name: str, attempt: _Attempt) -> str:
    """What is known of it when the program is made."""
    unsuited = "was for another matrix, or " if attempt.definite else ""
    return f"{name} {unsuited}missed the target"


def _looked_at(matrix: SparseMatrix, values: Any) -> tuple[Traits, tuple[Candidate, ...], list[int]]:
    """The candidates for a matrix that is there to be looked at: the cheapest, and the surest to fall back to."""
    traits = _choice.traits_of(matrix.pattern.symbolic, np.asarray(values))
    plan = _choice.candidates(traits, library_for(None), overhead=_COMPILING)
    places = [0] if len(plan) == 1 else [0, len(plan) - 1]
    if len(plan) > 1 and plan[-1].precond == "amg":
        places[-1] -= 1
    return traits, plan, sorted(set(places))


def _guessed(matrix: SparseMatrix, n: int, dtype: Any) -> tuple[Traits, tuple[Candidate, ...], list[int]]:
    """The candidates for traced values, of which the pattern alone is known, or for traced indices, not even that."""
    width, complex_ = _width(matrix.pattern), bool(jnp.issubdtype(dtype, jnp.complexfloating))
    nnz = matrix.pattern.nnz
    traits = Traits(n, nnz, width, complex_, hermitian=True, sign=1, diagonal=True, coupled=True, seen=False)
    definite = _choice.candidates(traits, library_for(None), amg=False)
    if definite[0].method == "direct":
        return traits, definite, [0]
    general = _choice.candidates(replace(traits, hermitian=False), library_for(None), amg=False)
    plan = (definite[0], *general)
    return traits, plan, sorted({0, 1, len(plan) - 1})


def _width(pattern: Pattern) -> float:
    """Of the graph; of one with traced indices what a layout by diagonals tells, or that of a cube.

    A plane taken for a cube costs a few steps, after which it is factored. A cube taken for a plane would be factored
    at a hundred times the cost.
    """
    if not _internals.is_traced(pattern.row, pattern.col):
        return pattern.symbolic.width
    cube = pattern.shape[0] ** (2 / 3)
    layout = pattern.entries.rows
    # Of a grid that is numbered line by line the mean is a good half of the widest.
    return min(0.6 * max(layout.below, layout.above), cube) if isinstance(layout, Diagonals) else cube


def _auto(
    A: Any,
    B: Array,
    *,
    rtol: float | None = None,
    atol: float | None = None,
    maxiter: int | None = None,
    on_failure: str | None = None,
    return_info: bool = False,
) -> Any:
    """Solve A X = B by the method that suits A: direct, or a Krylov method with a preconditioner.

    A is looked at: its size, the width of its graph, whether it is Hermitian, the signs of its diagonal and of the
    entries beside it. From that the cost of each candidate is estimated, and the cheapest is tried; where it misses the
    target within four times its estimate, the last candidate of the list has its turn. What multigrid takes to compile
    counts, so that it is chosen for large matrices alone.

    Where A is traced its pattern alone is looked at; where that is an argument of the compiled function too, no more
    than the diagonals that it may consist of. Then it is either ``direct``; or ``linear_cg`` with ``jacobi`` if A turns
    out Hermitian with a diagonal of one sign, else ``bicgstab`` with ``jacobi``, and then ``direct``, or ``gmres`` with
    ``ilu`` where factors would be too large. For multigrid under ``jit`` build ``M`` outside.

    ===========================================  ==============================================================
    A                                            candidates, the cheapest first, ``direct`` ending the list
    ===========================================  ==============================================================
    at most 2000 unknowns                        ``direct``
    Hermitian, diagonal of one sign              ``linear_cg`` with ``jacobi`` or ``amg``, ``minres``, ``direct``
    Hermitian otherwise                          ``minres``, ``direct``
    any other                                    ``bicgstab`` with ``jacobi`` or ``amg``, ``direct``, ``gmres`` with
                                                 ``ilu``
    ===========================================  ==============================================================

    ``amg`` takes part where PyAMG is installed, and is classical for real matrices whose off-diagonal entries have the
    sign opposite to the diagonal. ``direct`` is left out where its factors would be too large. ``jacobi`` is the
    cheapest on a graph of small diameter, as a grid in three dimensions; ``direct`` on a narrow one.

    Parameters
    ----------
    A : BCOO, BCSR or SparseMatrix, shape (n, n)
        float32, float64, complex64 or complex128; any nonsingular matrix.
    B : Array, shape (n,) or (n, k)
        Right-hand sides.
    rtol, atol : float, optional
        Stop when ``||b - A x|| <= max(rtol ||b||, atol)``, in the 2-norm of the true residual; 1e-8 in double and 1e-5
        in single precision, and 0. ``atol`` is in the units of B, and not used for derivatives, which go by ``rtol``.
    maxiter : int, optional
        Largest number of steps of each candidate; by default 10 n for the last one.
    on_failure : {"warn", "nan", "ignore"}, optional
        What is done where a column misses its target: see :func:`on_failure`.
    return_info : bool
        Whether to return ``(X, info)``, with the :class:`Info` of the forward solve.

    Returns
    -------
    Array
        X, with the shape and dtype of B; differentiable with respect to A and B, to any order, in both modes. NaN where
        A is factored and singular, exactly or to working precision.

    Raises
    ------
    ValueError, TypeError
        As :func:`solve`; and for an argument out of range.

    Warns
    -----
    ConvergenceWarning
        If no candidate meets the target, here or in the adjoint.

    See Also
    --------
    record : its log tells what was chosen, in ``method``, and why, in ``note``.

    References
    ----------
    Y. Saad, *Iterative Methods for Sparse Linear Systems*, 2nd ed., SIAM 2003, chapters 9 and 10; A. George, SIAM J.
    Numer. Anal. 10 (1973), 345-363, for the work of a factorisation.

    Examples
    --------
    >>> import jax.numpy as jnp, tsgu_jax
    >>> from jax.experimental.sparse import BCOO
    >>> A = BCOO.fromdense(jnp.array([[4.0, 1.0], [1.0, 3.0]]))
    >>> with tsgu_jax.record() as log:
    ...     x = tsgu_jax.auto(A, jnp.array([1.0, 2.0]))
    >>> x.round(4)
    Array([0.0909, 0.6364], dtype=float32)
    >>> log[0].method
    'direct'
    >>> log[0].note
    'auto: direct for a matrix that is symmetric, positive diagonal, 2 unknowns, width 0; estimated cost ...'
    """
    return call(auto, A, B, rtol=rtol, atol=atol, maxiter=maxiter, on_failure=on_failure, return_info=return_info)


_auto.__name__ = _auto.__qualname__ = "auto"

auto = Method(_auto, _configure, settings=None, hermitian=False)
