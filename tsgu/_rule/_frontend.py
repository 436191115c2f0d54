"""From what the user gave to the rule: the way that the entry points and the methods called alone have in common."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_variadic

from tsgu._matrix import _checks
from tsgu._rule import _implicit, _implicit_function, _implicit_lstsq
from tsgu._rule._checked import checked_side, checked_system, over_batch
from tsgu._rule._dynamo import uncompiled
from tsgu._rule._function import Function
from tsgu._rule._lstsq_system import LeastSquaresPlan, LeastSquaresSystem
from tsgu._rule._method import Method
from tsgu._rule._outcome import wanted, with_info
from tsgu._rule._plan import Plan
from tsgu._rule._system import LinearSystem

Solver = Callable[..., Any] | None


@uncompiled
def solve(
    A: Any,
    B: Tensor,
    solve: Solver,
    transpose_solve: Solver,
    verify: float | None,
    kwargs: Mapping[str, Any],
    on_failure: str | None = None,
    return_info: bool = False,
) -> Any:
    """X with A X = B, differentiable, and with ``return_info`` what became of it."""
    plan = Plan(solve, transpose_solve, kwargs, verify, wanted(on_failure, return_info))
    if callable(A) and not isinstance(A, Tensor):
        B = checked_side(B)
        return with_info(_solve_with_function(A, B, plan), B.dim() == 1)
    values, pattern, given, B = system = checked_system(A, B)
    plan.check(torch.is_grad_enabled() and (values.requires_grad or B.requires_grad), B)
    rule = partial(_by_rule, LinearSystem(plan, pattern, given))
    return with_info(over_batch(rule, values, B, system.start(kwargs.get("x0"))), B.dim() == values.dim())


def _by_rule(system: LinearSystem, values: Tensor, B: Tensor, x0: Tensor | None) -> Any:
    return _implicit.solve(values, B, x0, system)


def _solve_with_function(A: Any, B: Tensor, plan: Plan) -> Any:
    """The same for A given as a function, which is tried first."""
    function = Function(A, B)
    through = B.numel() > 0 and function.tried(plan.verify is not None)
    plan.check(torch.is_grad_enabled() and (through or B.requires_grad), B)
    x0 = plan.arguments.get("x0")
    x0 = None if x0 is None else _checks.start(x0, B)
    system = LinearSystem(plan, None, function)
    return _implicit_function.solve(B, x0, system) if through else _implicit.solve(None, B, x0, system)


@uncompiled
def minimise(
    A: Any,
    B: Tensor,
    lstsq: Callable[..., Any],
    transpose_lstsq: Solver,
    verify: float | None,
    kwargs: Mapping[str, Any],
    on_failure: str | None = None,
    return_info: bool = False,
) -> Any:
    """X that minimises ||A X - B||, differentiable, and with ``return_info`` what became of it."""
    plan = LeastSquaresPlan(lstsq, transpose_lstsq, kwargs, verify, wanted(on_failure, return_info))
    plan.check()
    values, pattern, given, B = system = checked_system(A, B, square=False, tall=not plan.is_damped)
    if not plan.is_damped:
        _checks.check_no_empty_column(pattern)
    problem = LeastSquaresSystem(plan, pattern, given)
    found = over_batch(
        lambda v, b, x: _implicit_lstsq.lstsq(v, b, x, problem), values, B, system.start(kwargs.get("x0"))
    )
    return with_info(found, B.dim() == values.dim())


def call(
    method: Method[Any],
    A: Any,
    B: Tensor,
    *,
    on_failure: str | None = None,
    return_info: bool = False,
    **kwargs: Any,
) -> Any:
    """What a method does when it is called on its own: the differentiable solve."""
    if has_torch_function_variadic(A, B):
        given = {**kwargs, "on_failure": on_failure, "return_info": return_info}
        return handle_torch_function(method, (A, B), A, B, **given)
    if method.rectangular:
        return minimise(A, B, method, None, None, kwargs, on_failure, return_info)
    return solve(A, B, method, None, 1e-3, kwargs, on_failure, return_info)
