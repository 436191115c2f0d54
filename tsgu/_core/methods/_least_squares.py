"""The arguments of least squares, and the stopping rule that they describe.

With r = b - A x and the Frobenius norm of A, a column is solved when its true residual satisfies

    ||r|| <= btol ||b|| + atol ||A|| ||x||        the system is compatible, or
    ||A^H r|| <= atol ||A|| ||r||                 x is a least-squares solution                 "converged", or
    ||r|| <= ATTAINABLE eps || |A| |x| + |b| ||, or
    ||A^H r|| <= ATTAINABLE eps || |A|^T (|A| |x| + |b|) ||                                     "accuracy limit":

the tests of Paige and Saunders (1982), where the norms are those of the method's recurrence, made again with the true
ones. From zero, where the second may hold by the scale of A alone, a step is taken first. The residual that is reported
is what the tests bring down to zero: the smaller of ||r|| / ||b|| and the relative optimality
||A^H r|| / (||A|| ||r||). A system that has to be compatible, as that of the adjoint, must pass the first test; where
it passes only the second, A is rank deficient.

With ``damp`` all of this is said of [A; damp I] and [b; 0]; and where the norms of columns differ by more than
EQUILIBRATE, of A D with columns of norm near one.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tsgu._core.methods._options import _count, _tolerance, default_rtol

EQUILIBRATE = 16.0
"""Columns are scaled where their norms differ by more than this; nearly equal ones are left as they are."""

GAIN = 0.9
"""A run that is started again from the true residual must reduce that, or what is reported of it, by this factor, or
the solve has stagnated.
"""

DIVERGED = 2.0
"""||r|| falls in every step of LSMR; a run that ends with this multiple of it is undone."""


@dataclass(frozen=True)
class LeastSquaresOptions:
    """When to stop; ``conlim`` is infinite where the condition number is not looked at."""

    damp: float
    atol: float
    btol: float
    conlim: float
    maxiter: int


def default_conlim(eps: float) -> float:
    """1e8 in double and 1e4 in single precision, about 1 / sqrt(eps): beyond it A^H A is numerically singular."""
    return 1e8 if eps < 1e-10 else 1e4


def resolve_least_squares(arguments: Mapping[str, Any], n: int, eps: float) -> LeastSquaresOptions:
    """Fill in the defaults and check the numbers, for n unknowns.

    In exact arithmetic LSMR ends within n steps, but in finite precision the basis loses its orthogonality and a matrix
    that is not well-conditioned takes several times as many; hence 10 n, as for the other methods.
    """
    damp, atol, btol = (arguments.get(name) for name in ("damp", "atol", "btol"))
    conlim, maxiter = arguments.get("conlim"), arguments.get("maxiter")
    return LeastSquaresOptions(
        damp=0.0 if damp is None else _tolerance("damp", damp),
        atol=default_rtol(eps) if atol is None else _tolerance("atol", atol),
        btol=default_rtol(eps) if btol is None else _tolerance("btol", btol),
        conlim=default_conlim(eps) if conlim is None else _limit(conlim),
        maxiter=10 * n if maxiter is None else _count("maxiter", maxiter, 0),
    )


def _limit(value: Any) -> float:
    """As in SciPy, zero leaves the condition number out of account."""
    if isinstance(value, float) and value == math.inf:
        return value
    return _tolerance("conlim", value) or math.inf


def optimality_tolerance(atol: float, eps: float, compatible: bool) -> float:
    """What the recurrence stops at: not below eps; and where the system must be compatible, not at a large ``atol``.

    There ||A^H r|| <= atol ||A|| ||r|| means no more than a condition number above 1 / atol.
    """
    return max(min(atol, default_rtol(eps)) if compatible else atol, eps)
