"""The host's side of factors that precondition: incomplete ones, and those of ``direct``. NumPy only."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from tsgu._core.factors._ilu import IncompleteFactors
from tsgu._core.factors._superlu import SingularMatrixError
from tsgu_jax._program import _factors
from tsgu_jax._program._store import store

Array = npt.NDArray[Any]


def factor(drop_tol: float, fill_factor: float, shape: tuple[int, int], values: Array, row: Array, col: Array) -> Any:
    """Incomplete factors of one matrix.

    Raises
    ------
    ValueError
        If a factor is exactly singular.
    """
    symbolic, values = _factors.counted(shape, values, row, col)

    def make(values: Array) -> IncompleteFactors:
        return IncompleteFactors(_factors.merged(symbolic, values), symbolic, drop_tol, fill_factor)

    return store.of(("ilu", drop_tol, fill_factor, symbolic), values, make).lu


def solve(
    drop_tol: float,
    fill_factor: float,
    shape: tuple[int, int],
    transposed: bool,
    ndim: int,
    values: Array,
    row: Array,
    col: Array,
    v: Array,
) -> Array:
    """Solve with incomplete factors; NaN where they are singular, or the matrix is not finite."""

    def factors(*entries: Array) -> Any:
        try:
            return factor(drop_tol, fill_factor, shape, *entries)
        except ValueError:  # the NaN are the report
            return None

    return _solved(factors, transposed, ndim, values, row, col, v)


def solve_as_they_are(
    library: str,
    rtol: float | None,
    shape: tuple[int, int],
    transposed: bool,
    ndim: int,
    values: Array,
    row: Array,
    col: Array,
    v: Array,
) -> Array:
    """Solve with the factors of ``direct``, neither refined nor judged; NaN where they are singular."""
    return _solved(partial(_factors.factors, library, rtol, shape), transposed, ndim, values, row, col, v)


def _solved(
    factors: Callable[..., Any], transposed: bool, ndim: int, values: Array, row: Array, col: Array, v: Array
) -> Array:
    members, v = _factors.parts((values, row, col), v, ndim)
    x = np.empty_like(v)
    for part in members:
        x[part.place] = part.restored(_applied(factors(*part.entries), part.columns, transposed))
    return x


def _applied(lu: Any, v: Array, transposed: bool) -> Array:
    try:
        solved: Array = np.full_like(v, np.nan) if lu is None else lu.precondition(v, transposed)
    except SingularMatrixError:  # the NaN are the report
        return np.full_like(v, np.nan)
    return solved
