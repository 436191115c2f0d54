"""Set-up of algebraic multigrid by PyAMG, on the host and in double precision.

What PyAMG finds, the matrices and the transfers of every level, is all that is taken: its smoothers are sequential,
while one cycle here consists of products alone. The smoother is the polynomial of :func:`smoothing`, in D^-1 A, the
same before and after the coarse correction, so that the cycle of a Hermitian positive definite matrix is one as well.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from tsgu._core.factors import _galerkin
from tsgu._core.factors._blocks import check_size
from tsgu._core.methods._options import ASYMMETRY, check_keywords
from tsgu._core.pattern._symbolic import Symbolic
from tsgu._core.report import _matrix_words, _solver_words

Array = npt.NDArray[Any]

_KINDS = {
    "ruge_stuben": "ruge_stuben_solver",
    "smoothed_aggregation": "smoothed_aggregation_solver",
    "root_node": "rootnode_solver",
    "pairwise": "pairwise_solver",
}

_COMPLEX = ("smoothed_aggregation", "root_node")
"""Kinds whose restriction is the conjugate transpose of the prolongation."""

_BLOCKS = ("smoothed_aggregation", "root_node", "pairwise")
"""Kinds that work with blocks of unknowns."""

_OURS = ("A", "presmoother", "postsmoother", "keep", "kwargs")
"""Parameters of PyAMG that say nothing about the levels."""

_MAX_COARSE = 200
"""Unknowns below which a dense product costs less than another level."""

_LARGEST = 4000
"""Unknowns of the coarsest level whose dense inverse is still worth its memory, 128 MB."""

_LARGEST_WEIGHT = 1e8
"""Interpolation weight that leaves half the digits. Of a sound A they are about 1."""

_LARGEST_SINGLE = 2.0**100
"""Inverse of an entry, relative to the largest of A, that still has room in single precision to be multiplied."""


@dataclass(frozen=True)
class Level:
    """A matrix, the transfers to the next level, and ``scale``, 4 / (3 lambda) over the diagonal, shape (n,).

    ``paired`` says that R is the transpose of P.
    """

    A: sp.csr_array
    P: sp.csr_array
    R: sp.csr_array
    scale: Array
    spectrum: _galerkin.Spectrum
    paired: bool


@dataclass(frozen=True)
class Hierarchy:
    """A, the levels above the coarsest, the dense inverse there, and what they amount to.

    ``complexity`` counts the entries of the matrices of all levels, relative to those of A; ``hermitian`` says that
    one cycle is its own conjugate transpose.
    """

    kind: str
    A: sp.csr_array
    levels: tuple[Level, ...]
    coarse: Array
    complexity: float
    hermitian: bool


def smoothing(degree: int) -> list[tuple[float, float]]:
    """Coefficients (a, b) of the smoother after its first step.

    The correction for a residual r is x, with s the scale of the level,

        z = s r,  x = z;  and then for each (a, b):  r -= A z,  z = a z + b s r,  x += z:

    the Chebyshev polynomial of the fourth kind, which needs no lower end of the spectrum (Lottes, *Numer. Linear
    Algebra Appl.* 30 (2023), section 4), and for degree 1 is damped Jacobi with weight 4 / (3 lambda).
    """
    return [((2 * i - 1) / (2 * i + 3), (6 * i + 3) / (2 * i + 3)) for i in range(1, degree)]


def build(values: Array, pattern: Symbolic, kind: str, block: int, arguments: Mapping[str, Any]) -> Hierarchy:
    """Set up the levels for the square matrix with these values.

    Raises
    ------
    ImportError
        If PyAMG is not installed.
    TypeError, ValueError
        For arguments that do not fit; if a diagonal entry is zero, or the coarsening comes to a halt too early.
    """
    n, eps = pattern.shape[0], float(np.finfo(values.dtype).eps)
    function = _function(kind, values.dtype, n, check_size(block))
    accepted = frozenset(inspect.signature(function).parameters) - frozenset(_OURS)
    check_keywords(f"amg of kind {kind}", arguments, accepted)
    values = values.astype(np.result_type(values, np.float64), copy=False)
    # A copy, since PyAMG and SciPy work in place, and the index arrays are those of the caller's pattern.
    A = _tidy(sp.csr_array((values, pattern.col, pattern.indptr), shape=pattern.shape, copy=True))
    check_diagonal("amg", A.diagonal())
    if n == 0:
        return Hierarchy(kind, A, (), np.zeros((0, 0), A.dtype), 1.0, True)
    symmetry = _symmetry(values, pattern, eps)
    hermitian = symmetry == "hermitian"
    options: dict[str, Any] = {"max_coarse": _MAX_COARSE, **arguments}
    if "symmetry" in accepted:
        options.setdefault("symmetry", symmetry)
    size = unit(A)  # PyAMG compares entries with products of two, and prints a line for each that looks too small
    given = sp.csr_matrix(A / size) if block == 1 else sp.csr_matrix(A / size).tobsr((block, block))
    with _reproducible():
        found = function(given, presmoother=None, postsmoother=None, **options).levels
    _check_weights(kind, found)
    last = found[-1].A
    if last.shape[0] > _LARGEST:
        raise ValueError(
            f"A must coarsen to at most {_LARGEST} unknowns for amg; {kind} halts at {last.shape[0]} of {n} after "
            f"{len(found)} levels. Raise max_levels, change strength, or choose another kind."
        )
    transfers = [(_tidy(sp.csr_array(level.P)), _tidy(sp.csr_array(level.R))) for level in found[:-1]]
    paired = [_equal(R, P.T.tocsr()) for P, R in transfers]
    real = A.dtype.kind != "c"
    hermitian = hermitian and all(
        (same and real) or _small(R - P.conj().T, R, eps) for same, (P, R) in zip(paired, transfers, strict=True)
    )
    double = values.astype(np.result_type(values, np.float64), copy=False)
    whole = A = sp.csr_array((double, pattern.col, pattern.indptr), shape=pattern.shape)  # with the zeros it stores
    levels = []
    for (P, R), same, below in zip(transfers, paired, found[1:], strict=True):
        spectrum = _galerkin.spectrum(A, hermitian)
        levels.append(Level(A, P, R, _galerkin.scale(A, spectrum.largest), spectrum, same))
        A = _galerkin.coarse(A, P, R, _tidy(sp.csr_array(below.A)) * size if whole.dtype == values.dtype else None)
    entries = [level.A.nnz for level in levels] + [A.nnz]
    coarse = _galerkin.inverse(A.toarray(), hermitian)
    return Hierarchy(kind, whole, tuple(levels), coarse, sum(entries) / max(1, entries[0]), hermitian)


def unit(A: sp.csr_array) -> float:
    """The power of two above the largest entry: what A is divided by is undone without rounding."""
    largest = float(abs(A).max()) if A.nnz else 1.0
    return float(np.ldexp(1.0, int(np.frexp(largest)[1])))


def _check_weights(kind: str, found: list[Any]) -> None:
    """Refuse levels that come of a division by zero, or by what cancellation left of a sum."""
    for number, level in enumerate(found[:-1]):
        largest = float(np.max(np.abs(level.P.data), initial=0))
        if not largest <= _LARGEST_WEIGHT:  # true for NaN
            raise ValueError(
                f"A must have interpolation weights of moderate size for amg; those of {kind} reach {largest:.0e} on "
                f"level {number}, by a division by zero, as where A is indefinite. Choose another kind, or ilu."
            )


def check_dtype(asked: str | None, own: str) -> bool:
    """Whether cycles are to be in single precision although A, of the dtype ``own``, is not.

    Raises
    ------
    TypeError
        If they are to be in half precision, or in a wider one than A.
    """
    if asked not in (None, "float32", "float64"):
        raise TypeError(_solver_words.dtype_of_cycles(asked))
    double = own in ("float64", "complex128")
    if asked == "float64" and not double:
        raise TypeError(_solver_words.wide_cycles(own, asked))
    return asked == "float32" and double


def check_kind(kind: Any) -> None:
    if kind not in _KINDS:
        raise ValueError(f"kind must be one of {', '.join(_KINDS)}; got {kind!r}.")


def check_degree(degree: Any) -> int:
    if isinstance(degree, bool) or not isinstance(degree, int | np.integer) or degree < 1:
        raise ValueError(f"degree must be an integer >= 1; got {degree!r}.")
    return int(degree)


def check_diagonal(name: str, diagonal: Array) -> None:
    zero = np.flatnonzero(diagonal == 0)
    if zero.size:
        raise ValueError(_matrix_words.zero_diagonal(name, int(zero[0]), zero.size))


class UnfitError(ValueError):
    """A matrix with which the levels of another cannot be refreshed."""


def check_refreshed(values: Array, pattern: Symbolic, hermitian: bool) -> None:
    """Refuse a zero on the diagonal, and another symmetry than that of the levels.

    Raises
    ------
    UnfitError
        If there is a zero, or levels of a Hermitian matrix, which are their own adjoint, are given another.
    """
    A = sp.csr_array((values, pattern.col, pattern.indptr), shape=pattern.shape)
    zero = np.flatnonzero(A.diagonal() == 0)
    if zero.size:
        raise UnfitError(_matrix_words.zero_diagonal("amg", int(zero[0]), zero.size))
    if hermitian and _symmetry(values, pattern, float(np.finfo(values.dtype).eps)) != "hermitian":
        raise UnfitError(_solver_words.refreshed_symmetry("amg"))


def check_single(found: _galerkin.Anew, unit: float) -> None:
    """Refuse values for which the cycles of levels in single precision would have to be in double.

    Raises
    ------
    UnfitError
        If they are such.
    """
    largest = _largest_inverse(found.scales, found.coarse) * unit
    if largest > _LARGEST_SINGLE:
        raise UnfitError(_solver_words.refreshed_range("amg", 1 / largest))


def fits_single(found: Hierarchy) -> bool:
    """Whether nothing is lost where cycles are in single precision, A divided by its unit."""
    scales = [level.scale for level in found.levels]
    return _largest_inverse(scales, found.coarse) * unit(found.A) <= _LARGEST_SINGLE


def _largest_inverse(scales: Sequence[Array], coarse: Array) -> float:
    """The largest entry of what stands for inverses: of the diagonals, and of the coarsest matrix."""
    return max(float(abs(a).max(initial=0)) for a in (*scales, coarse))


def _function(kind: str, dtype: np.dtype[Any], n: int, block: int) -> Callable[..., Any]:
    check_kind(kind)
    if dtype.kind == "c" and kind not in _COMPLEX:
        raise TypeError(f"A must be real for amg of kind {kind}; got {dtype}. Use kind {' or '.join(_COMPLEX)}.")
    if block != 1 and kind not in _BLOCKS:
        raise TypeError(f"block must be 1 for amg of kind {kind}; got {block}. Use kind {' or '.join(_BLOCKS)}.")
    if n % block:
        raise ValueError(f"block must divide the {n} unknowns for amg; got {block}.")
    try:
        import pyamg
    except ModuleNotFoundError as error:
        if error.name != "pyamg":
            raise
        raise ImportError('amg needs PyAMG: pip install "tsgu[amg]"') from error
    function: Callable[..., Any] = getattr(pyamg, _KINDS[kind])
    return function


_lock = Lock()


@contextmanager
def _reproducible() -> Iterator[None]:
    """The same levels for the same matrix, and the random numbers of the caller as if nothing had happened.

    PyAMG draws the start of its eigenvalue estimates, and the ties of some splittings, from NumPy's global generator
    and takes no other.
    """
    with _lock:  # two set-ups at once would draw each other's numbers
        state = np.random.get_state()
        np.random.seed(0)
        try:
            yield
        finally:
            np.random.set_state(state)


def _symmetry(values: Array, pattern: Symbolic, eps: float) -> str:
    """What A is to rounding, in PyAMG's words. The transpose is found by the pattern alone, which keeps it."""
    A: Any = values
    if pattern.is_symmetric:
        transpose = values[pattern.transposition]
        if values.dtype.kind != "c" and np.array_equal(values, transpose):  # nearly always, and quick to see
            return "hermitian"
    else:
        A = sp.csr_array((values, pattern.col, pattern.indptr), shape=pattern.shape)
        transpose = A.T.tocsr()
    if _small(A - transpose.conj(), A, eps):
        return "hermitian"
    return "symmetric" if values.dtype.kind == "c" and _small(A - transpose, A, eps) else "nonsymmetric"


def _small(difference: Any, A: Any, eps: float) -> bool:
    """Whether a difference from A is rounding."""
    return float(abs(difference).max()) <= ASYMMETRY * eps * float(abs(A).max())


def _equal(A: sp.csr_array, B: sp.csr_array) -> bool:
    """Of matrices in canonical order."""
    pairs = ((A.indptr, B.indptr), (A.indices, B.indices), (A.data, B.data))
    return all(np.array_equal(a, b) for a, b in pairs)


def _tidy(A: sp.csr_array) -> sp.csr_array:
    """In canonical order, without the zeros that PyAMG stores."""
    A.sum_duplicates()
    A.eliminate_zeros()
    return A
