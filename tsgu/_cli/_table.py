"""The table: a head, and a line per method, printed as soon as it is known."""

from collections.abc import Sequence

from tsgu._cli._job import Outcome, difference
from tsgu._cli._problem import Problem

_HEAD = (
    "method",
    "n",
    "nnz",
    "iterations",
    "forward residual",
    "adjoint residual",
    "gradient error",
    "allowed",
    "seconds",
    "check",
)
_BOTH = ("backend", "difference")


def title(problem: Problem, condition: float) -> str:
    """The line above the table."""
    name, block = problem.precond or ("", 0)
    rows = f" of {block} rows" if name == "block_jacobi" else ""
    return (
        f"{problem.title}: {problem.A.dtype}, right-hand side of shape {problem.b.shape}, rtol {problem.rtol:.1e}, "
        f"condition number {condition:.1e} (componentwise)"
        f"{name and f', preconditioner {name}{rows}'}"
    )


class Table:
    """Lines of equal width for a problem; iterations are those of the forward and of the adjoint solve.

    Where both backends run, a line names its own, and the second one how far it is from the first.
    """

    def __init__(self, problem: Problem, both: bool) -> None:
        self._size = (str(problem.A.shape[0]), str(problem.A.nnz))
        self._both = both
        self._heads = (*_HEAD[:-1], *_BOTH, _HEAD[-1]) if both else _HEAD
        longest = ("linear_cg", *self._size, "999999 + 999999", *self._heads[4:])
        self._widths = [max(len(head), len(cell)) for head, cell in zip(self._heads, longest, strict=True)]

    def head(self) -> str:
        return self._line(self._heads)

    def row(self, outcome: Outcome, first: Outcome | None = None) -> str:
        """``first`` is the outcome of the first backend by the same method, if this is that of the second."""
        verdict = outcome.verdict
        numbers = (verdict.forward_residual, verdict.adjoint_residual, verdict.gradient_error, verdict.allowed)
        return self._line(
            (
                outcome.method,
                *self._size,
                _iterations(outcome),
                *(f"{number:.1e}" for number in numbers),
                f"{outcome.seconds:.3f}",
                *(
                    [outcome.backend, "-" if first is None else f"{difference(first, outcome):.1e}"]
                    if self._both
                    else []
                ),
                _check(outcome),
            )
        )

    def _line(self, cells: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if index == 0 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(cells, self._widths, strict=True))
        ]
        return "  ".join(padded)


def _iterations(outcome: Outcome) -> str:
    counts = (outcome.forward.iterations, outcome.adjoint.iterations)
    return "-" if None in counts else " + ".join(map(str, counts))


def _check(outcome: Outcome) -> str:
    if outcome.failed:
        return "FAILED"
    limited = "accuracy limit" in (outcome.forward.status, outcome.adjoint.status)
    return "ok, at the accuracy limit" if limited else "ok"
