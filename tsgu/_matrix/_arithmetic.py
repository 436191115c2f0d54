"""Sums and products of sparse matrices: values of the result from values of the operands, by operations that torch
differentiates."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from tsgu._core.pattern import _arithmetic
from tsgu._core.pattern._arithmetic import Pairs
from tsgu._matrix._pattern import Pattern

Parts = tuple[Tensor, Pattern]
"""Values and the pattern that they stand on."""


class _Sum(NamedTuple):
    """The tensors of a :class:`tsgu._core.pattern._arithmetic.Sum`.

    No pattern where the sum stands on the pattern of an operand: that of A if ``left`` is None, else that of B.
    """

    pattern: Pattern | None
    left: Tensor | None
    right: Tensor | None


class _Product(NamedTuple):
    """See :class:`tsgu._core.pattern._arithmetic.Product`."""

    pattern: Pattern
    left: Tensor
    right: Tensor
    into: Tensor | None


def added(a: Parts, b: Parts) -> Parts:
    """A + B, for two matrices of one shape. Where one pattern has all positions of the other, the sum is on that."""
    (values, pattern), (other, beside) = a, b
    if pattern is beside:
        return values + other, pattern
    plan = _sums.find(pattern, beside)
    both = plan.pattern or (pattern if plan.left is None else beside)
    return _spread(values, plan.left, both.nnz) + _spread(other, plan.right, both.nnz), both


def multiplied(a: Parts, b: Parts) -> Parts:
    """A @ B, as sums of products of entries, over terms that are found once for two patterns."""
    plan = _products.find(a[1], b[1])
    terms = a[0].index_select(-1, plan.left) * b[0].index_select(-1, plan.right)
    return _spread(terms, plan.into, plan.pattern.nnz), plan.pattern


def diagonal(values: Tensor, pattern: Pattern) -> Tensor:
    """The diagonal, with zeros where nothing is stored, shape (..., min(m, n))."""
    place, stored = map(pattern._lift, _arithmetic.diagonal_of(pattern.symbolic))
    if pattern.nnz == 0:
        return values.new_zeros((*values.shape[:-1], place.shape[0]))
    return torch.where(stored, values.index_select(-1, place), 0)


@lru_cache(8)
def pattern_of_eye(n: int) -> Pattern:
    """Found again, so that what was found out about pairs with it is, too."""
    index = np.arange(n)
    return Pattern(index, index, (n, n))


def _spread(values: Tensor, place: Tensor | None, nnz: int) -> Tensor:
    """Each value added to the place where it belongs."""
    if place is None:
        return values
    return values.new_zeros((*values.shape[:-1], nnz)).index_add(-1, place, values)


def _plan_sum(a: Pattern, b: Pattern) -> _Sum:
    plan = _arithmetic.sum_of(a.symbolic, b.symbolic)
    left, right = (None if place is None else a._lift(place) for place in (plan.left, plan.right))
    known = plan.symbolic is a.symbolic or plan.symbolic is b.symbolic
    return _Sum(None if known else Pattern._of(plan.symbolic, a.device), left, right)


def _plan_product(a: Pattern, b: Pattern) -> _Product:
    plan = _arithmetic.product_of(a.symbolic, b.symbolic)
    into = None if plan.into is None else a._lift(plan.into)
    return _Product(Pattern._of(plan.symbolic, a.device), a._lift(plan.left), a._lift(plan.right), into)


_sums: Pairs[_Sum] = Pairs(_plan_sum)
_products: Pairs[_Product] = Pairs(_plan_product)
