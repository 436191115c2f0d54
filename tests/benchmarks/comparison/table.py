"""The results as files: everything in ``results.csv``, a table for each case in ``table.md``."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tests.benchmarks.comparison.schedule import Budget, Entry
from tests.benchmarks.comparison.verdict import GRADIENT, TARGET

FIELDS = (
    "case", "family", "n", "nnz", "columns", "library", "method", "status", "seconds", "lower_quartile",
    "upper_quartile", "rounds", "first_call", "rtol", "forward_residual", "adjoint_residual", "gradient_error",
    "forward_steps", "adjoint_steps", "peak_bytes",
)  # fmt: skip


def record(entry: Entry) -> dict[str, object]:
    """One row of the CSV; what was not measured is empty."""
    low, high = np.quantile(entry.times, [0.25, 0.75]) if entry.times else (None, None)
    contestant = entry.contestant
    values = (
        entry.case, entry.family, entry.n, entry.nnz, entry.columns, contestant.library, contestant.method,
        entry.status, entry.median if entry.times else None, low, high, len(entry.times), entry.first,
        entry.rtol if contestant.iterative else None, *(entry.worst(w) for w in ("forward", "adjoint", "gradient")),
        *entry.steps, entry.peak,
    )  # fmt: skip
    return dict(zip(FIELDS, values, strict=True))


def write_csv(path: Path, entries: Sequence[Entry]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        for entry in entries:
            writer.writerow({key: _digits(value) for key, value in record(entry).items()})


def _digits(value: object) -> object:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else value


HEAD = """\
## The libraries side by side

{machine}. {date}. {versions}.

One call solves A x = b and computes the gradients of ⟨w, x⟩ with respect to the stored values of A and to b, in double
precision. The true relative residuals of x and of the adjoint solution, found by SciPy afterwards, must be at most
{target:.0e}, and the gradient of the values must match them to {gradient:.0e}. Iterative solvers are given the
tolerance that leads there. Each contestant has a process of its own; they take turns, round after round. Before every
call all values of A change, the pattern does not: so factorisations, preconditioners and multigrid levels are
made anew in each call and count, while what depends on the pattern alone is made once. torch and SciPy run on one
thread, XLA on as many as it takes. A call over {budget.call:.0f} seconds is broken off, the first
one, which may compile, at {budget.first_call:.0f} seconds; then larger sizes are not tried.

Time is the median of the rounds, with quartiles. The first call, with set-up and compilation, is shown apart; one of
more than {budget.only_once:.0f} seconds is the only one. Memory is the peak of the process during a call, beyond what
it held after its imports and with A and the right-hand sides in its own format. Steps are those of the forward and of
the adjoint solve, where the library tells them.
"""


def markdown(entries: Sequence[Entry], surroundings: dict[str, str], budget: Budget) -> str:
    head = HEAD.format(**surroundings, target=TARGET, gradient=GRADIENT, budget=budget)
    return head + "".join(_section(case, [e for e in entries if e.case == case]) for case in _cases(entries))


def _cases(entries: Sequence[Entry]) -> list[str]:
    return list(dict.fromkeys(entry.case for entry in entries))


COLUMNS = ("library", "method", "seconds", "quartiles", "ratio", "first call", "steps", "residuals", "memory")


def _section(case: str, entries: list[Entry]) -> str:
    """A case: those that came out right by time, then the others with what became of them."""
    right = sorted((entry for entry in entries if entry.ok and entry.times), key=lambda entry: entry.median)
    rest = [entry for entry in entries if entry not in right]
    lines = [f"\n### {case}\n", f"{entries[0].n} unknowns, {entries[0].nnz} entries.\n"]
    lines += [_row(COLUMNS), _row(["---", "---", *["---:"] * (len(COLUMNS) - 2)])]
    lines += [_row(_cells(entry, right[0].median)) for entry in right]
    lines += [_row([*_name(entry), entry.status, *[""] * (len(COLUMNS) - 3)]) for entry in rest]
    return "\n".join(lines) + "\n"


def _cells(entry: Entry, best: float) -> list[str]:
    low, high = np.quantile(entry.times, [0.25, 0.75])
    steps = " + ".join("-" if step is None else str(step) for step in entry.steps)
    return [
        *_name(entry),
        duration(entry.median),
        f"{duration(low)} to {duration(high)}" if len(entry.times) > 1 else "one call",
        f"{entry.median / best:.2f}" if entry.median < 99.5 * best else f"{entry.median / best:.0f}",
        duration(entry.first),
        "" if entry.steps == (None, None) else steps,
        f"{entry.worst('forward'):.0e}, {entry.worst('adjoint'):.0e}",
        "" if entry.peak is None else f"{entry.peak / 1e6:.0f} MB",
    ]


def _name(entry: Entry) -> tuple[str, str]:
    library = entry.contestant.library
    return (f"**{library}**" if entry.contestant.ours else library), entry.contestant.method


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def duration(seconds: float | None) -> str:
    """Three digits, in seconds or milliseconds.

    >>> duration(0.0123456), duration(12.3456)
    ('12.3 ms', '12.3 s')
    """
    if seconds is None or math.isnan(seconds):
        return ""
    value, unit = (1000 * seconds, "ms") if seconds < 0.9995 else (seconds, "s")
    return f"{value:.3g} {unit}" if value < 999.5 else f"{value:.0f} {unit}"
