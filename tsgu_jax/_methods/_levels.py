"""Substitution level by level, for accelerators: a step solves many rows at once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.tree_util import register_dataclass

from tsgu._core.pattern import _levels
from tsgu._core.pattern._triangle import Triangle
from tsgu_jax._program import _mesh


class Values(NamedTuple):
    """A triangle prepared: values and columns in row order, without the diagonal, and the diagonal."""

    values: Array
    col: Array
    start: Array
    stop: Array
    diagonal: Array


@partial(register_dataclass, data_fields=["rows", "pointers", "places", "columns"], meta_fields=[])
@dataclass(frozen=True, eq=False)
class Levels:
    """The arrays of a :class:`tsgu._core.pattern._levels.Schedule`."""

    rows: Any
    pointers: Any
    places: Any
    columns: Any


def schedules(triangle: Triangle) -> tuple[Levels, Levels]:
    """The steps for A and for A^T, as NumPy arrays."""
    s = triangle.symbolic
    other = Triangle(s.transpose, not triangle.upper, triangle.unit)
    places = np.arange(s.nnz, dtype=s.col.dtype), s.transposition
    forward, back = (
        Levels(*_levels.schedule(t, _levels.levels(t), p)) for t, p in zip((triangle, other), places, strict=True)
    )
    return forward, back


def substitute(levels: Levels, matrix: Values, b: Array) -> Array:
    """x with T x = b for b of shape (n, k)."""
    values = matrix.values.at[levels.places].get(mode="fill", fill_value=0)

    def step(s: Array, x: Array) -> Array:
        rows = levels.rows[s]
        left = _mesh.fori_loop(
            levels.pointers[s],
            levels.pointers[s + 1],
            lambda t, r: r - values[t][:, None] * x.at[levels.columns[t]].get(mode="fill", fill_value=0),
            b.at[rows].get(mode="fill", fill_value=0),
        )
        pivots = matrix.diagonal.at[rows].get(mode="fill", fill_value=1)
        return x.at[rows].set(left / pivots[:, None], mode="drop", unique_indices=False)

    return _mesh.fori_loop(0, levels.rows.shape[0], step, jnp.zeros_like(b))
