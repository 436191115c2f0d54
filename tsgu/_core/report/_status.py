"""What became of a solve: its status, in words, the same objects for both packages."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from tsgu._core.report._matrix_words import NULL_SPACE_REMEDY

ADVICE = {
    "converged": "",
    "accuracy limit": "",
    "numerically singular": (
        "A is singular to working precision, or its rows differ in scale by more than that: no digit of the residual "
        "is significant. Check boundary conditions and constraints, scale the rows, or solve in double precision."
    ),
    "iteration limit": "Raise maxiter, give a preconditioner M, or use direct.",
    "stagnation": "The residual stopped falling. Give a preconditioner M, try another method, or use direct.",
    "incompatible": (
        "A is singular, or very nearly so, and b is not in its range: x minimises the residual, no x makes it zero. "
        "Take from b its part in the null space of A, or fix the unknowns that A leaves free."
    ),
    "breakdown": "The recurrence broke down. Try gmres or direct, or another x0 or M.",
    "non-finite": "The right-hand side of this column is not finite, so the solution is NaN there.",
    "singular": (
        "A is singular: a pivot, or an entry on the diagonal of a triangle, is exactly zero, or a vector other than "
        f"zero is mapped to zero to working precision. Look for a missing boundary condition; {NULL_SPACE_REMEDY}"
    ),
    "not triangular": (
        "A is not the triangle that upper and unitriangular say: entries lie on the wrong side of its diagonal, or a "
        "diagonal that should consist of ones holds something else."
    ),
    "overflow": "The solution exceeds the largest number of its dtype. Scale the system, or solve in double precision.",
    "inaccurate": "Too many digits were lost on the way. Scale rows and columns of A, or solve in double precision.",
    "ill-conditioned": (
        "A is so close to a singular matrix that rounding may leave less than two digits of the solution, however "
        "small the residual. Solve in double precision, or change what makes A nearly singular."
    ),
    "rank deficient": (
        "The columns of A are linearly dependent to working precision, so that the minimiser is not unique and has no "
        "derivative. Remove columns or give damp > 0."
    ),
    "not linear": (
        "A, given as a function, is not linear in each column: A(c v) differs from c A(v). Return the product with a "
        "matrix alone, without terms that are constant or nonlinear, and do not mix the columns of a block."
    ),
    "non-finite matrix": "A, given as a function, returned NaN or infinity for a vector of moderate numbers.",
    "not symmetric": (
        "A, given as a function, is not symmetric (Hermitian), which the method needs: use bicgstab or gmres."
    ),
    "wrong transpose": (
        "The attribute T of A, given as a function, is not its transpose. Correct it, or leave it out, so that the "
        "transpose is derived."
    ),
    "prepared for another matrix": (
        "What was prepared does not solve this system to its own target. Prepare it again for each matrix that is "
        "solved with, or give the method itself as solve=."
    ),
    "not verified": "",
    "residual above verify": (
        "The solver given returned without solving the system. Tighten its tolerance, or pass verify=None if this "
        "accuracy is what you want."
    ),
}
"""What to do about each status; no advice where nothing is wrong."""

LEAST_SQUARES_ADVICE = {
    "iteration limit": "Raise maxiter, scale the columns of A, or give damp > 0.",
    "stagnation": "The residual stopped falling. Scale the columns of A, raise atol and btol, or use double precision.",
    "breakdown": "The recurrence broke down: the entries of A differ in scale by more than the precision holds.",
    "ill-conditioned": (
        "The condition number of A passes conlim. Scale the columns of A, give damp > 0, or raise conlim if the digits "
        "that are left are enough."
    ),
}
"""For lsmr, which has no preconditioner, and whose systems direct cannot solve."""

_BREAKDOWN = {
    "linear_cg": (
        "The recurrence broke down: A, and M where one is given, must be definite. Use minres for an indefinite A, "
        "and an M whose eigenvalues have one sign; or gmres or direct."
    ),
    "minres": (
        "The recurrence broke down: M must be definite. Give one whose eigenvalues have one sign, as jacobi has for a "
        "diagonal of one sign; or use gmres or direct."
    ),
}
"""For the Hermitian methods, whose requirements are known."""


class Status(IntEnum):
    """What became of a column of a solve, as the number that :class:`Info` holds.

    The numbers stay what they are from release to release. ``words`` is the same as in :class:`SolveInfo`.

    Examples
    --------
    >>> import tsgu
    >>> tsgu.Status(1), tsgu.Status.ITERATION_LIMIT.words
    (<Status.CONVERGED: 1>, 'iteration limit')
    """

    CONVERGED = 1
    ACCURACY_LIMIT = 2
    NOT_VERIFIED = 3
    ITERATION_LIMIT = 4
    STAGNATION = 5
    BREAKDOWN = 6
    INCOMPATIBLE = 7
    SINGULAR = 8
    NUMERICALLY_SINGULAR = 9
    ILL_CONDITIONED = 10
    INACCURATE = 11
    OVERFLOW = 12
    NON_FINITE = 13
    NON_FINITE_MATRIX = 14
    NOT_LINEAR = 15
    NOT_SYMMETRIC = 16
    WRONG_TRANSPOSE = 17
    NOT_TRIANGULAR = 18
    RANK_DEFICIENT = 19
    PREPARED_FOR_ANOTHER_MATRIX = 20
    RESIDUAL_ABOVE_VERIFY = 21

    @property
    def words(self) -> str:
        """The status as a :class:`SolveInfo` has it."""
        words = self.name.lower().replace("_", " ")
        return words.replace("non ", "non-").replace("ill ", "ill-")

    @property
    def sound(self) -> bool:
        """Whether it calls for no warning: solved, to the target or to rounding level, or not to be verified."""
        return self <= Status.NOT_VERIFIED


CODE = {"": 0} | {status.words: int(status) for status in Status}
"""The numbers of the statuses; 0 is a column that is still being worked on."""

SEVERITY = {status: rank for rank, status in enumerate(("converged", "not verified", "accuracy limit"))}

SOUND = frozenset(status.words for status in Status if status.sound)
"""The statuses that call for no warning."""


class ConvergenceWarning(UserWarning):
    """A solve, forward or adjoint, did not reach its target; the message says which, how far, and what to change.

    The message holds no figure that changes from one solve to the next, so that Python shows the warning once for a
    line of code; the figures are in ``info``. ``warnings.simplefilter("error", tsgu.ConvergenceWarning)`` turns it into
    an exception, in the backward pass too.

    Attributes
    ----------
    info : SolveInfo or None
        What the solve measured: the exact residual, the steps, and the same for each column.

    Examples
    --------
    >>> import warnings, torch, tsgu
    >>> A = torch.tensor([[4.0, 1.0], [1.0, 3.0]]).to_sparse()
    >>> with warnings.catch_warnings(record=True, action="always") as caught:
    ...     x = tsgu.linear_cg(A, torch.ones(2), maxiter=1)
    >>> caught[0].message.info.iterations
    1
    """

    def __init__(self, message: str = "", info: "SolveInfo | None" = None) -> None:
        super().__init__(message)
        self.info = info


@dataclass(frozen=True)
class ColumnInfo:
    """What one right-hand side measured. What was not measured is None.

    Attributes
    ----------
    status : str
        One of those of :class:`SolveInfo`.
    iterations : int or None
        Steps taken.
    residual : float or None
        True relative residual, as in :class:`SolveInfo`.
    history : ndarray or None
        Relative residual after each step, as the method's recurrence has it.

    Examples
    --------
    >>> import torch, tsgu
    >>> A = torch.tensor([[4.0, 1.0], [1.0, 3.0]]).to_sparse()
    >>> with tsgu.record() as log:
    ...     x = tsgu.linear_cg(A, torch.tensor([[1.0, 0.0], [2.0, 0.0]]))
    >>> [column.iterations for column in log[0].columns]
    [2, 0]
    """

    status: str
    iterations: int | None
    residual: float | None
    history: npt.NDArray[Any] | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class SolveInfo:
    """What one solve, forward or adjoint, measured. What was not measured is None.

    Attributes
    ----------
    method : str
        Name of the method.
    transposed : bool
        Whether the system was that of the transpose (as in the adjoint of a forward solve).
    status : str
        The worst of its columns: "converged", "accuracy limit" (the residual is at rounding level), "iteration limit",
        "stagnation", "incompatible", "breakdown", "inaccurate", "numerically singular", "singular", "not triangular",
        "overflow", "non-finite", "ill-conditioned", "rank deficient", "prepared for another matrix", "residual above
        verify", "not verified"; for A given as a function "not linear", "non-finite matrix", "not symmetric", "wrong
        transpose".
    iterations : int or None
        The most steps that a column took.
    residual : float or None
        The largest true relative residual ``||b - A x|| / ||b||`` of the columns. For least squares, where r = b - A x
        does not vanish, the smaller of that and the relative optimality ``||A^H r|| / (||A|| ||r||)``, in the Frobenius
        norm of A.
    history : ndarray or None
        Relative residual after each step, as the method's recurrence has it, of the column with the most steps.
    seconds : float or None
        Wall-clock time.
    columns : tuple of ColumnInfo
        The same for each right-hand side.
    note : str
        What ``auto`` chose and why; whether a recipe given as M was built, refreshed, rebuilt or kept; else empty.

    Examples
    --------
    >>> import torch, tsgu
    >>> A = torch.eye(3).to_sparse()
    >>> with tsgu.record() as log:
    ...     x = tsgu.sparse_generic_solve(A, torch.ones(3), solve=tsgu.linear_cg)
    >>> log[0].status, log[0].iterations
    ('converged', 1)
    """

    method: str
    transposed: bool
    status: str
    iterations: int | None
    residual: float | None
    history: npt.NDArray[Any] | None = field(repr=False, compare=False)
    seconds: float | None
    columns: tuple[ColumnInfo, ...] = field(repr=False)
    note: str = field(default="", repr=False)

    @property
    def converged(self) -> bool:
        """Whether every column is solved, to its target or to rounding level."""
        return self.status in ("converged", "accuracy limit")


def summarize(method: str, transposed: bool, columns: Sequence[ColumnInfo], seconds: float | None) -> SolveInfo:
    """The columns of one solve as a :class:`SolveInfo`."""
    if not columns:
        return SolveInfo(method, transposed, "converged", 0, 0.0, None, seconds, ())
    worst = max(columns, key=_badness)
    longest = max(columns, key=lambda column: column.iterations or 0)
    residuals = [column.residual for column in columns if column.residual is not None]
    return SolveInfo(
        method=method,
        transposed=transposed,
        status=worst.status,
        iterations=longest.iterations,
        residual=float(np.max(residuals)) if residuals else None,  # np.max keeps a NaN, max does not
        history=longest.history,
        seconds=seconds,
        columns=tuple(columns),
    )


def _badness(column: ColumnInfo) -> tuple[int, float]:
    residual = column.residual if column.residual is not None else 0.0
    return SEVERITY.get(column.status, len(SEVERITY)), float("inf") if np.isnan(residual) else residual


def describe(info: SolveInfo, target: float | None, advice: str = "", member: str = "") -> str:
    """The text of the warning: which solve, which member of a batch, how far it got, and what to change.

    What changes from one solve to the next, steps, columns and the digits of the residual, is left to ``info``: Python
    shows one text once for a line.
    """
    column = max((column for column in info.columns if column.status not in SOUND), key=_badness)
    system = "adjoint system (A^T)" if info.transposed else "forward system"
    facts = [member] if member else []
    facts += [] if column.residual is None else [f"relative residual {_magnitude(column.residual)}"]
    facts += [] if target is None else [f"target {target:.1e}"]
    advice = advice or _usual_advice(info.method, column.status)
    page = f'See "When it does not converge: {column.status}" in the documentation.'
    outcome = f"{column.status}; {', '.join(facts)}" if facts else column.status
    return f"{info.method} on the {system}: {outcome}. {advice} {page}"


_NAMED = 3
"""Members of a batch that a warning names; the others are counted."""


def members_in_words(members: Sequence[int], size: int) -> str:
    """Which members of a batch of this size it is about."""
    named = [str(member) for member in members[:_NAMED]]
    if len(members) == 1:
        return f"member {named[0]} of {size}"
    others = len(members) - len(named)
    last = f"{others} more" if others else named.pop()
    return f"members {', '.join(named)} and {last} of {size}"


def _magnitude(residual: float) -> str:
    """The power of ten below it."""
    if not math.isfinite(residual):
        return "not finite"
    return f"about 1e{math.floor(math.log10(residual))}" if residual > 0 else "0"


def _usual_advice(method: str, status: str) -> str:
    if method == "lsmr" and status in LEAST_SQUARES_ADVICE:
        return LEAST_SQUARES_ADVICE[status]
    if status == "breakdown" and method in _BREAKDOWN:
        return _BREAKDOWN[method]
    return ADVICE[status]
