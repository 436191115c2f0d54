"""Factors of a matrix, such as an earlier one of a training loop, as a preconditioner for others; on the host."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import register_dataclass

from tsgu_jax._program import _factors, _host
from tsgu_jax.precond import _incomplete
from tsgu_jax.precond._base import Apply, Preconditioner


@partial(
    register_dataclass,
    data_fields=["number", "values", "row", "col"],
    meta_fields=["n", "library", "rtol", "transposed"],
)
@dataclass(frozen=True, eq=False, repr=False)
class Factored(Preconditioner):
    """Triangular solves with factors by number, as the factors are: neither refined nor judged.

    The entries of the matrix go to the host once a solve, so that factors which were dropped are made again.
    """

    number: Any
    values: Array
    row: Any
    col: Any
    n: int
    library: str
    rtol: float | None
    transposed: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        return self.n, self.n

    @property
    def dtype(self) -> Any:
        return self.values.dtype

    @property
    def apply(self) -> Apply:
        make = partial(_incomplete.complete, self.library, self.rtol, self.shape)
        entries = self.number, self.values, self.row, self.col
        words = jax.ShapeDtypeStruct((_factors.WORDS,), jnp.uint32)
        number = _host.call("direct", partial(_incomplete.find, make), words, *entries)

        def apply(v: Array) -> Array:
            solve = partial(_incomplete.solve, "direct", self.transposed, v.ndim)
            x: Array = _host.call("direct", solve, jax.ShapeDtypeStruct(v.shape, v.dtype), number, v)
            return x

        return apply

    @property
    def T(self) -> Factored:  # noqa: N802
        return replace(self, transposed=not self.transposed)

    def astype(self, dtype: Any) -> Factored:
        return self  # the factors take any vector
