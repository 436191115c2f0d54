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

from tsgu._core.report._log import gathered
from tsgu._core.report._place import Place, called_from
from tsgu._matrix import _autodiff
from tsgu._matrix._autodiff import Grads, sampled
from tsgu._matrix._internals import apply
from tsgu._matrix._pattern import Pattern
from tsgu._rule._outcome import Wanted, nothing_to_solve, settled

Pair = tuple[Tensor, Tensor]


class System(Protocol):
    """What the rule must know of a least-squares problem. An opaque object to functorch, as that of a linear system."""

    pattern: Pattern
    place: Place
    wanted: Wanted

    def solve(self, values: Tensor, b: Tensor | None, c: Tensor | None, x0: Tensor | None, primal: bool) -> Pair:
        """r and x with K [r; x] = [b; c], None standing for zero. ``primal`` marks the user's own problem."""
        ...

    def member(self, index: int, count: int) -> System:
        """The problem for one member of a batch of values."""
        ...


def lstsq(values: Tensor, b: Tensor, x0: Tensor | None, system: System) -> Any:
    """x that minimises ||A x - b|| for A given by values on ``system.pattern``; differentiable in values and b.

    With ``system.wanted.told`` it returns a pair: x, and what became of the solve, (1, 3, k), without a gradient.
    """
    _, x, *told = apply(_LeastSquares, values, b, None, x0, system, True)
    return (x, *told) if told else x


class _LeastSquares(Function):
    @staticmethod
    def forward(
        values: Tensor, b: Tensor | None, c: Tensor | None, x0: Tensor | None, system: System, primal: bool
    ) -> tuple[Tensor, ...]:
        m, n = system.pattern.shape
        given = c if b is None else b
        assert given is not None
        if n == 0 or given.numel() == 0:
            r = given.new_zeros(m, *given.shape[1:]) if b is None else _autodiff.plain(b).clone()
            told = nothing_to_solve(system.wanted, 1, primal, given)
            return _joined(r, given.new_zeros(n, *given.shape[1:]), told)
        b, c = (None if t is None else _autodiff.plain(t) for t in (b, c))
        with called_from(system.place):
            held = _autodiff.plain(values)
            (r, x), told = settled(system.wanted, 1, primal, lambda: system.solve(held, b, c, x0, primal))
        return _joined(r, x, told)

    @staticmethod
    def setup_context(ctx: Any, inputs: Grads, output: tuple[Tensor, ...]) -> None:
        values, _, _, _, ctx.system, _ = inputs
        ctx.tells = len(output) > 2
        ctx.mark_non_differentiable(*output[2:])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(values, *output[:2])
        ctx.save_for_forward(values, *output[:2])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Grads:
        g_r, g_x = grads[:2]
        nothing = (None,) * 6
        if g_r is None and g_x is None:
            return nothing
        values, r, x = ctx.saved_tensors
        w, z = _apply(values, g_r, g_x, ctx.system)
        needs_values, needs_b, needs_c = ctx.needs_input_grad[:3]
        grad_values = -(sampled(w, x, ctx.system.pattern) + sampled(r, z, ctx.system.pattern)) if needs_values else None
        return grad_values, w if needs_b else None, z if needs_c else None, *nothing[3:]

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[Tensor | None, ...]:
        dvalues, db, dc = tangents[:3]
        with _autodiff.tangent_rule(ctx) as (values, r, x):
            if dvalues is not None:
                moved = _autodiff.times(dvalues, x, ctx.system.pattern, False)
                turned = _autodiff.times(_autodiff.conj(dvalues), r, ctx.system.pattern, True)
                db = -moved if db is None else db - moved
                dc = -turned if dc is None else dc - turned
            pair = (None, None) if db is None and dc is None else _apply(values, db, dc, ctx.system)
        return (*pair, None) if ctx.tells else pair

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
    ) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        size, sides = info.batch_size, (b, c, x0)
        if size == 0:
            given, dim = (c, in_dims[2]) if b is None else (b, in_dims[1])
            assert given is not None
            columns, others = _autodiff.shape_of_member(given, dim)[1:], (values, None if given is c else c)
            r, x = (_autodiff.empty((rows, *columns), given, *others) for rows in system.pattern.shape)
            told = nothing_to_solve(system.wanted, 1, primal, given.new_empty(0, *columns))
            return _mapped(_joined(r, x, None if told is None else told.new_empty(0, *told.shape)))
        if in_dims[0] is None:  # one matrix: the batch becomes columns
            folded = (
                None if t is None else _autodiff.fold(t, dim, size) for t, dim in zip(sides, in_dims[1:4], strict=True)
            )
            solved = apply(_LeastSquares, values, *folded, system, primal)
            given, dim = (c, in_dims[2]) if b is None else (b, in_dims[1])
            assert given is not None
            columns = _autodiff.shape_of_member(given, dim)[1:]
            r, x = (_autodiff.unfold(y, size).reshape(size, y.shape[0], *columns) for y in solved[:2])
            return _mapped((r, x, *(_autodiff.unfold(told, size) for told in solved[2:])))
        with called_from(system.place), gathered(system.wanted.policy, every=False):
            members: list[Any] = [
                apply(
                    _LeastSquares,
                    *(_autodiff.at(t, dim, i) for t, dim in zip((values, *sides), in_dims[:4], strict=True)),
                    system.member(i, size),
                    primal,
                )
                for i in range(size)
            ]
        return _mapped(tuple(torch.stack(part) for part in zip(*members, strict=True)))


def _joined(r: Tensor, x: Tensor, told: Tensor | None) -> tuple[Tensor, ...]:
    return (r, x) if told is None else (r, x, told)


def _mapped(parts: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
    """The results of a batch, whose members are along the first dimension of each."""
    return parts, (0,) * len(parts)


def _apply(values: Tensor, b: Tensor | None, c: Tensor | None, system: System) -> Pair:
    """A solve of the rule's own."""
    pair: Any = apply(_LeastSquares, values, b, c, None, system, False)
    return pair
