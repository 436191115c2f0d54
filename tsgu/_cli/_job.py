"""The job of the command: for each method solve, differentiate, and check."""

import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tsgu._cli._backend import Array, Backend
from tsgu._cli._errors import CommandError
from tsgu._cli._problem import Problem
from tsgu._cli._progress import progress
from tsgu._cli._reference import Reference, Verdict
from tsgu._core._status import ConvergenceWarning, Log, SolveInfo

NO_DIGIT = 0.1
"""Relative error of x from rounding in A and b alone, above which A is singular to working precision."""


@dataclass(frozen=True)
class Outcome:
    """What one method did, and what is wrong with it: nothing, or one line."""

    method: str
    forward: SolveInfo
    adjoint: SolveInfo
    verdict: Verdict
    seconds: float
    x: Array
    complaint: str
    remarks: tuple[str, ...]

    @property
    def singular(self) -> bool:
        """Whether the method found A singular to the precision that it works in."""
        return "numerically singular" in (self.forward.status, self.adjoint.status)


def reference(problem: Problem) -> Reference:
    """What the methods are checked against.

    Raises
    ------
    CommandError
        If A is singular, exactly or to double precision: then there is no derivative to check.
    """
    try:
        with progress("factoring for the checks"):
            ready = Reference(problem)
    except np.linalg.LinAlgError as error:
        raise CommandError(f"{problem.title}: the matrix is singular") from error
    if not ready.condition * float(np.finfo(np.float64).eps) < NO_DIGIT:
        raise CommandError(
            f"{problem.title}: the matrix is singular to working precision; condition number {ready.condition:.1e}"
        )
    return ready


def outcomes(
    problem: Problem, methods: Sequence[str], backend: Backend, against: Reference, log: Log
) -> Iterator[Outcome]:
    """Run one method after the other.

    Parameters
    ----------
    log : Log
        Open; what the methods report is found there.
    """
    for method in methods:
        yield _run(problem, method, backend, against, log)


def _run(problem: Problem, method: str, backend: Backend, against: Reference, log: Log) -> Outcome:
    first = len(log)
    with warnings.catch_warnings(record=True) as caught, progress(f"solving by {method}"):
        warnings.simplefilter("always", ConvergenceWarning)
        began = time.perf_counter()
        try:
            solution = backend.differentiate(problem.A, problem.b, problem.w, method, problem.rtol)
        except np.linalg.LinAlgError as error:
            raise CommandError(f"{problem.title}: the matrix is singular to {method}: {error}") from error
        seconds = time.perf_counter() - began
    with progress(f"checking {method}"):
        verdict = against.judge(solution)
    infos = log[first:]
    missed = [str(warning.message) for warning in caught if issubclass(warning.category, ConvergenceWarning)]
    return Outcome(
        method=method,
        forward=next(info for info in infos if not info.transposed),
        adjoint=next(info for info in infos if info.transposed),
        verdict=verdict,
        seconds=seconds,
        x=solution.x,
        complaint=_complaint(method, missed, verdict, problem.rtol),
        remarks=tuple(str(w.message) for w in caught if not issubclass(w.category, ConvergenceWarning)),
    )


def _complaint(method: str, missed: Sequence[str], verdict: Verdict, rtol: float) -> str:
    """The first thing that is wrong, in one line."""
    if missed:
        more = " The adjoint system did not converge either." if len(missed) > 1 else ""
        return f"not converged: {missed[0]}{more}"
    for system, residual, solved in (
        ("forward", verdict.forward_residual, verdict.forward_solved),
        ("adjoint", verdict.adjoint_residual, verdict.adjoint_solved),
    ):
        if not solved:
            return f"check failed: {method} leaves a relative residual of {residual:.1e} in the {system} system; target {rtol:.1e}"
    if not verdict.gradient_error <= verdict.allowed:
        return (
            f"check failed: the gradient by {method} is off by {verdict.gradient_error:.1e}; residuals, finite difference "
            f"and rounding explain {verdict.allowed:.1e}"
        )
    return ""
