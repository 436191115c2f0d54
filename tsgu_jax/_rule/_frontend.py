"""From what the user gave to the rule: the way that the entry points and the methods called alone have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental.sparse import JAXSparse

from tsgu_jax._matrix import _checks
from tsgu_jax._matrix._sparse_matrix import SparseMatrix
from tsgu_jax._program._promotion import as_usual
from tsgu_jax._rule._checked import checked_side, checked_system
from tsgu_jax._rule._function import Vectors, trace
from tsgu_jax._rule._lstsq_system import LeastSquaresPlan
from tsgu_jax._rule._method import Method
from tsgu_jax._rule._plan import Plan
from tsgu_jax._rule._run import run

Solver = Callable[..., Any] | None


@as_usual
def solve(
    A: Any, B: Any, solve: Solver, transpose_solve: Solver, verify: float | None, kwargs: Mapping[str, Any]
) -> Any:
    """X with A X = B, differentiable."""
    if callable(A) and not _checks.is_array(A):
        return _solve_with_function(A, B, solve, transpose_solve, verify, kwargs)
    values, pattern, given, B = system = checked_system(A, B)
    plan = Plan(solve, transpose_solve, kwargs, verify)
    plan.check()
    x0 = system.start(plan.x0)
    if B.size == 0:
        return jnp.zeros_like(B)
    like = jax.ShapeDtypeStruct(B.shape[values.ndim - 1 :], B.dtype)
    return run(plan.system(pattern, values, given, like), values, B, x0, plan.is_own)


def _solve_with_function(
    A: Any, B: Any, solve: Solver, transpose_solve: Solver, verify: float | None, kwargs: Mapping[str, Any]
) -> Any:
    """The same for A given as a function, perhaps of pytrees."""
    if not (_checks.is_array(B) or isinstance(B, JAXSparse | SparseMatrix)):
        vectors = Vectors.of(B)
        flat = vectors.function("A", A), vectors.B, solve, transpose_solve, verify, vectors.arguments(kwargs)
        return vectors.unravel(_solve_with_function(*flat))
    B = checked_side(B)
    plan = Plan(solve, transpose_solve, kwargs, verify)
    plan.check()
    x0 = None if plan.x0 is None else _checks.start(plan.x0, B)
    _checks.check_finite("x0", x0)
    if B.size == 0:
        return jnp.zeros_like(B)
    like = jax.ShapeDtypeStruct(B.shape, B.dtype)
    return run(plan.system(None, None, trace("A", A, like), like), None, B, x0, plan.is_own)


@as_usual
def minimise(
    A: Any, B: Any, lstsq: Callable[..., Any], transpose_lstsq: Solver, verify: float | None, kwargs: Mapping[str, Any]
) -> Array:
    """X that minimises ||A X - B||, differentiable."""
    plan = LeastSquaresPlan(lstsq, transpose_lstsq, kwargs, verify)
    plan.check()
    values, pattern, given, B = problem = checked_system(A, B, square=False, tall=not plan.is_damped)
    if not plan.is_damped:
        _checks.check_no_empty_column(pattern)
    x0 = problem.start(kwargs.get("x0"))
    system = plan.system(pattern, given, B.dtype)
    if B.size == 0 or 0 in problem.shape:
        return jnp.zeros(problem.shape, B.dtype)
    return run(system, values, B, x0, plan.is_own)


def call(method: Method[Any], A: Any, B: Any, **kwargs: Any) -> Any:
    """What a method does when it is called on its own: the differentiable solve."""
    if method.rectangular:
        return minimise(A, B, method, None, None, kwargs)
    return solve(A, B, method, None, 1e-3, kwargs)
