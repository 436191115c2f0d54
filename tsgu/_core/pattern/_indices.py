"""Indices and shapes as a user gives them: arrays and lists of whole numbers, and the words for what is neither."""

import operator
from typing import Any

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[Any]


def as_indices(name: str, given: Any, accepted: str) -> Indices:
    """Indices given as a NumPy array, or as a list or tuple of whole numbers, as an array of them.

    ``accepted`` says what else the frontend takes.

    Raises
    ------
    TypeError
        If they are none of these, or their numbers are not whole by dtype.
    """
    if not isinstance(given, np.ndarray | list | tuple | range):
        raise TypeError(not_indices(name, accepted, type(given).__name__))
    try:
        array = np.asarray(given)
    except ValueError:  # rows of different length
        raise TypeError(not_indices(name, accepted, "a ragged list")) from None
    if array.size == 0 and not isinstance(given, np.ndarray):
        array = array.astype(np.int64)  # of an empty list NumPy makes floats
    check_index_dtype(name, array.dtype, array.dtype.kind in "iu", accepted)
    return array.astype(np.int64) if array.dtype.kind == "u" else array


def check_index_dtype(name: str, dtype: Any, whole: bool, accepted: str) -> None:
    if not whole:
        raise TypeError(not_indices(name, accepted, f"dtype {dtype}"))


def as_shape(given: Any) -> tuple[int, int]:
    """Two whole numbers, not negative, from a tuple, a list, an array or what else holds them.

    Raises
    ------
    TypeError
        If they are not two whole numbers.
    ValueError
        If one of them is negative.
    """
    try:
        m, n = (as_size(size) for size in given)
    except (TypeError, ValueError):
        raise TypeError(not_a_shape(given)) from None
    if min(m, n) < 0:
        raise ValueError(not_a_shape((m, n)))
    return m, n


def as_size(given: Any) -> int:
    """A whole number as Python's; a TypeError for anything else, bool too.

    Raises
    ------
    TypeError
        If it is none.
    """
    if isinstance(given, bool | np.bool_) or str(getattr(given, "dtype", "")).endswith("bool"):
        raise TypeError
    return operator.index(given)


def check_lengths(row: Any, col: Any) -> None:
    """Arrays of any framework."""
    if row.ndim != 1 or row.shape != col.shape:
        raise ValueError(lengths_of_positions(tuple(row.shape), tuple(col.shape)))


def not_indices(name: str, accepted: str, got: str) -> str:
    return (
        f"{name} must hold whole numbers, as {accepted}, a NumPy array or a list; got {got}. "
        "Convert floats by .long() or .astype(int), and a mask by nonzero."
    )


def lengths_of_positions(row: tuple[int, ...], col: tuple[int, ...]) -> str:
    return f"row and col must be vectors of one length; got shapes {row} and {col}."


def not_a_shape(got: object) -> str:
    return f"shape must be two whole numbers, not negative, (m, n); got {got!r}."
