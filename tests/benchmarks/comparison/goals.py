"""What was hoped for, beside what was measured. Reported, never asserted."""

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from tests.benchmarks.comparison.problems import MANY, POISSON2, POISSON3
from tests.benchmarks.comparison.schedule import Entry

Choice = Callable[[Entry], bool]


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


def by(library: str, method: str = "") -> Choice:
    return lambda entry: entry.contestant.library == library and entry.contestant.method.startswith(method)


def peer(entry: Entry) -> bool:
    return not entry.contestant.ours


def peer_without_expert(entry: Entry) -> bool:
    """Peers, without the adjoint written by hand around PyAMG."""
    return peer(entry) and not by("scipy", "cg + pyamg")(entry)


def peer_with_plain_cg(entry: Entry) -> bool:
    return peer(entry) and entry.contestant.method in ("cg", "CG", "linear_cg", "cg + jacobi")


def ours_with(method: str) -> Choice:
    return lambda entry: entry.contestant.ours and entry.contestant.method == method


def summary(entries: Sequence[Entry]) -> str:
    """A line for each goal: what, measured, hoped for."""
    return _aligned(
        [
            *_ratios(entries, [f"{POISSON2} {m}^2" for m in (64, 300)], by("tsgu_jax", "linear_cg"), 0.4,
                     "tsgu_jax CG", {"fastest CG of a peer": peer_with_plain_cg, "fastest peer": peer}, plain=True),
            *_direct(entries),
            *_ratios(entries, [f"{POISSON2} 1000^2", f"{POISSON3} 100^3"], ours_with("linear_cg + amg"), 0.2,
                     "AMG-CG", {"fastest peer": peer, "fastest peer without SciPy + PyAMG by hand": peer_without_expert}),
            *_ratios(entries, [f"{MANY}, 2-D Poisson 100^2"], lambda e: e.contestant.ours, 0.3,
                     "fastest of ours", {"torchsparsegradutils": by("torchsparsegradutils")}),
            *_growth(entries),
            *_memory(entries),
        ]
    )  # fmt: skip


Row = tuple[str, str, str]


def _ratios(entries, cases, mine, goal, name, rivals, plain=False) -> list[Row]:
    if plain:
        mine = _both(mine, lambda entry: "+" not in entry.contestant.method)
    rows = []
    for case in cases:
        for rival, choice in rivals.items():
            value, them = ratio(entries, case, mine, choice)
            rows.append(
                (f"{case}: {name} / {rival}" + (f" ({them.contestant})" if them else ""), f"{value:.2f}", f"{goal}")
            )
    return rows


def _both(one: Choice, other: Choice) -> Choice:
    return lambda entry: one(entry) and other(entry)


def _direct(entries) -> list[Row]:
    rivals = {"torch-sla lu": by("torch_sla", "lu"), "JAX spsolve": by("jax", "spsolve")}
    cases = [f"{POISSON2} 300^2", f"{POISSON3} 30^3"]
    return [
        row
        for library in ("SuperLU", "PARDISO")
        for row in _ratios(entries, cases, by("tsgu", f"direct ({library})"), 0.6, f"tsgu direct ({library})", rivals)
    ]


def _growth(entries) -> list[Row]:
    rows = []
    for library in ("tsgu", "tsgu_jax"):
        amg = [e for e in entries if by(library, "linear_cg + amg")(e) and e.ok and e.family == POISSON2]
        steps = {entry.n: entry.steps[0] for entry in amg if entry.steps[0]}
        if len(steps) > 1:
            first, last = steps[min(steps)], steps[max(steps)]
            text = f"steps of AMG-CG, {library}, n = {min(steps)} to {max(steps)}: {first} to {last}"
            rows.append((text, f"{last / first:.2f}", "1.5"))
        for family in (POISSON2, POISSON3):
            own = [e for e in entries if by(library, "linear_cg + amg")(e) and e.family == family]
            rows.append((f"{family}: exponent of time in n, AMG-CG, {library}", f"{slope_of(own):.2f}", "1.15"))
    return rows


def _memory(entries) -> list[Row]:
    rows = []
    for library in ("tsgu", "tsgu_jax"):
        own = [e for e in entries if e.contestant.library == library and e.contestant.method == "linear_cg" and e.ok]
        if own:
            largest = max(own, key=lambda entry: entry.nnz + entry.n * entry.columns)
            text = f"{largest.case}: peak memory of {library} CG / bytes of A, B, X and gradients"
            rows.append((text, f"{memory_ratio(largest):.2f}", "4"))
    return rows


def _aligned(rows: list[Row]) -> str:
    rows = [("", "measured", "goal"), *rows]
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    return "\n".join(
        f"{what.ljust(widths[0])}  {value.rjust(widths[1])}  {goal.rjust(widths[2])}" for what, value, goal in rows
    )
