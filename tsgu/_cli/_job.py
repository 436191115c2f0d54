"""The job of the command: for each method solve, differentiate, and check."""

import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tsgu._cli._backend import Backend, Solution
from tsgu._cli._errors import CommandError
from tsgu._cli._problem import Problem
from tsgu._cli._progress import progress
from tsgu._cli._reference import Reference, Verdict
from tsgu._core.report._log import Log
from tsgu._core.report._status import ConvergenceWarning, SolveInfo

NO_DIGIT = 0.1
"""Relative error of x from rounding in A and b alone, above which A is singular to working precision."""

TELLING = 0.1
"""Allowed relative error of the gradient, above which its check would miss an error that matters."""


@dataclass(frozen=True)
class Outcome:
    """What one method did.

    Attributes
    ----------
    failed : bool
        Whether a check failed.
    remarks : tuple of str
        A line for whatever the user should know; never empty if a check failed.
    """

    method: str
    backend: str
    forward: SolveInfo
    adjoint: SolveInfo
    verdict: Verdict
    seconds: float
    solution: Solution
    failed: bool
    remarks: tuple[str, ...]


def reference(problem: Problem) -> Reference:
    """What the methods are checked against.

    Raises
    ------
    CommandError
        If A is singular, exactly or to double precision: then there is no derivative to check.
    """
    try:
        with progress("factoring for the checks"):
            found = Reference(problem)
    except np.linalg.LinAlgError as error:
        raise CommandError(f"{problem.title}: the matrix is singular") from error
    if not found.condition * float(np.finfo(np.float64).eps) < NO_DIGIT:
        raise CommandError(
            f"{problem.title}: the matrix is singular to working precision; condition number {found.condition:.1e}"
        )
    return found


def run(problem: Problem, method: str, name: str, backend: Backend, against: Reference, log: Log) -> Outcome:
    """Solve and differentiate by one method of one backend, and check.

    Parameters
    ----------
    log : Log
        Open; what the method reports is found there.

    Raises
    ------
    CommandError
        If the method finds A exactly singular.
    """
    first = len(log)
    with warnings.catch_warnings(record=True) as caught, progress(f"solving by {method} in {name}"):
        warnings.simplefilter("always")  # all are told below, in the command's own way
        began = time.perf_counter()
        try:
            solution = backend.differentiate(problem.A, problem.b, problem.w, method, problem.rtol, problem.precond)
        except np.linalg.LinAlgError as error:
            raise CommandError(f"{problem.title}: the matrix is singular to {method} in {problem.A.dtype}") from error
        seconds = time.perf_counter() - began
    # The last of each system: auto may have tried another method before.
    forward = [info for info in log[first:] if not info.transposed][-1]
    adjoint = [info for info in log[first:] if info.transposed][-1]
    if forward.status == "singular":
        raise CommandError(f"{problem.title}: the matrix is singular to {method} in {problem.A.dtype}")
    with progress(f"checking {method}"):
        verdict = against.judge(solution)
    missed = [str(warning.message) for warning in caught if issubclass(warning.category, ConvergenceWarning)]
    others = [str(warning.message) for warning in caught if not issubclass(warning.category, ConvergenceWarning)]
    complaint = _complaint(method, missed, verdict, problem.rtol)
    return Outcome(
        method=method,
        backend=name,
        forward=forward,
        adjoint=adjoint,
        verdict=verdict,
        seconds=seconds,
        solution=solution,
        failed=complaint is not None,
        remarks=(*([complaint] if complaint else _caveat(method, verdict)), *others, *_choices(name, forward, adjoint)),
    )


def difference(one: Outcome, other: Outcome) -> float:
    """The largest difference between two solutions, or two gradients, relative to the largest entry."""
    pairs = zip(one.solution, other.solution, strict=True)
    return max(float(np.abs(a - b).max(initial=0) / (np.abs(a).max(initial=0) or 1.0)) for a, b in pairs)


def _complaint(method: str, missed: Sequence[str], verdict: Verdict, rtol: float) -> str | None:
    """The first thing that is wrong, in one line."""
    if missed:
        return f"not converged: {missed[0]}{' The adjoint solve failed too.' if len(missed) > 1 else ''}"
    for system, residual, solved in (
        ("forward", verdict.forward_residual, verdict.forward_solved),
        ("adjoint", verdict.adjoint_residual, verdict.adjoint_solved),
    ):
        if not solved:
            return (
                f"check failed: {method} leaves a relative residual of {residual:.1e} in the {system} system; "
                f"target {rtol:.1e}"
            )
    if not verdict.gradient_error <= verdict.allowed:
        return (
            f"check failed: the gradient by {method} is off by {verdict.gradient_error:.1e}; the residuals, the finite "
            f"difference and rounding explain {verdict.allowed:.1e}"
        )
    return None


def _choices(backend: str, *solves: SolveInfo) -> list[str]:
    """What auto chose and why."""
    return [f"note: in {backend}, {note}" for note in dict.fromkeys(info.note for info in solves if info.note)]


def _caveat(method: str, verdict: Verdict) -> list[str]:
    if verdict.allowed < TELLING:
        return []
    return [
        f"note: the gradient check of {method} tells little: A is so ill-conditioned that residuals within the target "
        f"allow an error of {verdict.allowed:.1e}; lower --rtol, or compute in double precision"
    ]
