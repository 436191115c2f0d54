"""The status of a column, by one order of precedence for both packages.

Facts are booleans: of Python for one column, or arrays, one for each. ``pick(conditions, choices, otherwise)`` gives
the choice of the first condition that holds; a choice is a status, or what was picked before.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

Pick = Callable[[Sequence[Any], Sequence[Any], Any], Any]

UNDECIDED = ""
"""In place of a status: the column gets another run."""


def first_of(conditions: Sequence[bool], choices: Sequence[Any], otherwise: Any) -> Any:
    """``pick`` for Python's own booleans."""
    return next((choice for holds, choice in zip(conditions, choices, strict=True) if holds), otherwise)


def attained(pick: Pick, met: Any, at_rounding: Any, lost: Any, otherwise: Any) -> Any:
    """What a true residual says that is at the target, or at rounding level; ``lost`` where that leaves no digit."""
    return pick(
        [met, at_rounding & lost, at_rounding],
        ["converged", "numerically singular", "accuracy limit"],
        otherwise,
    )


class Run(NamedTuple):
    """What is known of a column between two runs of a method for square systems."""

    met: Any  # the true residual is at the target
    at_rounding: Any  # or, after a run, at rounding level
    lost: Any  # which leaves no digit
    infinite: Any  # it is no number
    spent: Any  # no steps are left
    fruitless: Any  # the last run gained nothing
    least: Any  # no x has a smaller residual
    failed: Any  # the last run broke down or diverged
    retried: Any  # as one did before, after which the method was started differently


def after_run(pick: Pick, run: Run) -> Any:
    """The status of a column after a run."""
    failed = run.fruitless & run.failed
    otherwise = pick(
        [run.infinite, run.spent, run.fruitless & run.least, failed & run.retried, failed, run.fruitless],
        ["breakdown", "iteration limit", "incompatible", "breakdown", UNDECIDED, "stagnation"],
        UNDECIDED,
    )
    return attained(pick, run.met, run.at_rounding, run.lost, otherwise)


class LeastSquaresRun(NamedTuple):
    """The same for least squares, where the residual r need not vanish, but A^H r does."""

    met: Any  # the true residuals pass a test
    at_rounding: Any  # after a run, r is at rounding level
    lost: Any  # which leaves no digit
    optimal: Any  # after a run, A^H r is as small as it can be
    optimal_lost: Any  # which leaves no digit
    infinite: Any
    spent: Any
    ill: Any  # the estimate of the condition number has passed its limit
    stalled: Any
    fruitless: Any
    broken: Any


def after_least_squares_run(pick: Pick, run: LeastSquaresRun, compatible: bool) -> Any:
    """The status of a column after a run; ``compatible`` where r has to vanish, and does not if A is rank deficient."""
    otherwise = pick(
        [
            run.optimal & run.optimal_lost,
            run.optimal,
            run.infinite,
            run.spent,
            run.ill,
            run.stalled,
            run.fruitless & run.broken,
            run.fruitless,
        ],
        [
            "numerically singular",
            "rank deficient" if compatible else "accuracy limit",
            "breakdown",
            "iteration limit",
            "ill-conditioned",
            "stagnation",
            "breakdown",
            "stagnation",
        ],
        UNDECIDED,
    )
    return attained(pick, run.met, run.at_rounding, run.lost, otherwise)
