"""The gradient rule of linear systems, on values and dense tensors.

With :mod:`tsgu._rule._implicit_lstsq` for least squares, :mod:`tsgu._rule._implicit_function` for functions and
:mod:`tsgu._matrix._autodiff` for products, this is every ``torch.autograd.Function`` of the package.

For A x = b with upstream gradient g (torch's convention for complex numbers: g is the gradient with respect to the
conjugate),

    A^H lam = g,        grad_b = lam,        grad_A[i, j] = -sum_k lam[i, k] conj(x[j, k])  at the stored entries,

and in forward mode A dx = db - dA x. Both follow from differentiating A x = b:  dA x + A dx = db, so
<g, dx> = <g, A^-1 (db - dA x)> = <A^-H g, db - dA x>.  The adjoint and the tangent solve are the rule itself, with
their own derivatives, so that every higher order is right by construction.

The functions are closed under differentiation: a solve is differentiated through solves, products and sampled products.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd import Function

from tsgu._core.report._place import Place, called_from
from tsgu._matrix._autodiff import (
    Grads,
    at,
    conj,
    empty,
    fold,
    plain,
    sampled,
    shape_of_member,
    stack,
    tangent_rule,
    times,
    unfold,
)
from tsgu._matrix._internals import apply
from tsgu._matrix._pattern import Pattern
from tsgu._rule._outcome import Wanted, nothing_to_solve, settled


class System(Protocol):
    """What the rule must know of a linear system: how to solve with A and with its transpose, and where A is stored.

    An opaque object to functorch, which copies dictionaries and tuples but hands other objects through.
    """

    pattern: Pattern | None
    place: Place
    wanted: Wanted
    members: int
    """Of the batch that this is; 1 for one system."""

    def solve(self, values: Tensor | None, b: Tensor, x0: Tensor | None, transposed: bool, primal: bool) -> Tensor:
        """Solve A x = b, or A^T x = b. ``primal`` marks the user's own solve, whose inputs are checked."""
        ...

    def blocks(self, count: int) -> System:
        """The system whose diagonal blocks are those of a batch of values."""
        ...


def solve(values: Tensor | None, b: Tensor, x0: Tensor | None, system: System, transposed: bool = False) -> Any:
    """Solve A x = b, or A^T x = b, for A given by values on ``system.pattern``; differentiable in values and b, to any
    order.

    ``values`` is None for a matrix that is only a callable. With ``system.wanted.told`` it returns a pair: x, and what
    became of the solve, (members, 3, k), without a gradient.
    """
    return apply(_Solve, values, b, x0, system, transposed, True)


class _Solve(Function):
    @staticmethod
    def forward(
        values: Tensor | None, b: Tensor, x0: Tensor | None, system: System, transposed: bool, primal: bool
    ) -> Tensor | tuple[Tensor, Tensor]:
        wanted, members = system.wanted, system.members
        if b.numel() == 0:
            x, told = torch.zeros_like(b), nothing_to_solve(wanted, members, primal, b)
        else:
            with called_from(system.place):
                held = None if values is None else plain(values)
                (x,), told = settled(
                    wanted, members, primal, lambda: (system.solve(held, plain(b), x0, transposed, primal),)
                )
        return x if told is None else (x, told)

    @staticmethod
    def setup_context(ctx: Any, inputs: Grads, output: Any) -> None:
        values, _, _, ctx.system, ctx.transposed, _ = inputs
        x, ctx.told = output if isinstance(output, tuple) else (output, None)
        if ctx.told is not None:
            ctx.mark_non_differentiable(ctx.told)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(values, x)
        ctx.save_for_forward(values, x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Grads:
        g = grads[0]
        nothing = (None,) * 6
        if g is None:
            return nothing
        values, x = ctx.saved_tensors
        # A^H lam = g is A^T conj(lam) = conj(g): one transpose solve serves real and complex alike.
        lam = conj(apply(_Solve, values, conj(g), None, ctx.system, not ctx.transposed, False))
        grad_values = None
        if values is not None and ctx.needs_input_grad[0]:
            if ctx.transposed:  # entry (i, j) of A is entry (j, i) of the matrix that was solved with
                grad_values = -conj(sampled(x, lam, ctx.system.pattern))
            else:
                grad_values = -sampled(lam, x, ctx.system.pattern)
        return grad_values, lam if ctx.needs_input_grad[1] else None, *nothing[2:]

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        dvalues, db = tangents[:2]
        with tangent_rule(ctx) as (values, x):
            if dvalues is not None:
                moved = times(dvalues, x, ctx.system.pattern, ctx.transposed)
                db = -moved if db is None else db - moved
            dx = None if db is None else apply(_Solve, values, db, None, ctx.system, ctx.transposed, False)
        return dx if ctx.told is None else (dx, None)

    @staticmethod
    def vmap(
        info: Any,
        in_dims: Grads,
        values: Tensor | None,
        b: Tensor,
        x0: Tensor | None,
        system: System,
        transposed: bool,
        primal: bool,
    ) -> tuple[Any, Any]:
        values_dim, b_dim, x0_dim = in_dims[:3]
        size, shape = info.batch_size, shape_of_member(b, b_dim)
        if size == 0:
            x, told = (
                empty(shape, b, values),
                nothing_to_solve(system.wanted, system.members, primal, b.new_empty(shape)),
            )
            return (x, 0) if told is None else ((x, told.new_empty(0, *told.shape)), (0, 0))
        if values_dim is None and system.pattern is None:  # a function, which is given what it was written for
            members = [
                apply(_Solve, None, at(b, b_dim, i), at(x0, x0_dim, i), system, transposed, primal) for i in range(size)
            ]
            if isinstance(members[0], Tensor):
                return torch.stack(members), 0
            return tuple(torch.stack(part) for part in zip(*members, strict=True)), (0, 0)
        if values_dim is None:  # one matrix: the batch becomes columns, and is solved with one factorisation
            start = None if x0 is None else fold(x0, x0_dim, size)
            solved = apply(_Solve, values, fold(b, b_dim, size), start, system, transposed, primal)
            if isinstance(solved, Tensor):
                return unfold(solved, size).reshape(size, *shape), 0
            return (unfold(solved[0], size).reshape(size, *shape), unfold(solved[1], size)), (0, 0)
        assert values is not None
        start = None if x0 is None else stack(x0, x0_dim, size)  # many matrices: the diagonal blocks of one
        sides = stack(values, values_dim, size), stack(b, b_dim, size)
        solved = apply(_Solve, *sides, start, system.blocks(size), transposed, primal)
        if isinstance(solved, Tensor):
            return solved.unflatten(0, (size, -1)), 0
        return tuple(part.unflatten(0, (size, -1)) for part in solved), (0, 0)
