"""Vector arithmetic for one column (n,), or for columns (n, k) that do not mix; a scalar is one number per column.

Methods are written once for both: scalars have shape () or (k,) and broadcast against vectors.
"""

import jax.numpy as jnp
from jax import Array

from tsgu._core.methods._options import MODERATE


def dot(u: Array, v: Array) -> Array:
    """u^H v."""
    return jnp.vdot(u, v) if u.ndim == 1 else jnp.sum(u.conj() * v, axis=0)


def norm(u: Array) -> Array:
    """2-norm; vectors are scaled by the driver, so that nothing overflows or vanishes."""
    return jnp.sqrt(dot(u, u).real)


def divide(a: Array, b: Array) -> Array:
    """a / b, and 0 where b is 0: a step that breaks down then changes nothing."""
    return jnp.where(b != 0, a / jnp.where(b != 0, b, 1), 0)


def relative_to(left: Array, size: Array) -> Array:
    """A residual relative to its right-hand side; where that is zero, so is the residual or it is infinitely large."""
    return jnp.where(size > 0, left / jnp.where(size > 0, size, 1), jnp.where(left == 0, 0, jnp.inf))


def root(a: Array) -> Array:
    """sqrt(a), and 0 where a is negative."""
    return jnp.sqrt(jnp.maximum(a, 0))


def dots(basis: Array, v: Array) -> Array:
    """u^H v for each u of a basis (m, n) or (m, n, k)."""
    return (basis @ v.conj()).conj() if v.ndim == 1 else jnp.sum(basis.conj() * v, axis=1)


def combine(basis: Array, h: Array) -> Array:
    """sum_i h_i u_i."""
    return h @ basis if basis.ndim == 2 else jnp.sum(h[:, None] * basis, axis=0)


def power_of_two(columns: Array) -> Array:
    """A power of two near the largest entry of each column, 1 for a zero column; scaling by it is exact.

    At most one whose reciprocal, by which XLA may multiply, is not subnormal: it would take that as zero.
    """
    largest = jnp.max(jnp.abs(columns), axis=0)
    mantissa, _ = jnp.frexp(largest)
    power = largest / jnp.where(largest > 0, 2 * mantissa, 1)
    return jnp.where(largest > 0, jnp.minimum(power, 1 / jnp.finfo(largest.dtype).tiny), 1)


def unit(values: Array) -> Array:
    """A power of two near the largest entry of a matrix, 1 where its entries are moderate."""
    largest = jnp.maximum(jnp.max(jnp.abs(values.real), initial=0), jnp.max(jnp.abs(values.imag), initial=0))
    moderate = (largest >= 1 / MODERATE) & (largest <= MODERATE)
    return jnp.where(moderate | ~jnp.isfinite(largest), 1, power_of_two(largest[None])).astype(largest.dtype)


def times_ratio(x: Array, up: Array, down: Array) -> Array:
    """x up / down for powers of two, which overflows and vanishes only where the result does."""
    together = (up >= 1) == (down >= 1)  # then the ratio is a normal number
    return x * jnp.where(together, up / down, up) / jnp.where(together, 1, down)
