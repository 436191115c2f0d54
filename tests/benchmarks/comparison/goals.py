"""What was hoped for, beside what was measured. Reported, never asserted."""

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from tests.benchmarks.comparison.problems import MANY, POISSON2, POISSON3
from tests.benchmarks.comparison.schedule import Entry
from tests.benchmarks.peers import OURS

Choice = Callable[[Entry], bool]

AMG = "linear_cg + amg"


def fastest(entries: Iterable[Entry], choice: Choice) -> Entry | None:
    """The entry of least median time among those that came out right."""
    right = [entry for entry in entries if entry.ok and entry.times and choice(entry)]
    return min(right, key=lambda entry: entry.median, default=None)


def ratio(entries: Sequence[Entry], case: str, mine: Choice, theirs: Choice) -> tuple[float, Entry | None]:
    """Time of my fastest over that of their fastest on a case, and which that was; NaN where either has none."""
    here = [entry for entry in entries if entry.case == case]
    us, them = fastest(here, mine), fastest(here, theirs)
    return (us.median / them.median if us and them else math.nan), them


def slope(sizes: Sequence[float], times: Sequence[float]) -> float:
    """The exponent p of the least-squares fit time = c size^p; NaN for fewer than two sizes."""
    if len(set(sizes)) < 2:
        return math.nan
    return float(np.polyfit(np.log(sizes), np.log(times), 1)[0])


def slope_of(entries: Iterable[Entry]) -> float:
    right = [entry for entry in entries if entry.ok and entry.times]
    return slope([entry.n for entry in right], [entry.median for entry in right])


def storage(entry: Entry) -> tuple[int, int]:
    """Bytes of A and B, and of A, B, X and the gradients of A's values and of B, in double precision.

    A is counted in CSR with 32-bit indices.
    """
    values, block = 8 * entry.nnz, 8 * entry.n * entry.columns
    inputs = values + 4 * entry.nnz + 4 * (entry.n + 1) + block
    return inputs, inputs + 2 * block + values


def memory_ratio(entry: Entry) -> float:
    """Peak memory of a call, with A and B, which were there before, over the bytes of all that comes in and out."""
    inputs, everything = storage(entry)
    return math.nan if entry.peak is None else (entry.peak + inputs) / everything


def of(library: str) -> Choice:
    return lambda entry: entry.contestant.library == library


def by(library: str, method: str) -> Choice:
    return lambda entry: entry.contestant.library == library and entry.contestant.method == method


def ours(entry: Entry) -> bool:
    return entry.contestant.ours


def ours_with(method: str) -> Choice:
    return lambda entry: entry.contestant.ours and entry.contestant.method == method


def peer(entry: Entry) -> bool:
    return not entry.contestant.ours


def peer_without_expert(entry: Entry) -> bool:
    """Peers, without the adjoint written by hand around PyAMG."""
    return peer(entry) and not by("scipy", "cg + pyamg")(entry)


def peer_with_plain_cg(entry: Entry) -> bool:
    return peer(entry) and entry.contestant.method in ("cg", "CG", "linear_cg", "cg + jacobi")


def summary(entries: Sequence[Entry]) -> str:
    """A line for each goal whose cases were run: what, measured, hoped for."""
    return _aligned([*_ratios(entries), *_growth(entries), *_exponents(entries), *_memory(entries)])


Row = tuple[str, str, str]

PLANE = [f"{POISSON2} {m}^2" for m in (64, 300)]
DIRECT = [f"{POISSON2} 300^2", f"{POISSON3} 30^3"]
LARGE = [f"{POISSON2} 1000^2", f"{POISSON3} 100^3"]
BLOCK = [f"{MANY}, 2-D Poisson 100^2"]

RATIOS: list[tuple[list[str], str, Choice, str, Choice, float]] = [
    (PLANE, "tsgu_jax CG", by("tsgu_jax", "linear_cg"), "fastest CG of a peer", peer_with_plain_cg, 0.4),
    (PLANE, "tsgu_jax CG", by("tsgu_jax", "linear_cg"), "fastest peer", peer, 0.4),
    *(
        (DIRECT, f"tsgu {method}", by("tsgu", method), name, by(*theirs), 0.6)
        for method in ("direct (SuperLU)", "direct (PARDISO)")
        for name, theirs in (("torch-sla lu", ("torch_sla", "lu")), ("JAX spsolve", ("jax", "spsolve")))
    ),
    (LARGE, "AMG-CG", ours_with(AMG), "fastest peer", peer, 0.2),
    (LARGE, "AMG-CG", ours_with(AMG), "fastest peer but SciPy + PyAMG by hand", peer_without_expert, 0.2),
    (BLOCK, "fastest of ours", ours, "torchsparsegradutils", of("torchsparsegradutils"), 0.3),
    (BLOCK, "tsgu CG", by("tsgu", "linear_cg"), "torchsparsegradutils", of("torchsparsegradutils"), 0.3),
]
"""Cases, mine, theirs, goal: the fastest of each side is taken."""


def _ratios(entries: Sequence[Entry]) -> list[Row]:
    rows = []
    run = {entry.case for entry in entries}
    for cases, us, mine, them, theirs, goal in RATIOS:
        for case in (case for case in cases if case in run):
            value, rival = ratio(entries, case, mine, theirs)
            name = f" ({rival.contestant})" if rival else ""
            rows.append((f"{case}: {us} / {them}{name}", _number(value), str(goal)))
    return rows


def _number(value: float) -> str:
    return "no figure" if math.isnan(value) else f"{value:.2f}"


def _growth(entries: Sequence[Entry]) -> list[Row]:
    rows = []
    for library in OURS:
        amg = [entry for entry in entries if by(library, AMG)(entry) and entry.ok and entry.family == POISSON2]
        steps = {entry.n: entry.steps[0] for entry in amg if entry.steps[0]}
        if len(steps) > 1:
            first, last = steps[min(steps)], steps[max(steps)]
            what = f"{POISSON2}: steps of {library} AMG-CG, n = {min(steps)} to {max(steps)}: {first} to {last}"
            rows.append((what, _number(last / first), "1.5"))
    return rows


def _exponents(entries: Sequence[Entry]) -> list[Row]:
    rows = []
    for library in OURS:
        for family in (POISSON2, POISSON3):
            exponent = slope_of([e for e in entries if by(library, AMG)(e) and e.family == family])
            if not math.isnan(exponent):
                rows.append((f"{family}: exponent of time in n, {library} AMG-CG", _number(exponent), "1.15"))
    return rows


def _memory(entries: Sequence[Entry]) -> list[Row]:
    rows = []
    for library in OURS:
        own = [entry for entry in entries if by(library, "linear_cg")(entry) and entry.ok]
        if own:
            largest = max(own, key=lambda entry: storage(entry)[1])
            what = f"{largest.case}: peak memory of {library} CG / bytes of A, B, X and gradients"
            rows.append((what, _number(memory_ratio(largest)), "4"))
    return rows


def _aligned(rows: list[Row]) -> str:
    rows = [("", "measured", "goal"), *rows]
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    return "\n".join(
        f"{what.ljust(widths[0])}  {value.rjust(widths[1])}  {goal.rjust(widths[2])}" for what, value, goal in rows
    )
