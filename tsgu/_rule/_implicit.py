"""The gradient rule of linear systems, and that of products, on values and dense tensors.

With :mod:`tsgu._rule._implicit_lstsq` for least squares and :mod:`tsgu._rule._implicit_function` for functions, this is
every ``torch.autograd.Function`` of the package.

For A x = b with upstream gradient g (torch's convention for complex numbers: g is the gradient with respect to the
conjugate),

    A^H lam = g,        grad_b = lam,        grad_A[i, j] = -sum_k lam[i, k] conj(x[j, k])  at the stored entries,

and in forward mode A dx = db - dA x. Both follow from differentiating A x = b:  dA x + A dx = db, so
<g, dx> = <g, A^-1 (db - dA x)> = <A^-H g, db - dA x>.  The adjoint and the tangent solve are the rule itself, with
their own derivatives, so that every higher order is right by construction.

The functions are closed under differentiation: a solve is differentiated through solves and sampled products, a sampled
product through products, a product through products and sampled products.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, Protocol

import torch
from torch import Tensor
from torch._C import _functorch
from torch._functorch.utils import unwrap_dead_wrappers
from torch.autograd import Function, forward_ad

from tsgu._core.report._place import Place, called_from
from tsgu._matrix import _origin, _products
from tsgu._matrix._autocast import uncast
from tsgu._matrix._pattern import Pattern, pattern_of

Grads = tuple[Any, ...]


class System(Protocol):
    """What the rule must know of a linear system: how to solve with A and with its transpose, and where A is stored.

    An opaque object to functorch, which copies dictionaries and tuples but hands other objects through.
    """

    pattern: Pattern | None
    place: Place

    def solve(self, values: Tensor | None, b: Tensor, x0: Tensor | None, transposed: bool, primal: bool) -> Tensor:
        """Solve A x = b, or A^T x = b. ``primal`` marks the user's own solve, whose inputs are checked."""
        ...

    def member(self, index: int) -> System:
        """The system for one member of a batch of values."""
        ...


def solve(values: Tensor | None, b: Tensor, x0: Tensor | None, system: System, transposed: bool = False) -> Tensor:
    """Solve A x = b, or A^T x = b, for A given by values on ``system.pattern``; differentiable in values and b, to any
    order.

    ``values`` is None for a matrix that is only a callable.
    """
    return _apply(_Solve, values, b, x0, system, transposed, True)


def product(values: Tensor, x: Tensor, pattern: Pattern) -> Tensor:
    """A @ x for x of shape (n,) or (n, k)."""
    return _apply(_Product, values, x, pattern)


def sampled(u: Tensor, v: Tensor, pattern: Pattern) -> Tensor:
    """sum_k u[i, k] conj(v[j, k]) at the stored entries (i, j)."""
    return _apply(_Sampled, u, v, pattern)


def extract(A: Tensor, pattern: Pattern) -> Tensor:
    """The values of a sparse tensor in the order of its pattern, shape (nnz,)."""
    return _apply(_Extract, A, pattern)


def assemble(
    values: Tensor, pattern: Pattern, layout: torch.layout, index: torch.dtype, members: int | None = None
) -> Tensor:
    """The sparse tensor with these values; the inverse of :func:`extract`.

    ``members`` are those of a batch, whose pattern is block-diagonal.
    """
    return _apply(_Assemble, values, pattern, layout, index, members)


