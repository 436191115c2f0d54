"""Factors of a matrix, such as an earlier one of a training loop, as a preconditioner for others; on the host."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
from jax import Array
from jax.tree_util import register_dataclass

from tsgu_jax._program import _host
from tsgu_jax.precond import _incomplete
from tsgu_jax.precond._base import Apply, Preconditioner


@partial(register_dataclass, data_fields=["values", "row", "col"], meta_fields=["n", "library", "rtol", "transposed"])
@dataclass(frozen=True, eq=False, repr=False)
class Factored(Preconditioner):
    """Triangular solves with the factors of a matrix as they are: neither refined nor judged.

    The host finds them by the entries of the matrix.
    """

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
        def apply(v: Array) -> Array:
            options = self.library, self.rtol, self.shape, self.transposed, v.ndim
            solve = partial(_incomplete.solve_as_they_are, *options)
            like = jax.ShapeDtypeStruct(v.shape, v.dtype)
            x: Array = _host.call("direct", solve, like, self.values, self.row, self.col, v)
            return x

        return apply

    @property
    def T(self) -> Factored:  # noqa: N802
        return replace(self, transposed=not self.transposed)

    def astype(self, dtype: Any) -> Factored:
        return self  # the factors take any vector
