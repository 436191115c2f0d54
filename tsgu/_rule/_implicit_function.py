"""The gradient rule where A is a function, differentiated with respect to what the function closes over.

The tensors that a function f closes over are arguments of nothing, so that a rule on arguments misses them. But they
are in the graph of f(x). With x the solution, found without a graph, and S the solve with A, taken as a constant,

    x1 = x + S(b - f(x)),        x2 = x1 + S(b - f(x1)).

All three have the same value, since b - f(x) vanishes. Where A and b move, each step is one of iterative refinement
with the factors of before, which gains one order: x1 is right to first order, and x2 to second. S has the value zero,
and is transposed by a solve with A^H.

In the backward pass, x1 receives g - A^H lam, which is what the adjoint solve left over: below the target of that solve
it is as good as zero, and no other solve is spent on it. It still depends on g and lam, and so keeps its graph.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd import Function, forward_ad

from tsgu._matrix import _internals
from tsgu._matrix._autodiff import Grads, at, conj, plain, tangent_rule
from tsgu._matrix._internals import apply
from tsgu._rule import _implicit
from tsgu._rule._outcome import settled

REDUNDANT = 2.0
"""A right-hand side below this multiple of what other solves of a backward pass may leave is not solved for."""


class System(_implicit.System, Protocol):
    """What the rule must know beyond the solves."""

    def adjoint_target(self, dtype: torch.dtype) -> float:
        """The relative residual at which the solves of a derivative stop."""
        ...

    def product(self, x: Tensor) -> Tensor:
        """f(x), in the graph."""
        ...


def solve(b: Tensor, x0: Tensor | None, system: System) -> Any:
    """Solve f(x) = b; differentiable with respect to b and to what f closes over, to second order.

    With ``system.wanted.told`` it returns a pair, as that of :mod:`tsgu._rule._implicit` does.
    """
    left_over = _LeftOver(system.adjoint_target(b.dtype))
    solved = _implicit.solve(None, _constant(b), x0, system)
    x, told = solved if isinstance(solved, tuple) else (solved, None)
    for _ in range(2):
        x = x + apply(_Step, b - system.product(x), system, left_over, False, False)
    return x if told is None else (x, told)


def _constant(b: Tensor) -> Tensor:
    """b without graph and without tangent, at the level of torch.func at hand."""
    return forward_ad.unpack_dual(b.detach()).primal


class _LeftOver:
    """What the solves of the backward pass at hand leave over, by the direction in which they solve."""

    def __init__(self, target: float) -> None:
        self._target = target
        self._levels: dict[tuple[int, bool], list[float]] = {}

    def covers(self, b: Tensor, transposed: bool) -> bool:
        """Whether another solve may have left as much as this right-hand side; if not, it counts as solved with."""
        task = _internals.backward_pass()
        if task < 0 or _internals.is_transformed(b) or _internals.is_batched_by_autograd(b):
            return False
        norms = torch.linalg.vector_norm(b.detach(), dim=0, dtype=_double(b)).reshape(-1).tolist()
        known = self._levels.get((task, transposed))
        if known is not None and all(norm <= level for norm, level in zip(norms, known, strict=True)):
            return True
        eps = torch.finfo(b.dtype).eps
        levels = [REDUNDANT * max(self._target, 100 * eps) * norm for norm in norms]
        if known is not None:
            levels = list(map(max, levels, known))
        self._levels = {key: value for key, value in self._levels.items() if key[0] == task}  # of this pass alone
        self._levels[task, transposed] = levels
        return False


def _double(b: Tensor) -> torch.dtype:
    """A dtype in which the norm of anything neither vanishes nor overflows, in single precision at least."""
    return torch.complex128 if b.is_complex() else torch.float64


class _Step(Function):
    """The solve with A, or with A^T, as a linear map; ``counted`` where its value is not as good as zero."""

    @staticmethod
    def forward(r: Tensor, system: System, left_over: _LeftOver, transposed: bool, counted: bool) -> Tensor:
        if not counted or r.numel() == 0:
            return torch.zeros_like(r)
        (x,), _ = settled(system.wanted, 1, False, lambda: (system.solve(None, plain(r), None, transposed, False),))
        return x

    @staticmethod
    def setup_context(ctx: Any, inputs: Grads, output: Tensor) -> None:
        _, ctx.system, ctx.left_over, ctx.transposed, _ = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_forward(output)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Grads:
        (g,) = grads
        if g is None:
            return (None,) * 5
        g = conj(g)  # A^H lam = g is A^T conj(lam) = conj(g)
        counted = not ctx.left_over.covers(g, not ctx.transposed)
        lam = apply(_Step, g, ctx.system, ctx.left_over, not ctx.transposed, counted)
        return conj(lam), None, None, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor | None:
        with tangent_rule(ctx):
            dr = tangents[0]
            return None if dr is None else apply(_Step, dr, ctx.system, ctx.left_over, ctx.transposed, True)

    @staticmethod
    def vmap(info: Any, in_dims: Grads, r: Tensor, *rest: Any) -> tuple[Tensor, int]:
        return torch.stack([apply(_Step, at(r, in_dims[0], i), *rest) for i in range(info.batch_size)]), 0