class _Solve(Function):
    @staticmethod
    def forward(
        values: Tensor | None, b: Tensor, x0: Tensor | None, system: System, transposed: bool, primal: bool
    ) -> Tensor:
        if b.numel() == 0:
            return torch.zeros_like(b)
        with called_from(system.place):
            return system.solve(None if values is None else _plain(values), _plain(b), x0, transposed, primal)

    @staticmethod
    def setup_context(ctx: Any, inputs: Grads, output: Tensor) -> None:
        values, _, _, ctx.system, ctx.transposed, _ = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(values, output)
        ctx.save_for_forward(values, output)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Grads:
        (g,) = grads
        nothing = (None,) * 6
        if g is None:
            return nothing
        values, x = ctx.saved_tensors
        # A^H lam = g is A^T conj(lam) = conj(g): one transpose solve serves real and complex alike.
        lam = _conj(_apply(_Solve, values, _conj(g), None, ctx.system, not ctx.transposed, False))
        grad_values = None
        if values is not None and ctx.needs_input_grad[0]:
            if ctx.transposed:  # entry (i, j) of A is entry (j, i) of the matrix that was solved with
                grad_values = -_conj(sampled(x, lam, ctx.system.pattern))
            else:
                grad_values = -sampled(lam, x, ctx.system.pattern)
        return grad_values, lam if ctx.needs_input_grad[1] else None, *nothing[2:]

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor | None:
        dvalues, db = tangents[:2]
        with _tangent_rule(ctx) as (values, x):
            if dvalues is not None:
                moved = _times(dvalues, x, ctx.system.pattern, ctx.transposed)
                db = -moved if db is None else db - moved
            return None if db is None else _apply(_Solve, values, db, None, ctx.system, ctx.transposed, False)

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
    ) -> tuple[Tensor, int]:
        values_dim, b_dim, x0_dim = in_dims[:3]
        if info.batch_size == 0:
            return _empty(_shape(b, b_dim), b, values), 0
        if values_dim is None and system.pattern is None:  # a function, which is given what it was written for
            members = [
                _apply(_Solve, None, _at(b, b_dim, i), _at(x0, x0_dim, i), system, transposed, primal)
                for i in range(info.batch_size)
            ]
            return torch.stack(members), 0
        if values_dim is None:  # one matrix: the batch becomes columns, and is solved with one factorisation
            columns = _fold(b, b_dim, info.batch_size)
            start = None if x0 is None else _fold(x0, x0_dim, info.batch_size)
            x = _apply(_Solve, values, columns, start, system, transposed, primal)
            return x.unflatten(-1, (info.batch_size, -1)).movedim(-2, 0).reshape(info.batch_size, *_shape(b, b_dim)), 0
        solved = [
            _apply(
                _Solve,
                _at(values, values_dim, i),
                _at(b, b_dim, i),
                _at(x0, x0_dim, i),
                system.member(i),
                transposed,
                primal,
            )
            for i in range(info.batch_size)
        ]
        return torch.stack(solved), 0


