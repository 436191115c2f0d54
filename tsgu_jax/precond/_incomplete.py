"""The host's side of factors that precondition: incomplete ones, and those of ``direct``, by number. NumPy only."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from tsgu._core.factors._ilu import IncompleteFactors
from tsgu._core.factors._superlu import SingularMatrixError
from tsgu_jax._program._factors import Factors, canonical, factor, member, numbers_of, parts, store, words_of

Array = npt.NDArray[Any]


def add(n: int, drop_tol: float, fill_factor: float, values: Array, row: Array, col: Array) -> int:
    """Incomplete factors of one matrix; their number.

    Raises
    ------
    ValueError
        If a factor is exactly singular.
    """
    symbolic, values = canonical((n, n), values, row, col)
    return store.add(Factors(IncompleteFactors(values, symbolic, drop_tol, fill_factor)))


def incomplete(n: int, drop_tol: float, fill_factor: float, values: Array, row: Array, col: Array) -> int:
    """The same in a program, where factors that are singular, or entries that are not finite, are to give NaN."""
    try:
        return add(n, drop_tol, fill_factor, values, row, col)
    except ValueError:  # the NaN are the report
        return store.add(Factors(None))


def complete(library: str, rtol: float | None, shape: tuple[int, int], values: Array, row: Array, col: Array) -> int:
    """Factors of ``direct``; their number."""
    return int(numbers_of(factor(library, rtol, shape, values, row, col)))


def find(make: Callable[[Array, Array, Array], int], number: Any, values: Any, row: Any, col: Any) -> Array:
    """The numbers of factors that are there: those given, or new ones for what was dropped or never made."""
    number = numbers_of(number)
    found = np.empty(np.broadcast_shapes(number.shape, values.shape[:-1], row.shape[:-1]), np.uint64)
    for index in np.ndindex(found.shape):
        known = int(member(number, index, 0))
        if known == 0 or store.find(known) is None:
            known = make(*(member(a, index, 1) for a in (values, row, col)))
        found[index] = known
    return words_of(found)


def solve(name: str, transposed: bool, ndim: int, number: Any, v: Any) -> Array:
    """Solve with these factors as they are; NaN where they are singular."""
    members, v = parts(numbers_of(number), v, ndim)
    x = np.empty_like(v)
    for part in members:
        factors = store.find(part.number)
        if factors is None:
            raise RuntimeError(
                f"the factors of {name} were dropped during a solve: too many large ones are used side by side."
            )
        x[part.place] = part.restored(_solved(factors.lu, part.columns, transposed))
    return x


def _solved(lu: Any, v: Array, transposed: bool) -> Array:
    try:
        solved: Array = np.full_like(v, np.nan) if lu is None else lu.precondition(v, transposed)
    except SingularMatrixError:  # the NaN are the report
        return np.full_like(v, np.nan)
    return solved
