"""The gradient rule of least squares, on values and dense tensors; helpers are in :mod:`tsgu._matrix._autodiff`.

Let x minimise ||A x - b||^2 + damp^2 ||x||^2, and r = b - A x. With c = 0 the two are the solution of

    K [r; x] = [b; c],        K = [I, A; A^H, -damp^2 I].

K is Hermitian, so that the adjoint and the tangent of (b, c) -> (r, x) are that map again. With upstream gradients
(g_r, g_x), in torch's convention,

    K [w; z] = [g_r; g_x],        grad_b = w,        grad_c = z,
    grad_A[i, j] = -sum_k (w[i, k] conj(x[j, k]) + r[i, k] conj(z[j, k]))  at the stored entries,

since <[w; z], dK [r; x]> = <w, dA x> + <z, dA^H r>; and in forward mode K [dr; dx] = [db - dA x; dc - dA^H r]. The two
terms are those of Golub and Pereyra (SIAM J. Numer. Anal. 10 (1973), 413-432, section 4). Every order and mode follows
from this one function, which is closed under differentiation together with products and sampled products.

A system with c = 0 takes a least-squares solve; one with c takes a solve with A^H before.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd import Function

from tsgu._core.report._place import Place, called_from
from tsgu._matrix import _autodiff
from tsgu._matrix._autodiff import Grads, sampled
from tsgu._matrix._internals import apply
from tsgu._matrix._pattern import Pattern

Pair = tuple[Tensor, Tensor]


class System(Protocol):
    """What the rule must know of a least-squares problem. An opaque object to functorch, as that of a linear system."""

    pattern: Pattern
    place: Place

    def solve(self, values: Tensor, b: Tensor | None, c: Tensor | None, x0: Tensor | None, primal: bool) -> Pair:
        """r and x with K [r; x] = [b; c], None standing for zero. ``primal`` marks the user's own problem."""
        ...

    def member(self, index: int, count: int) -> System:
        """The problem for one member of a batch of values."""
        ...


def lstsq(values: Tensor, b: Tensor, x0: Tensor | None, system: System) -> Tensor:
    """x that minimises ||A x - b|| for A given by values on ``system.pattern``; differentiable in values and b."""
    solved: Any = apply(_LeastSquares, values, b, None, x0, system, True)
    return solved[1]


class _LeastSquares(Function):
    @staticmethod
    def forward(
        values: Tensor, b: Tensor | None, c: Tensor | None, x0: Tensor | None, system: System, primal: bool
    ) -> Pair:
        m, n = system.pattern.shape
        given = c if b is None else b
        assert given is not None
        if n == 0 or given.numel() == 0:
            r = given.new_zeros(m, *given.shape[1:]) if b is None else _autodiff.plain(b).clone()
            return r, given.new_zeros(n, *given.shape[1:])
        b, c = (None if t is None else _autodiff.plain(t) for t in (b, c))
        with called_from(system.place):
            return system.solve(_autodiff.plain(values), b, c, x0, primal)

    @staticmethod
    def setup_context(ctx: Any, inputs: Grads, output: Pair) -> None:
        values, _, _, _, ctx.system, _ = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(values, *output)
        ctx.save_for_forward(values, *output)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Grads:
        g_r, g_x = grads
        nothing = (None,) * 6
        if g_r is None and g_x is None:
            return nothing
        values, r, x = ctx.saved_tensors
        w, z = _apply(values, g_r, g_x, ctx.system)
        needs_values, needs_b, needs_c = ctx.needs_input_grad[:3]
        grad_values = -(sampled(w, x, ctx.system.pattern) + sampled(r, z, ctx.system.pattern)) if needs_values else None
        return grad_values, w if needs_b else None, z if needs_c else None, *nothing[3:]

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[Tensor | None, Tensor | None]:
        dvalues, db, dc = tangents[:3]
        with _autodiff.tangent_rule(ctx) as (values, r, x):
            if dvalues is not None:
                moved = _autodiff.times(dvalues, x, ctx.system.pattern, False)
                turned = _autodiff.times(_autodiff.conj(dvalues), r, ctx.system.pattern, True)
                db = -moved if db is None else db - moved
                dc = -turned if dc is None else dc - turned
            return (None, None) if db is None and dc is None else _apply(values, db, dc, ctx.system)

    @staticmethod
    def vmap(
        info: Any,
        in_dims: Grads,
        values: Tensor,
        b: Tensor | None,
        c: Tensor | None,
        x0: Tensor | None,
        system: System,
        primal: bool,
    ) -> tuple[Pair, tuple[int, int]]:
        size, sides = info.batch_size, (b, c, x0)
        if size == 0:
            given, dim = (c, in_dims[2]) if b is None else (b, in_dims[1])
            assert given is not None
            columns, others = _autodiff.shape_of_member(given, dim)[1:], (values, None if given is c else c)
            r, x = (_autodiff.empty((rows, *columns), given, *others) for rows in system.pattern.shape)
            return (r, x), (0, 0)
        if in_dims[0] is None:  # one matrix: the batch becomes columns
            folded = (
                None if t is None else _autodiff.fold(t, dim, size) for t, dim in zip(sides, in_dims[1:4], strict=True)
            )
            solved = apply(_LeastSquares, values, *folded, system, primal)
            given, dim = (c, in_dims[2]) if b is None else (b, in_dims[1])
            assert given is not None
            columns = _autodiff.shape_of_member(given, dim)[1:]
            r, x = (y.unflatten(-1, (size, -1)).movedim(-2, 0).reshape(size, y.shape[0], *columns) for y in solved)
            return (r, x), (0, 0)
        members: list[Any] = [
            apply(
                _LeastSquares,
                *(_autodiff.at(t, dim, i) for t, dim in zip((values, *sides), in_dims[:4], strict=True)),
                system.member(i, size),
                primal,
            )
            for i in range(size)
        ]
        r, x = (torch.stack(part) for part in zip(*members, strict=True))
        return (r, x), (0, 0)


def _apply(values: Tensor, b: Tensor | None, c: Tensor | None, system: System) -> Pair:
    """A solve of the rule's own."""
    pair: Any = apply(_LeastSquares, values, b, c, None, system, False)
    return pair