class _Product(Function):
    @staticmethod
    def forward(values: Tensor, x: Tensor, pattern: Pattern) -> Tensor:
        return _products.csr_product(_products.csr(_plain(values), pattern), _plain(x))

    @staticmethod
    def setup_context(ctx: Any, inputs: Grads, output: Tensor) -> None:
        values, x, ctx.pattern = inputs
        ctx.save_for_backward(values, x)
        ctx.save_for_forward(values, x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Grads:
        (g,) = grads
        values, x = ctx.saved_tensors
        grad_values = sampled(g, x, ctx.pattern) if ctx.needs_input_grad[0] else None
        grad_x = _times(_conj(values), g, ctx.pattern, True) if ctx.needs_input_grad[1] else None
        return grad_values, grad_x, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor | None:
        return _bilinear_jvp(ctx, tangents, product)

    @staticmethod
    def vmap(info: Any, in_dims: Grads, values: Tensor, x: Tensor, pattern: Pattern) -> tuple[Tensor, int]:
        values_dim, x_dim, _ = in_dims
        if info.batch_size == 0:
            return _empty((pattern.shape[0], *_shape(x, x_dim)[1:]), x, values), 0
        if values_dim is None:
            y = product(values, _fold(x, x_dim, info.batch_size), pattern)
            rows = (pattern.shape[0], *_shape(x, x_dim)[1:])
            return y.unflatten(-1, (info.batch_size, -1)).movedim(-2, 0).reshape(info.batch_size, *rows), 0
        return _each(info, product, pattern, (values, values_dim), (x, x_dim)), 0


class _Sampled(Function):
    @staticmethod
    def forward(u: Tensor, v: Tensor, pattern: Pattern) -> Tensor:
        return _products.sampled_product(pattern, _plain(u), _plain(v))

    @staticmethod
    def setup_context(ctx: Any, inputs: Grads, output: Tensor) -> None:
        u, v, ctx.pattern = inputs
        ctx.save_for_backward(u, v)
        ctx.save_for_forward(u, v)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Grads:
        (g,) = grads
        u, v = ctx.saved_tensors
        grad_u = product(g, v, ctx.pattern) if ctx.needs_input_grad[0] else None
        grad_v = _times(_conj(g), u, ctx.pattern, True) if ctx.needs_input_grad[1] else None
        return grad_u, grad_v, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor | None:
        return _bilinear_jvp(ctx, tangents, sampled)

    @staticmethod
    def vmap(info: Any, in_dims: Grads, u: Tensor, v: Tensor, pattern: Pattern) -> tuple[Tensor, int]:
        if info.batch_size == 0:
            return _empty((pattern.nnz,), u, v), 0
        return _each(info, sampled, pattern, (u, in_dims[0]), (v, in_dims[1])), 0


class _Extract(Function):
    @staticmethod
    def forward(A: Tensor, pattern: Pattern) -> Tensor:
        given = A._values() if A.layout == torch.sparse_coo else A.values()
        return pattern.gather(given.detach().flatten())

    @staticmethod
    def setup_context(ctx: Any, inputs: Grads, output: Tensor) -> None:
        A, ctx.pattern = inputs
        ctx.layout, ctx.members = A.layout, A.shape[0] if A.dim() == 3 else None
        ctx.index = torch.int64 if A.layout == torch.sparse_coo else A.col_indices().dtype
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Grads:
        (g,) = grads
        if g is None:
            return None, None
        _origin.warn_if_second_order_is_lost(ctx, g)
        return assemble(g, ctx.pattern, ctx.layout, ctx.index, ctx.members), None


class _Assemble(Function):
    @staticmethod
    def forward(
        values: Tensor, pattern: Pattern, layout: torch.layout, index: torch.dtype, members: int | None
    ) -> Tensor:
        values = _plain(values).clone()  # a result may not share memory with an input
        if layout == torch.sparse_coo:
            place, shape = pattern._coordinates(members)
            indices = torch.stack(place).to(index)
            return torch.sparse_coo_tensor(indices, values, shape, is_coalesced=True, check_invariants=False)
        crow, col, shape = pattern._compressed(members)
        crow, col = crow.to(index, copy=True), col.to(index, copy=True)
        return torch.sparse_csr_tensor(crow, col, values.reshape(col.shape), shape, check_invariants=False)

    @staticmethod
    def setup_context(ctx: Any, inputs: Grads, output: Tensor) -> None:
        _, ctx.pattern, _, _, ctx.members = inputs
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Grads:
        (g,) = grads
        grad_values = None
        if g is not None and g.layout == torch.strided:
            grad_values = g[ctx.pattern._coordinates(ctx.members)[0]]
        elif g is not None and g._nnz():  # without entries: a gradient that was never asked for
            given = pattern_of(g)
            grad_values = ctx.pattern._pick(extract(g, given), given)
        return grad_values, None, None, None, None


@uncast
def _apply(function: Any, *args: Any) -> Any:
    """``function.apply``, also for the tensors of ``autograd.grad(..., is_grads_batched=True)``.

    That option still runs on the batching of PyTorch from before ``torch.func``, which knows nothing of a function's
    own ``vmap``: it is called here.
    """
    if not any(isinstance(a, Tensor) and _functorch.is_legacy_batchedtensor(a) for a in args):
        if torch._C._are_functorch_transforms_active():
            return function.apply(*args)
        # Function.apply first matches the arguments to the signature, which costs more than a small solve.
        return super(Function, function).apply(*unwrap_dead_wrappers(args))
    level = torch._C._vmapmode_increment_nesting() - 1
    torch._C._vmapmode_decrement_nesting()
    batched = [isinstance(a, Tensor) and _functorch.is_legacy_batchedtensor(a) for a in args]
    args = tuple(torch._remove_batch_dim(a, level, 1, 0) if b else a for a, b in zip(args, batched, strict=True))
    sizes = {a.shape[0] for a, b in zip(args, batched, strict=True) if b}
    info = SimpleNamespace(batch_size=sizes.pop(), randomness="error")
    result, _ = function.vmap(info, tuple(0 if b else None for b in batched), *args)
    if isinstance(result, tuple):
        return tuple(torch._add_batch_dim(part, 0, level) for part in result)
    return torch._add_batch_dim(result, 0, level)


def _plain(tensor: Tensor) -> Tensor:
    """Without graph, tangent, lazy conjugation or lazy zeros: memory that a kernel can read."""
    return tensor.detach().clone() if tensor._is_zerotensor() else tensor.detach().resolve_conj()


@contextmanager
def _tangent_rule(ctx: Any) -> Iterator[list[Any]]:
    """The saved tensors of a ``jvp``, without their tangents at the level being differentiated.

    PyTorch switches forward mode off while a ``jvp`` runs, so that a tangent of the tangent (``jacfwd(jacfwd(f))``)
    comes out silently wrong, for its own ``torch.linalg.solve`` too. Here it stays on; the level at hand is peeled off,
    since applying the function to a tensor that carries its tangent would call the same ``jvp`` again.
    """
    with forward_ad._set_fwd_grad_enabled(True):
        yield [None if t is None else forward_ad.unpack_dual(t).primal for t in ctx.saved_tensors]


def _conj(tensor: Tensor) -> Tensor:
    """The conjugate, computed: a lazy one would reach the user, and could not become a NumPy array."""
    return torch.conj_physical(tensor) if tensor.is_complex() else tensor


def _times(values: Tensor, x: Tensor, pattern: Pattern, transposed: bool) -> Tensor:
    """A @ x, or A^T @ x."""
    if transposed:
        return product(values.index_select(-1, pattern.transposition), x, pattern.T)
    return product(values, x, pattern)


def _bilinear_jvp(ctx: Any, tangents: Grads, function: Any) -> Tensor | None:
    da, db = tangents[:2]
    with _tangent_rule(ctx) as (a, b):
        first = None if da is None else function(da, b, ctx.pattern)
        second = None if db is None else function(a, db, ctx.pattern)
        return second if first is None else first if second is None else first + second


def _each(info: Any, function: Any, pattern: Pattern, *batched: tuple[Tensor, int | None]) -> Tensor:
    return torch.stack(
        [function(*(_at(tensor, dim, i) for tensor, dim in batched), pattern) for i in range(info.batch_size)]
    )


def _empty(shape: tuple[int, ...], like: Tensor, *others: Tensor | None) -> Tensor:
    """The result for a batch without members, which keeps its place in the graph."""
    return sum((t.sum() for t in (like, *others) if t is not None), like.new_zeros((0, *shape)))


def _at(tensor: Any, dim: int | None, index: int) -> Any:
    return tensor if dim is None else tensor.select(dim, index)


def _shape(tensor: Tensor, dim: int | None) -> tuple[int, ...]:
    """Shape of one member of the batch."""
    shape = list(tensor.shape)
    if dim is not None:
        shape.pop(dim)
    return tuple(shape)


def _fold(tensor: Tensor, dim: int | None, size: int) -> Tensor:
    """A batch of (n,) or (n, k) laid side by side as the columns of (n, size * k)."""
    batch = tensor.unsqueeze(0).expand(size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
    columns = batch if batch.dim() == 3 else batch.unsqueeze(-1)
    return columns.movedim(0, 1).flatten(1)
