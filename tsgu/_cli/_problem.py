"""What is to be solved: the matrix, the right-hand side, and the loss to differentiate."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from tsgu._cli._arguments import Arguments
from tsgu._cli._errors import CommandError
from tsgu._cli._files import read_matrix, read_rhs
from tsgu._cli._heat import heat_conduction
from tsgu._cli._precond import Precond
from tsgu._core.methods._options import default_rtol
from tsgu._core.report import _wording

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Problem:
    """A x = b and the loss Re(w^H x), all in one dtype."""

    title: str
    A: sp.csr_array
    b: Array
    w: Array
    rtol: float
    precond: Precond | None = None


def build(arguments: Arguments) -> Problem:
    """The built-in problem, or that of the files.

    Raises
    ------
    CommandError
        If the files do not hold a system that can be solved.
    """
    if arguments.matrix is None:
        title, (A, b) = "2-D heat conduction", heat_conduction()
    else:
        title, A = str(arguments.matrix), read_matrix(arguments.matrix)
        b = np.ones(A.shape[0])
    if arguments.rhs is not None:
        b = read_rhs(arguments.rhs, A.shape[0])
    _check_finite(title, "A", A.data)
    _check_finite(title if arguments.rhs is None else str(arguments.rhs), "b", b)

    dtype = _working_dtype(A, b, arguments.dtype)
    with np.errstate(over="ignore"):  # found below, and said
        A.sum_duplicates()  # in double precision; it also puts the entries in order
        A, b = A.astype(dtype), b.astype(dtype)
    _check_finite(f"{title} in {dtype}", "A", A.data)
    _check_finite(f"{title} in {dtype}", "b", b)
    w = gaussian(np.random.default_rng(0), b.shape, dtype)
    rtol = default_rtol(float(np.finfo(dtype).eps)) if arguments.rtol is None else arguments.rtol
    return Problem(title, A, b, w, rtol, arguments.preconditioner)


def gaussian(random: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Normally distributed numbers, real or complex."""
    real = random.standard_normal(shape)
    return (real + 1j * random.standard_normal(shape) if dtype.kind == "c" else real).astype(dtype)


def _working_dtype(A: sp.csr_array, b: Array, asked: str | None) -> np.dtype[Any]:
    """As asked, else double precision, complex if A or b is."""
    field = np.result_type(A.dtype, b.dtype)
    if asked is None:
        return field
    dtype = np.dtype(asked)
    if field.kind == "c" and dtype.kind != "c":
        raise CommandError(f"argument --dtype: must be complex64 or complex128 for complex A or b; got {asked}")
    return dtype


def _check_finite(place: str, name: str, entries: Array) -> None:
    bad = int(np.count_nonzero(~np.isfinite(entries)))
    if bad:
        raise CommandError(f"{place}: {_wording.non_finite(name, bad, entries.size)}")
