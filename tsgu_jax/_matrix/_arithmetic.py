"""Sums and products of sparse matrices: values of the result from values of the operands, by operations that JAX
differentiates."""

from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from tsgu._core.pattern import _arithmetic
from tsgu._core.pattern._arithmetic import Pairs
from tsgu_jax._matrix._pattern import Pattern
from tsgu_jax._matrix._products import Entries
from tsgu_jax._program import _internals

Parts = tuple[Array, Pattern]
"""Values and the pattern that they stand on; a pattern whose indices are known is settled."""


class _Sum(NamedTuple):
    """The arrays of a :class:`tsgu._core.pattern._arithmetic.Sum`.

    No pattern where the sum stands on the pattern of an operand: that of A if ``left`` is None, else that of B. Here
    ``left`` and ``right`` say which entry stands at each place of the sum, past the end for none: a gather, which is
    quicker than a scatter.
    """

    pattern: Pattern | None
    left: Any
    right: Any


class _Product(NamedTuple):
    """See :class:`tsgu._core.pattern._arithmetic.Product`."""

    pattern: Pattern
    left: Any
    right: Any
    into: Any


def added(a: Parts, b: Parts) -> Parts:
    """A + B, for two matrices of one shape. Where one pattern has all positions of the other, the sum is on that.

    Of traced indices it is not known where they meet: they are put one after the other, as repeated positions, which
    is how a traced pattern may be.
    """
    (values, pattern), (other, beside) = a, b
    if pattern is beside:
        return values + other, pattern
    if not is_known(pattern) or not is_known(beside):
        return _one_after_the_other(a, b)
    plan = _sums.find(pattern, beside)
    both = plan.pattern or (pattern if plan.left is None else beside)
    return _picked(values, plan.left) + _picked(other, plan.right), both


def multiplied(a: Parts, b: Parts) -> Parts:
    """A @ B, as sums of products of entries, over terms that are found once for two patterns."""
    plan = _products.find(a[1], b[1])
    terms = _picked(a[0], plan.left) * _picked(b[0], plan.right)
    if plan.into is not None:
        zeros = jnp.zeros((*terms.shape[:-1], plan.pattern.nnz), terms.dtype)
        terms = zeros.at[..., plan.into].add(terms, indices_are_sorted=True)
    return terms, plan.pattern


def diagonal(values: Array, pattern: Pattern) -> Array:
    """The diagonal, with zeros where nothing is stored, shape (..., min(m, n))."""
    if is_known(pattern):
        place, stored = _arithmetic.diagonal_of(pattern.symbolic)
        return _picked(values, np.where(stored, place, pattern.nnz))
    row, col, size = pattern.row, pattern.col, min(pattern.shape)
    zeros = jnp.zeros((*values.shape[:-1], size), values.dtype)
    return zeros.at[..., jnp.where(row == col, row, size)].add(values, mode="drop")


def is_known(pattern: Pattern) -> bool:
    """Whether its indices are, so that a result can be laid out."""
    return not _internals.is_traced(pattern.row, pattern.col)


@lru_cache(8)
def pattern_of_eye(n: int) -> Pattern:
    """Found again, so that what was found out about pairs with it is, too."""
    index = np.arange(n)
    return Pattern(index, index, (n, n))


def _picked(values: Array, place: Any) -> Array:
    """What stands at each place, zero past the end."""
    if place is None:
        return values
    if values.shape[-1] == 0:  # which JAX refuses to gather from
        return jnp.zeros((*values.shape[:-1], place.shape[0]), values.dtype)
    return values.at[..., place].get(mode="fill", fill_value=0)


def _one_after_the_other(a: Parts, b: Parts) -> Parts:
    (values, pattern), (other, beside) = a, b
    batch = jnp.broadcast_shapes(values.shape[:-1], other.shape[:-1])
    row, col = (
        jnp.concatenate([jnp.asarray(first), jnp.asarray(second)])
        for first, second in ((pattern.row, beside.row), (pattern.col, beside.col))
    )
    together = Pattern.__new__(Pattern)
    together._init(None, Entries(row, col, None, None, None, pattern.shape))
    dtype = jnp.promote_types(values.dtype, other.dtype)
    parts = [jnp.broadcast_to(v, (*batch, v.shape[-1])).astype(dtype) for v in (values, other)]
    return jnp.concatenate(parts, axis=-1), together


def _plan_sum(a: Pattern, b: Pattern) -> _Sum:
    plan = _arithmetic.sum_of(a.symbolic, b.symbolic)
    left, right = (None if place is None else _inverse(place, plan.symbolic.nnz) for place in (plan.left, plan.right))
    known = plan.symbolic is a.symbolic or plan.symbolic is b.symbolic
    return _Sum(None if known else Pattern._of(plan.symbolic), *_lifted((left, right)))


def _plan_product(a: Pattern, b: Pattern) -> _Product:
    plan = _arithmetic.product_of(a.symbolic, b.symbolic)
    return _Product(Pattern._of(plan.symbolic), *_lifted((plan.left, plan.right, plan.into)))


def _inverse(place: Any, size: int) -> Any:
    """Which entry stands at each of ``size`` places, the number of entries for none."""
    entry = np.full(size, place.size, place.dtype)
    entry[place] = np.arange(place.size)
    return entry


def _lifted(indices: tuple[Any, ...]) -> tuple[Any, ...]:
    with jax.ensure_compile_time_eval():  # kept beyond the program that is being traced
        lifted: tuple[Any, ...] = jax.tree.map(jnp.asarray, indices)
    return lifted


_sums: Pairs[_Sum] = Pairs(_plan_sum)
_products: Pairs[_Product] = Pairs(_plan_product)
