"""How good a solution is that was computed directly: columns scaled, residuals judged by the stopping rule.

Columns lie along the first axis; whatever axes follow number them.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from tsgu._core.methods._judgement import attained, first_of
from tsgu._core.methods._options import ATTAINABLE, LOST, default_rtol

Array = npt.NDArray[Any]


def power_of_two(b: Array) -> Array:
    """A power of two near the largest entry of each column: norms then neither overflow nor vanish, and scaling by it
    is exact."""
    return power_of_two_near(np.abs(b).max(axis=0, initial=0))


def power_of_two_near(sizes: Array) -> Array:
    """The same for the largest entries themselves."""
    return np.ldexp(0.5, np.frexp(sizes)[1]).astype(sizes.dtype)


def is_plainly_finite(x: Array) -> bool:
    """Whether one quick look says that all of x is finite; squares may overflow where x does not."""
    return bool(np.isfinite(np.vdot(x, x)))


def judge(
    b: Array, residual: Array, magnitude: Callable[[], Array], eps: float, rtol: float | None = None
) -> tuple[Array, list[str]]:
    """Relative residual and status of each column; ``magnitude`` is ``|A| |x| + |b|``, asked for where it matters."""
    rtol = default_rtol(eps) if rtol is None else rtol
    if b.ndim == 1:  # one column, as most are, in Python's own numbers
        whole, rest = _norm(b), _norm(residual)
        if rest <= rtol * whole:
            return np.array([rest / whole if whole else 0.0]), ["converged"]
    size, left = _norms(b), _norms(residual)
    relative = np.divide(left, size, out=np.where(left == 0, 0.0, np.inf), where=size > 0)
    if np.all(relative <= rtol):
        return relative, ["converged"] * size.size
    rounding = ATTAINABLE * eps * _norms(magnitude())
    triples = zip(left.ravel(), size.ravel(), rounding.ravel(), strict=True)
    return relative, [_status(*column, rtol=rtol) for column in triples]


def _norm(column: Array) -> float:
    """Of a column whose largest entry is near 1, so that no square overflows."""
    return math.sqrt(float(np.vdot(column, column).real))


def _norms(columns: Array) -> Array:
    return np.atleast_1d(np.linalg.norm(columns, axis=0))


def _status(residual: float, size: float, rounding: float, rtol: float) -> str:
    status: str = attained(
        first_of, residual <= rtol * size, residual <= rounding, rounding > LOST * size, "inaccurate"
    )
    return status
