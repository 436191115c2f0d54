"""Products of a sparse matrix, and the way from sparse tensors to values and back, as differentiable functions.

They are closed under differentiation: a product is differentiated through products and sampled products, a sampled
product through products. So every order is right by construction.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function, forward_ad

from tsgu._matrix import _internals, _origin, _products
from tsgu._matrix._internals import apply, stored_values
from tsgu._matrix._pattern import Pattern, pattern_of

Grads = tuple[Any, ...]


def product(values: Tensor, x: Tensor, pattern: Pattern) -> Tensor:
    """A @ x for x of shape (n,) or (n, k)."""
    return apply(_Product, values, x, pattern)


def sampled(u: Tensor, v: Tensor, pattern: Pattern) -> Tensor:
    """sum_k u[i, k] conj(v[j, k]) at the stored entries (i, j)."""
    return apply(_Sampled, u, v, pattern)


def extract(A: Tensor, pattern: Pattern) -> Tensor:
    """The values of a sparse tensor in the order of its pattern, shape (nnz,)."""
    return apply(_Extract, A, pattern)


def assemble(
    values: Tensor, pattern: Pattern, layout: torch.layout, index: torch.dtype, members: int | None = None
) -> Tensor:
    """The sparse tensor with these values; the inverse of :func:`extract`.

    ``members`` are those of a batch, whose pattern is block-diagonal.
    """
    return apply(_Assemble, values, pattern, layout, index, members)


class _Product(Function):
    @staticmethod
    def forward(values: Tensor, x: Tensor, pattern: Pattern) -> Tensor:
        return _products.csr_product(_products.csr(plain(values), pattern), plain(x))

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
        grad_x = times(conj(values), g, ctx.pattern, True) if ctx.needs_input_grad[1] else None
        return grad_values, grad_x, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor | None:
        return _bilinear_jvp(ctx, tangents, product)

    @staticmethod
    def vmap(info: Any, in_dims: Grads, values: Tensor, x: Tensor, pattern: Pattern) -> tuple[Tensor, int]:
        values_dim, x_dim, _ = in_dims
        if info.batch_size == 0:
            return empty((pattern.shape[0], *shape_of_member(x, x_dim)[1:]), x, values), 0
        if values_dim is None:
            y = product(values, fold(x, x_dim, info.batch_size), pattern)
            rows = (pattern.shape[0], *shape_of_member(x, x_dim)[1:])
            return y.unflatten(-1, (info.batch_size, -1)).movedim(-2, 0).reshape(info.batch_size, *rows), 0
        size = info.batch_size
        y = product(stack(values, values_dim, size), stack(x, x_dim, size), pattern._blocks(size))
        return y.unflatten(0, (size, -1)), 0


class _Sampled(Function):
    @staticmethod
    def forward(u: Tensor, v: Tensor, pattern: Pattern) -> Tensor:
        return _products.sampled_product(pattern, plain(u), plain(v))

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
        grad_v = times(conj(g), u, ctx.pattern, True) if ctx.needs_input_grad[1] else None
        return grad_u, grad_v, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor | None:
        return _bilinear_jvp(ctx, tangents, sampled)

    @staticmethod
    def vmap(info: Any, in_dims: Grads, u: Tensor, v: Tensor, pattern: Pattern) -> tuple[Tensor, int]:
        if info.batch_size == 0:
            return empty((pattern.nnz,), u, v), 0
        size = info.batch_size
        entries = sampled(stack(u, in_dims[0], size), stack(v, in_dims[1], size), pattern._blocks(size))
        return entries.unflatten(0, (size, -1)), 0


class _Extract(Function):
    @staticmethod
    def forward(A: Tensor, pattern: Pattern) -> Tensor:
        given = stored_values(A)
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
        values = plain(values).clone()  # a result may not share memory with an input
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
        elif g is not None and stored_values(g).numel():  # without entries: a gradient that was never asked for
            given = pattern_of(g)
            grad_values = ctx.pattern._pick(extract(g, given), given)
        return grad_values, None, None, None, None


@contextmanager
def tangent_rule(ctx: Any) -> Iterator[list[Any]]:
    """The saved tensors of a ``jvp``, without their tangents at the level being differentiated.

    PyTorch switches forward mode off while a ``jvp`` runs, so that a tangent of the tangent (``jacfwd(jacfwd(f))``)
    comes out silently wrong, for its own ``torch.linalg.solve`` too. Here it stays on; the level at hand is peeled off,
    since applying the function to a tensor that carries its tangent would call the same ``jvp`` again.
    """
    with _internals.forward_mode(True):
        yield [None if t is None else forward_ad.unpack_dual(t).primal for t in ctx.saved_tensors]


def conj(tensor: Tensor) -> Tensor:
    """The conjugate, computed: a lazy one would reach the user, and could not become a NumPy array."""
    return torch.conj_physical(tensor) if tensor.is_complex() else tensor


def times(values: Tensor, x: Tensor, pattern: Pattern, transposed: bool) -> Tensor:
    """A @ x, or A^T @ x."""
    if transposed:
        return product(values.index_select(-1, pattern.transposition), x, pattern.T)
    return product(values, x, pattern)


def _bilinear_jvp(ctx: Any, tangents: Grads, function: Any) -> Tensor | None:
    da, db = tangents[:2]
    with tangent_rule(ctx) as (a, b):
        first = None if da is None else function(da, b, ctx.pattern)
        second = None if db is None else function(a, db, ctx.pattern)
        return second if first is None else first if second is None else first + second


def empty(shape: tuple[int, ...], like: Tensor, *others: Tensor | None) -> Tensor:
    """The result for a batch without members, which keeps its place in the graph."""
    return sum((t.sum() for t in (like, *others) if t is not None), like.new_zeros((0, *shape)))


def at(tensor: Any, dim: int | None, index: int) -> Any:
    return tensor if dim is None else tensor.select(dim, index)


def shape_of_member(tensor: Tensor, dim: int | None) -> tuple[int, ...]:
    """Shape of one member of the batch."""
    shape = list(tensor.shape)
    if dim is not None:
        shape.pop(dim)
    return tuple(shape)


def fold(tensor: Tensor, dim: int | None, size: int) -> Tensor:
    """A batch of (n,) or (n, k) laid side by side as the columns of (n, size * k)."""
    batch = tensor.unsqueeze(0).expand(size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
    columns = batch if batch.dim() == 3 else batch.unsqueeze(-1)
    return columns.movedim(0, 1).flatten(1)


def unfold(tensor: Tensor, size: int) -> Tensor:
    """A batch again, (size, ..., k), of columns laid side by side, (..., size * k)."""
    return tensor.unflatten(-1, (size, -1)).movedim(-2, 0)


def stack(tensor: Tensor, dim: int | None, size: int) -> Tensor:
    """A batch of (n,) or (n, k) one above the other, (size * n,) or (size * n, k), as diagonal blocks want them."""
    batch = tensor.unsqueeze(0).expand(size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
    return batch.flatten(0, 1)


def plain(tensor: Tensor) -> Tensor:
    """Without graph, tangent, lazy conjugation or lazy zeros: memory that a kernel can read."""
    return tensor.detach().clone() if _internals.is_lazy_zero(tensor) else tensor.detach().resolve_conj()
