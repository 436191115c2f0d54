"""What the arithmetic of sparse matrices takes, and the words for what it does not take."""

from numbers import Number
from typing import Any

import numpy as np
import scipy.sparse as sp

from tsgu._core.pattern._indices import as_size

Kinds = tuple[type, ...]


def not_a_scalar(symbol: str, got: str) -> str:
    return (
        f"A {symbol} s must have a number as s, or one in an array of shape (); got {got}. Multiply matrices and "
        "vectors by A @ X, and entries by A.with_values(A.values * s)."
    )


def not_a_summand(symbol: str, got: str, conversions: str) -> str:
    return (
        f"A {symbol} X must have a SparseMatrix as X; got {got}. Convert a sparse one by {conversions}, add a dense "
        "one to A.to_dense(), and shift the diagonal by s * SparseMatrix.eye(n)."
    )


def shapes_of_sum(symbol: str, a: tuple[int, ...], b: tuple[int, ...]) -> str:
    return f"A {symbol} X must have two matrices of one shape, and batches of one size; got {a} and {b}."


def shapes_of_product(a: tuple[int, ...], b: tuple[int, ...]) -> str:
    return f"A @ X must have as many rows of X as columns of A, and batches of one size; got {a} and {b}."


def one_device(symbol: str, a: object, b: object) -> str:
    return f"A {symbol} X must have both matrices on one device; got {a} and {b}. Move one by X.to(device)."


def concrete_product() -> str:
    return (
        "A @ X of two sparse matrices must have patterns that are known; got traced indices, of which the number of "
        "terms is not. Build the patterns outside of jit, close over them and pass values alone, or multiply one after "
        "the other, A @ (X @ y)."
    )


def size_of_eye(got: object) -> str:
    return f"n must be a whole number, not negative; got {got!r}."


def is_scalar(symbol: str, s: Any, arrays: Kinds) -> bool:
    """Whether a matrix can be scaled by it; False for what may know itself what to do.

    Raises
    ------
    TypeError
        For what has a shape.
    """
    shape = getattr(s, "shape", ())
    if len(shape):
        raise TypeError(not_a_scalar(symbol, f"{type(s).__name__} of shape {tuple(shape)}"))
    return isinstance(s, (*arrays, Number, np.generic, np.ndarray))


def refuse_summand(symbol: str, X: Any, arrays: Kinds, conversions: str) -> None:
    """Words for what is likely to be meant; nothing for what may know itself what to do."""
    if isinstance(X, Number):
        raise TypeError(not_a_summand(symbol, f"the number {X!r}", conversions))
    if isinstance(X, (*arrays, np.ndarray, np.generic)) or sp.issparse(X):
        raise TypeError(not_a_summand(symbol, f"{type(X).__name__} of shape {tuple(X.shape)}", conversions))


def check_shapes(symbol: str, a: tuple[int, ...], b: tuple[int, ...]) -> None:
    batches_fit = len(a) == 2 or len(b) == 2 or a[0] == b[0]
    if symbol == "@" and (a[-1] != b[-2] or not batches_fit):
        raise ValueError(shapes_of_product(a, b))
    if symbol != "@" and (a[-2:] != b[-2:] or not batches_fit):
        raise ValueError(shapes_of_sum(symbol, a, b))


def checked_size(n: Any) -> int:
    """The size of an identity."""
    try:
        size = as_size(n)
    except TypeError:
        raise TypeError(size_of_eye(n)) from None
    if size < 0:
        raise ValueError(size_of_eye(n))
    return size
