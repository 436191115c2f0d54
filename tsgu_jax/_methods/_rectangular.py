"""A rectangular matrix and its conjugate transpose, as what least squares multiplies with."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import Array

from tsgu._core.methods._least_squares import EQUILIBRATE
from tsgu_jax._matrix import _products
from tsgu_jax._matrix._products import Entries


class RectangularOperator:
    """[A; damp I] D with a diagonal D of powers of two, and its conjugate transpose, each in a layout of its own.

    D brings the largest entry near one, so that no norm of a product overflows or vanishes. Where the norms of columns
    differ widely it brings each of them near one: then the tests of convergence look at every unknown, which they do
    not where one column is all that the norm of A knows, and LSMR needs fewer steps (van der Sluis 1969). What is
    minimised stays the same, with x = D x'; and A^H y = c becomes (A D)^H y = D c, with the same y.

    Attributes
    ----------
    scale : Array, shape (n,)
        The diagonal of D.
    columns : int
        Number of unknowns.
    norm : Array, shape ()
        Frobenius norm of [A; damp I] D.
    """

    def __init__(self, values: Array, entries: Entries, damp: Any) -> None:
        m, n = entries.shape
        self.columns, self._upper = n, m
        self.scale, norms = _equilibration(jnp.abs(values), entries, damp)
        self.norm = jnp.sqrt(jnp.sum((norms * self.scale) ** 2))
        self._damp = None if damp is None else damp * self.scale
        scaled = values * _column_of(self.scale, entries)
        self._entries, self._magnitudes = entries, jnp.abs(scaled)
        self._forward = _products.operand(scaled, entries, False)
        self._adjoint = _products.operand(scaled.conj(), entries, True)

    def apply(self, x: Array) -> Array:
        """A x."""
        upper = _products.apply(self._forward, x)
        return upper if self._damp is None else jnp.concatenate([upper, rows(self._damp, x) * x])

    def adjoint(self, u: Array) -> Array:
        """A^H u."""
        upper = _products.apply(self._adjoint, u[: self._upper])
        return upper if self._damp is None else upper + rows(self._damp, u) * u[self._upper :]

    def magnitude(self, x: Array) -> Array:
        """|A| |x|, which bounds what rounding does to A x."""
        x = jnp.abs(x)
        upper = _products.apply(_products.operand(self._magnitudes, self._entries, False), x)
        return upper if self._damp is None else jnp.concatenate([upper, rows(self._damp, x) * x])

    def adjoint_magnitude(self, u: Array) -> Array:
        """|A|^T |u|."""
        u = jnp.abs(u)
        upper = _products.apply(_products.operand(self._magnitudes, self._entries, True), u[: self._upper])
        return upper if self._damp is None else upper + rows(self._damp, u) * u[self._upper :]

    @property
    def H(self) -> ConjugateTranspose:  # noqa: N802 - the name of the literature
        return ConjugateTranspose(self)


class ConjugateTranspose:
    """The same with the roles exchanged."""

    def __init__(self, operator: RectangularOperator) -> None:
        self.norm = operator.norm
        self.columns = operator._upper + (0 if operator._damp is None else operator.columns)
        self.apply, self.adjoint = operator.adjoint, operator.apply
        self.magnitude, self.adjoint_magnitude = operator.adjoint_magnitude, operator.magnitude


Rectangular = RectangularOperator | ConjugateTranspose


def _equilibration(values: Array, entries: Entries, damp: Any) -> tuple[Array, Array]:
    """The diagonal of D, and the 2-norms of the columns of [A; damp I] before scaling, as far as they can be held."""
    ones = jnp.ones(entries.shape[0], values.dtype)
    damp = jnp.zeros((), values.dtype) if damp is None else jnp.asarray(damp, values.dtype)

    def add_up(terms: Array) -> Array:
        return _products.apply(_products.operand(terms, entries, True), ones)

    largest = jnp.maximum(jnp.max(values, initial=0), damp)
    mantissa, _ = jnp.frexp(largest)
    top = jnp.where(largest > 0, largest / jnp.where(largest > 0, mantissa, 1) / 2, 1)
    values, damp = values / top, damp / top
    # Sums of entries first: the square of an entry that is small beside others might vanish.
    sums = add_up(values) + damp
    sums = jnp.where(sums > 0, sums, 1)
    squares = add_up((values / _column_of(sums, entries)) ** 2)
    norms = sums * jnp.sqrt(squares + (damp / sums) ** 2)
    _, exponent = jnp.frexp(jnp.where(norms > 0, norms, 0.5))
    differ = jnp.max(norms, initial=0) > EQUILIBRATE * jnp.min(jnp.where(norms > 0, norms, jnp.inf), initial=jnp.inf)
    return jnp.ldexp(jnp.broadcast_to(1 / top, norms.shape), jnp.where(differ, -exponent, 0)), norms * top


def _column_of(diagonal: Array, entries: Entries) -> Array:
    """What stands on a diagonal in the column of each entry."""
    return diagonal.at[entries.col].get(mode="fill", fill_value=1)


def rows(diagonal: Array, x: Array) -> Array:
    """A diagonal to multiply a vector or a block with."""
    return diagonal if x.ndim == 1 else diagonal[:, None]
