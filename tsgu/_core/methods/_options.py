"""The keyword arguments of a method, and the stopping rule that they describe.

A column is solved when its true residual satisfies

    ||b - A x|| <= max(rtol ||b||, atol)                          "converged", or
    ||b - A x|| <= ATTAINABLE eps || |A| |x| + |b| ||             "accuracy limit":

the second bound is the rounding error made in merely evaluating b - A x (Higham, *Accuracy and Stability of Numerical
Algorithms*, 2nd ed., section 17), which no solver can be asked to beat in the precision that it is given.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from tsgu._core.report import _place

ASYMMETRY = 100
"""Multiple of the rounding unit by which a matrix that counts as Hermitian may differ from its adjoint."""

ADJOINT = 1000
"""Multiple of the rounding unit by which <u, A v> may differ from <A^T u, v>, relative to its terms."""

ZERO_SUM = 100
"""Multiple of the rounding unit, relative to the sum of magnitudes, below which the sum of a row counts as zero."""

ATTAINABLE = 4.0
"""Multiple of the rounding error in b - A x that counts as rounding level."""

LOST = 0.1
"""An accuracy limit above this share of ||b|| leaves no digit of the residual: the system is numerically singular."""

SAME = 2.0
"""Multiple of the residual of a prepared solver, or of rounding level, that the residual may be where it is evaluated
again, with the matrix that is solved with: above that, and above the target, it was prepared for another one."""

GAIN = 0.5
"""A run that is started again from the true residual must at least halve it, or the solve has stagnated."""

MODERATE = 2.0**16
"""A matrix whose largest entry lies between this and its reciprocal is left as it is; any other is scaled."""

LOOK = 10
"""Steps without progress after which what a recurrence claims is held to the true residual; twice as many for the next
look."""

WORTH = 0.25
"""Share of the residual of what is kept of a run at which what the run has by then is kept instead."""

DRIFT = 2.0
"""A true residual this many times what the recurrence claims ends the run."""


ROUNDED = 16.0
"""Multiple of the rounding unit, relative to the norm of A, below which a vector of a Krylov basis counts as zero."""


def optimal(eps: float) -> float:
    """``||A^H r|| / (||A|| ||r||)`` at which a residual that does not vanish is the least there is (Choi, Paige and
    Saunders 2011, section 3): about what rounding permits where A is singular.
    """
    return max(1e-8, 256 * eps)


@dataclass(frozen=True)
class Options:
    """When a method stops, and for GMRES the length of a cycle."""

    rtol: float
    atol: float
    maxiter: int
    restart: int


def diverged(eps: float) -> float:
    """A residual this many times ||b|| holds nothing of the solution, and the run that led there is undone."""
    return eps**-0.5


def default_rtol(eps: float) -> float:
    """1e-8 in double, 1e-5 in single precision."""
    return 1e-8 if eps < 1e-10 else 1e-5


def stagnation_window(n: int) -> int:
    """Steps without a smaller residual after which a solve has stagnated.

    Conjugate gradients may need n steps before the residual falls at all (1-D Poisson), so the window is n, within
    bounds that keep a small system patient and a large one from running for hours to no end.
    """
    return min(max(n, 100), 20_000)


class Settings(Protocol):
    """A settings object: arguments in other words."""

    def arguments(self) -> dict[str, Any]: ...

    def without_meaning(self) -> list[str]: ...


class AtMostN(NamedTuple):
    """As ``maxiter``: so many steps, and no more than there are unknowns."""

    limit: int | None


def resolve_settings(name: str, arguments: Mapping[str, Any], accepted: type[Settings] | None) -> dict[str, Any]:
    """Replace ``settings=`` in the arguments by what it stands for."""
    arguments = dict(arguments)
    settings = arguments.pop("settings", None)
    if settings is None:
        return arguments
    if accepted is None or not isinstance(settings, accepted):
        expected = "no settings object" if accepted is None else f"settings of type {accepted.__name__}"
        raise TypeError(f"settings: {name} accepts {expected}; got {type(settings).__name__}.")
    for text in settings.without_meaning():
        _place.warn(UserWarning(f"settings: {text}."))
    for key, value in settings.arguments().items():
        if key in arguments:
            raise TypeError(f"settings: {key} must be given once; got it both as {key}= and in {settings!r}.")
        arguments[key] = value
    return arguments


def check_keywords(name: str, given: Mapping[str, Any], accepted: frozenset[str]) -> None:
    """Refuse a keyword argument that the method does not have."""
    unknown = sorted(given.keys() - accepted)
    if unknown:
        known = f"the keyword arguments {', '.join(sorted(accepted))}" if accepted else "no keyword arguments"
        raise TypeError(f"{name} accepts {known}; got {', '.join(unknown)}.")


def resolve_options(arguments: Mapping[str, Any], n: int, eps: float) -> Options:
    """Fill in the defaults and check the numbers."""
    rtol, atol = arguments.get("rtol"), arguments.get("atol")
    maxiter, restart = arguments.get("maxiter"), arguments.get("restart")
    return Options(
        rtol=default_rtol(eps) if rtol is None else _tolerance("rtol", rtol),
        atol=0.0 if atol is None else _tolerance("atol", atol),
        maxiter=_steps(maxiter, n),
        restart=min(30 if restart is None else _count("restart", restart, 1), max(n, 1)),
    )


def _steps(maxiter: Any, n: int) -> int:
    if isinstance(maxiter, AtMostN):
        return min(n, _steps(maxiter.limit, n))
    return 10 * n if maxiter is None else _count("maxiter", maxiter, 0)


def _tolerance(name: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not (math.isfinite(number) and number >= 0):
        raise ValueError(f"{name} must be a finite number >= 0; got {value!r}.")
    return number


def _count(name: str, value: Any, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"{name} must be an integer >= {least}; got {value!r}.")
    return int(value)
