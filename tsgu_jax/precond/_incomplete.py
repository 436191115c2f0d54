"""The host's side of ``ilu``: incomplete factors by number, beside the factors of ``direct``. NumPy only."""

from typing import Any

import numpy as np
import numpy.typing as npt

from tsgu._core.factors._ilu import IncompleteFactors
from tsgu_jax._program._factors import canonical, member, numbers, numbers_of, parts, words_of
from tsgu_jax._program._store import store

Array = npt.NDArray[Any]


def add(n: int, drop_tol: float, fill_factor: float, values: Array, row: Array, col: Array) -> int:
    """Incomplete factors of one matrix; their number.

    Raises
    ------
    ValueError
        If a factor is exactly singular.
    """
    symbolic, values = canonical((n, n), values, row, col)
    return _kept(IncompleteFactors(values, symbolic, drop_tol, fill_factor))


def _kept(lu: IncompleteFactors | None) -> int:
    number = numbers.next()
    store.keep(number, lu)
    return number


def find(n: int, drop_tol: float, fill_factor: float, number: Any, values: Any, row: Any, col: Any) -> Array:
    """The numbers of incomplete factors that are there: those given, or new ones for what was dropped or never made."""
    number = numbers_of(number)
    found = np.empty(np.broadcast_shapes(number.shape, values.shape[:-1], row.shape[:-1]), np.uint64)
    for index in np.ndindex(found.shape):
        known = int(member(number, index, 0))
        entries = [member(a, index, 1) for a in (values, row, col)]
        found[index] = known
        if known == 0 or store.find(known) is None:
            try:
                found[index] = add(n, drop_tol, fill_factor, *entries)
            except ValueError:  # a singular factor, or entries that are not finite
                found[index] = _kept(None)
    return words_of(found)


def solve(transposed: bool, ndim: int, number: Any, v: Any) -> Array:
    """Solve with incomplete factors; NaN where they are singular."""
    number = numbers_of(number)
    members, v = parts(number.shape, v, ndim)
    x = np.empty_like(v)
    for part in members:
        factors = store.find(int(member(number, part.member, 0)))
        if factors is None:
            raise RuntimeError(
                "the incomplete factors of ilu were dropped during a solve: too many large ones are used side by side."
            )
        lu: IncompleteFactors | None = factors.lu
        solved = np.full_like(part.columns, np.nan) if lu is None else lu.solve(part.columns, transposed)
        x[part.place] = part.restored(solved)
    return x
