"""From what the user gave to the rule: the way that the entry points and the methods called alone have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental.sparse import JAXSparse

from tsgu._core.report._failure import policy_of
from tsgu_jax._matrix import _checks
from tsgu_jax._matrix._sparse_matrix import SparseMatrix
from tsgu_jax._program._outcome import Info, nothing_to_solve
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
    A: Any,
    B: Any,
    solve: Solver,
    transpose_solve: Solver,
    verify: float | None,
    kwargs: Mapping[str, Any],
    on_failure: str | None = None,
    return_info: bool = False,
) -> Any:
    """X with A X = B, differentiable, and with ``return_info`` what became of it."""
    _checks.check_flag("return_info", return_info)
    plan = Plan(solve, transpose_solve, kwargs, verify, policy_of(on_failure))
    found = _solve_with_function(A, B, plan) if callable(A) and not _checks.is_array(A) else _solve(A, B, plan)
    return found if return_info else found[0]


def _solve(A: Any, B: Any, plan: Plan) -> tuple[Array, Info]:
    values, pattern, given, B = system = checked_system(A, B)
    plan.check()
    x0 = system.start(plan.x0)
    if B.size == 0:
        return jnp.zeros_like(B), nothing_to_solve(B, values.ndim == 2)
    like = jax.ShapeDtypeStruct(B.shape[values.ndim - 1 :], B.dtype)
    return run(plan.system(pattern, values, given, like), values, B, x0, plan.is_own)


def _solve_with_function(A: Any, B: Any, plan: Plan) -> tuple[Any, Info]:
    """The same for A given as a function, perhaps of pytrees."""
    if not (_checks.is_array(B) or isinstance(B, JAXSparse | SparseMatrix)):
        vectors = Vectors.of(B)
        plan = replace(plan, arguments=vectors.arguments(plan.arguments))
        x, info = _solve_with_function(vectors.function("A", A), vectors.B, plan)
        return vectors.unravel(x), info
    B = checked_side(B)
    plan.check()
    x0 = None if plan.x0 is None else _checks.start(plan.x0, B)
    _checks.check_finite("x0", x0)
    if B.size == 0:
        return jnp.zeros_like(B), nothing_to_solve(B, False)
    like = jax.ShapeDtypeStruct(B.shape, B.dtype)
    return run(plan.system(None, None, trace("A", A, like), like), None, B, x0, plan.is_own)


@as_usual
def minimise(
    A: Any,
    B: Any,
    lstsq: Callable[..., Any],
    transpose_lstsq: Solver,
    verify: float | None,
    kwargs: Mapping[str, Any],
    on_failure: str | None = None,
    return_info: bool = False,
) -> Any:
    """X that minimises ||A X - B||, differentiable, and with ``return_info`` what became of it."""
    _checks.check_flag("return_info", return_info)
    plan = LeastSquaresPlan(lstsq, transpose_lstsq, kwargs, verify, policy_of(on_failure))
    plan.check()
    values, pattern, given, B = problem = checked_system(A, B, square=False, tall=not plan.is_damped)
    if not plan.is_damped:
        _checks.check_no_empty_column(pattern)
    x0 = problem.start(kwargs.get("x0"))
    system = plan.system(pattern, given, B.dtype)
    if B.size == 0 or 0 in problem.shape:
        found: Any = jnp.zeros(problem.shape, B.dtype), nothing_to_solve(B, values.ndim == 2)
    else:
        found = run(system, values, B, x0, plan.is_own)
    return found if return_info else found[0]


def call(
    method: Method[Any], A: Any, B: Any, *, on_failure: str | None = None, return_info: bool = False, **kwargs: Any
) -> Any:
    """What a method does when it is called on its own: the differentiable solve."""
    if method.rectangular:
        return minimise(A, B, method, None, None, kwargs, on_failure, return_info)
    return solve(A, B, method, None, 1e-3, kwargs, on_failure, return_info)
