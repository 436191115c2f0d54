"""Products of a sparse matrix as differentiable functions, and values that refuse derivatives."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from tsgu_jax._matrix import _products
from tsgu_jax._matrix._products import Entries
from tsgu_jax._program import _mesh
from tsgu_jax._program._promotion import as_usual


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def refusing(message: str, x: Any) -> Any:
    """x, a pytree, for which a derivative cannot be had."""
    return x


@refusing.defjvp
def _refuse(message: str, primals: Any, tangents: Any) -> Any:
    raise TypeError(message)


@jax.jit
@as_usual
def product(values: Array, x: Array, entries: Entries) -> Array:
    """A @ x for x of shape (n,) or (n, k); for a batch of values, of x with the same leading dimension."""
    values, x, entries = _mesh.alike(values, x, entries)
    return (jax.vmap(_product, in_axes=(0, 0, None)) if values.ndim == 2 else _product)(values, x, entries)


@jax.custom_jvp
def _product(values: Array, x: Array, entries: Entries) -> Array:
    """By a layout, for speed."""
    return _times(values, x, entries, False)


@as_usual
def _product_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    values, x, entries = primals
    parts = [
        times(*factors, entries)
        for times, factors, tangent in (
            (_products.entrywise, (tangents[0], x), tangents[0]),
            (_linear, (values, tangents[1]), tangents[1]),
        )
        if not isinstance(tangent, jax.custom_derivatives.SymbolicZero)
    ]
    y = _product(values, x, entries)
    return y, sum(parts[1:], parts[0]) if parts else jnp.zeros_like(y)


_product.defjvp(_product_jvp, symbolic_zeros=True)


def _linear(values: Array, x: Array, entries: Entries) -> Array:
    """A x as something linear in x, transposed by the layout of A^T, where JAX would turn gathers into a scatter.

    It is the v of the system u = x, v - A u = 0, which ``custom_linear_solve`` differentiates.
    """
    m, n = entries.shape
    fixed = lax.stop_gradient(values)
    stacked, _ = _mesh.linear_solve(
        lambda uv: jnp.concatenate([uv[:n], uv[n:] - _products.entrywise(values, uv[:n], entries)]),
        jnp.concatenate([x, jnp.zeros((m, *x.shape[1:]), x.dtype)]),
        lambda b: (jnp.concatenate([b[:n], b[n:] + _times(fixed, b[:n], entries, False)]), None),
        lambda g: (jnp.concatenate([g[:n] + _times(fixed, g[n:], entries, True), g[n:]]), None),
    )
    return stacked[n:]


def _times(values: Array, x: Array, entries: Entries, transposed: bool) -> Array:
    return _products.apply(_products.operand(values, entries, transposed), x, finite=False)
