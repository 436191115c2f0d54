"""What became of a solve, as arrays of a compiled program."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.tree_util import register_dataclass

from tsgu._core.report._status import CODE, Status

STATUSES = tuple(CODE)
"""Statuses by number."""


class Info(NamedTuple):
    """What became of a solve, for each right-hand side: a pytree of arrays, under every transform.

    ``x, info = tsgu_jax.solve(..., return_info=True)`` gives it of the forward solve. The shape of its arrays is that
    of B without its rows: () or (k,), and (batch,) or (batch, k) for a batch.

    Attributes
    ----------
    status : Array of int32
        A number of :class:`Status`.
    iterations : Array of int32
        Steps taken; -1 where a method does not count any.
    residual : Array, of the real dtype of B
        True relative residual, as in :class:`SolveInfo`; NaN where it was not measured.

    Examples
    --------
    >>> import jax.numpy as jnp, tsgu_jax
    >>> from jax.experimental.sparse import BCOO
    >>> A = BCOO.fromdense(jnp.array([[4.0, 1.0], [1.0, 3.0]]))
    >>> x, info = tsgu_jax.solve(A, jnp.ones((2, 3)), solve=tsgu_jax.linear_cg, return_info=True)
    >>> tsgu_jax.Status(int(info.status[0])).words, info.iterations.tolist(), info.sound.tolist()
    ('converged', [2, 2, 2], [True, True, True])
    """

    status: Array
    iterations: Array
    residual: Array

    @property
    def sound(self) -> Array:
        """Whether each column is solved, to its target or to rounding level, or was not to be verified."""
        return self.status <= Status.NOT_VERIFIED


def nothing_to_solve(B: Array, batch: bool) -> Info:
    """Of a system without unknowns or right-hand sides."""
    shape = (B.shape[0], *B.shape[2:]) if batch else B.shape[1:]
    code = jnp.full(shape, Status.CONVERGED, jnp.int32)
    return Info(code, jnp.zeros(shape, jnp.int32), jnp.zeros(shape, jnp.finfo(B.dtype).dtype))


@partial(register_dataclass, data_fields=["place"], meta_fields=["names"])
@dataclass(frozen=True)
class Choice:
    """Which of several methods it was that solved; for each its name and a note for the log."""

    place: Array | int  # ()
    names: tuple[tuple[str, str], ...]


@partial(register_dataclass, data_fields=["place"], meta_fields=["size"])
@dataclass(frozen=True)
class Member:
    """Which member of a batch it was."""

    place: Array | int  # ()
    size: int


class Outcome(NamedTuple):
    """One solve; the shape of the fields is that of the columns, (k,) or (). What was not measured is None."""

    code: Array  # index in STATUSES
    steps: Array | None = None  # below zero where they were not counted
    residual: Array | None = None  # true relative residual
    history: Array | None = None  # (steps kept, ...)
    target: Array | float | None = None  # what the residual should have reached, ()
    choice: Choice | None = None  # where a method chose another one
    member: Member | None = None  # of a batch that is one SparseMatrix

    def info(self, dtype: Any) -> Info:
        """The same for the user, beside a solution of this dtype."""
        steps, residual, real = self.steps, self.residual, jnp.finfo(dtype).dtype
        return Info(
            self.code.astype(jnp.int32),
            jnp.full(self.code.shape, -1, jnp.int32) if steps is None else steps.astype(jnp.int32),
            jnp.full(self.code.shape, jnp.nan, real) if residual is None else residual.astype(real),
        )

    @property
    def sound(self) -> Array:
        """Whether there is nothing to warn of, for each column."""
        return self.code <= Status.NOT_VERIFIED
