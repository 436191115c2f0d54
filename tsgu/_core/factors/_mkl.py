"""Calls of PARDISO in Intel's MKL, which pypardiso finds and loads.

pypardiso itself solves real general systems alone. Here its library is called as MKL documents it, in the form with
64-bit integers: the factors may have more than 2^31 entries where A has not.
"""

import ctypes
from collections.abc import Callable
from ctypes import byref, c_int64
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

ANALYSE, FACTOR, SOLVE, RELEASE = 11, 22, 33, -1
"""Phases: analysis; factorisation; substitution and refinement; release of memory."""

OUT_OF_MEMORY = -2
ERRORS = {
    -1: "the input is inconsistent",
    OUT_OF_MEMORY: "there is not enough memory",
    -3: "the reordering failed",
    -4: "a pivot is zero, or the refinement failed",
    -5: "an internal error, not classified",
    -6: "the preordering failed",
    -7: "a diagonal matrix is singular",
    -8: "an integer overflowed",
    -13: "the call was interrupted",
}


class PardisoError(RuntimeError):
    """PARDISO ended with an error code."""

    def __init__(self, code: int) -> None:
        super().__init__(f"PARDISO failed with error {code}: {ERRORS.get(code, 'see its documentation')}.")
        self.code = code


@cache
def installed() -> bool:
    """Whether pypardiso can be imported; looked up once, without importing it."""
    return find_spec("pypardiso") is not None


class Pardiso:
    """One matrix in the hands of PARDISO: the arguments of its calls, which read and change them.

    Parameters
    ----------
    data, indptr, indices : ndarray
        Rows of the matrix, sorted, from which refinement reads as well: data in double precision, indices of 64 bits,
        and of a symmetric or Hermitian matrix the upper triangle, with the whole diagonal.
    order : ndarray, shape (n,), int64
        The order of elimination, which is read or written where iparm(5) says so.
    mtype : int
        Type of the matrix.
    iparm : mapping
        Parameters other than the defaults, numbered from 1 as in MKL's documentation.
    """

    def __init__(
        self, data: Array, indptr: Array, indices: Array, order: Array, mtype: int, iparm: dict[int, int]
    ) -> None:
        self._function = _function()
        self.mtype = mtype
        self.data = data
        self._index, self._order = (indptr, indices), order
        self._handle = np.zeros(64, np.int64)
        self._iparm = np.zeros(64, np.int64)
        for number, value in {1: 1, 35: 1, **iparm}.items():  # parameters are given, and indices count from zero
            self[number] = value

    def __getitem__(self, number: int) -> int:
        return int(self._iparm[number - 1])

    def __setitem__(self, number: int, value: int) -> None:
        self._iparm[number - 1] = value

    @property
    def nbytes(self) -> int:
        """Memory that PARDISO says it holds, iparm(16) and iparm(17) in KiB, and that of the matrix."""
        return 1024 * (self[16] + self[17]) + self.data.nbytes + sum(index.nbytes for index in self._index)

    @property
    def expected(self) -> int:
        """Memory that the factorisation will take, as the analysis says, iparm(15) to iparm(17) in KiB."""
        return 1024 * max(self[15], self[16] + self[17])

    def call(self, phase: int, b: Array | None = None, x: Array | None = None) -> None:
        """Run a phase; b and x have their columns one after the other.

        Raises
        ------
        PardisoError, MemoryError
            As PARDISO reports.
        """
        n = self._index[0].size - 1
        columns = 1 if b is None or b.ndim == 1 else b.shape[1]
        one, silent, error = c_int64(1), c_int64(0), c_int64(0)
        self._function(
            self._handle.ctypes,
            byref(one),  # one matrix
            byref(one),  # of this structure
            byref(c_int64(self.mtype)),
            byref(c_int64(phase)),
            byref(c_int64(n)),
            self.data.ctypes,
            *(index.ctypes for index in self._index),
            self._order.ctypes,
            byref(c_int64(columns)),
            self._iparm.ctypes,
            byref(silent),
            None if b is None else b.ctypes,
            None if x is None else x.ctypes,
            byref(error),
        )
        if error.value == OUT_OF_MEMORY:
            raise MemoryError(str(PardisoError(OUT_OF_MEMORY)))
        if error.value:
            raise PardisoError(error.value)


@cache
def _function() -> Callable[..., None]:
    from pypardiso import ps  # where used, since it loads MKL

    function = ps.libmkl["pardiso_64"]  # by index, a function of our own: pypardiso declares arguments on its own
    function.argtypes, function.restype = [ctypes.c_void_p] * 16, None
    return function
