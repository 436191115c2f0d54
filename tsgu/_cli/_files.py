"""Reading matrices and right-hand sides, and making sure that results can be written before time is spent on them."""

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.io
import scipy.sparse as sp

from tsgu._cli._errors import CommandError, reason

Array = npt.NDArray[Any]


def read_matrix(path: Path) -> sp.csr_array:
    """A square matrix in double precision, in its own field, real or complex.

    Raises
    ------
    CommandError
        If there is no such matrix in the file.
    """
    if path.suffix == ".npz":
        given = _read(path, _binary(sp.load_npz), "a matrix written by scipy.sparse.save_npz")
    else:
        given = _read(path, scipy.io.mmread, "a Matrix Market file")
    if given.ndim != 2 or given.shape[0] != given.shape[1]:
        raise CommandError(f"{path}: the matrix must be square, (n, n); got {given.shape}")
    if given.shape[0] == 0:
        raise CommandError(f"{path}: the matrix must have at least one row; got (0, 0)")
    return sp.csr_array(_double(path, given))


def read_rhs(path: Path, n: int) -> Array:
    """A right-hand side in double precision, shape (n,) or (n, k).

    Raises
    ------
    CommandError
        If there is none for n unknowns in the file.
    """
    if path.suffix == ".npy":
        given = _read(path, _binary(np.load), "an array written by numpy.save")
    elif {".mtx", ".mm"} & set(path.suffixes[-2:]):
        given = _read(path, scipy.io.mmread, "a Matrix Market file")
    else:
        given = _read(path, _read_text, "a text file of numbers")
    b = np.asarray(_double(path, given.toarray() if sp.issparse(given) else given))
    if b.ndim not in (1, 2) or b.shape[0] != n or b.size == 0:
        raise CommandError(f"{path}: the right-hand side must have shape ({n},) or ({n}, k) to match A; got {b.shape}")
    return b[:, 0] if b.ndim == 2 and b.shape[1] == 1 else b


def check_writable(path: Path) -> None:
    """Refuse a place where nothing can be written."""
    folder = path.parent
    if not folder.is_dir():
        raise CommandError(f"{path}: cannot be written, since there is no folder {folder}")
    if path.is_dir() or not os.access(path if path.exists() else folder, os.W_OK):
        raise CommandError(f"{path}: cannot be written")


def save(path: Path, x: Array) -> None:
    """Write a solution under exactly this name; numpy.save alone would add an ending.

    Raises
    ------
    CommandError
        If it cannot be written, the disk being full for instance.
    """
    try:
        with path.open("wb") as file:
            np.save(file, x)
    except OSError as error:
        raise CommandError(f"{path}: cannot be written: {reason(error)}") from error


def _read(path: Path, reader: Callable[[str], Any], kind: str) -> Any:
    if not path.exists():
        raise CommandError(f"{path}: no such file")
    if path.is_dir():
        raise CommandError(f"{path}: is a folder, not {kind}")
    if path.is_file() and path.stat().st_size == 0:  # a pipe has no size
        raise CommandError(f"{path}: the file is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # so numpy.loadtxt says that it found nothing
            return reader(str(path))
    except Exception as error:  # a damaged file makes the readers and decompressors raise almost anything
        raise CommandError(f"{path}: cannot be read as {kind}: {reason(error)}") from error


def _binary(reader: Callable[[Any], Any]) -> Callable[[str], Any]:
    """A reader of open files, which is not left to close them: NumPy forgets to where the content is damaged."""

    def read(name: str) -> Any:
        with open(name, "rb") as file:
            return reader(file)

    return read


def _read_text(name: str) -> Array:
    try:
        return np.loadtxt(name, ndmin=1)
    except ValueError:
        return np.loadtxt(name, ndmin=1, dtype=np.complex128)


def _double(path: Path, given: Any) -> Any:
    if given.dtype.kind not in "biufc":
        raise CommandError(f"{path}: must hold numbers; got dtype {given.dtype}")
    return given.astype(np.complex128 if given.dtype.kind == "c" else np.float64)
