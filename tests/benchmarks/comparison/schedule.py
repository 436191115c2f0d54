"""Who is measured when: every contestant of a case once in each round, and none for longer than it was granted."""

import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from tests.benchmarks.comparison.problems import GALLERY, Case, Recipe
from tests.benchmarks.comparison.process import Failed, Process
from tests.benchmarks.comparison.verdict import TARGET, Check, check
from tests.benchmarks.peers import Contestant

LOADING = 180.0
"""Seconds for imports and for bringing a case to a library's formats."""

COMPILING = 7.0
"""Seconds that the first call may take longer than the others."""

FIRST_TOLERANCE = 0.9 * TARGET
"""What iterative contestants are asked for at first: a recurrence may end slightly below the true residual."""


@dataclass(frozen=True)
class Budget:
    call: float  # seconds for one forward and backward pass
    rounds: int
    seconds: float  # for all rounds of a contestant on a case, beyond the first call
    memory: float = float("inf")  # bytes of a process
    steps: bool = True  # whether to ask for iterations, which compiles once more in JAX

    @property
    def first_call(self) -> float:
        return self.call + COMPILING

    @property
    def only_once(self) -> float:
        """A first call of more seconds is not repeated."""
        return self.call / 2 + COMPILING


@dataclass
class Entry:
    """A contestant on a case, and what was measured."""

    case: str
    family: str
    n: int
    nnz: int
    columns: int
    contestant: Contestant
    status: str = "ok"
    first: float | None = None  # seconds of the first call: set-up and compilation included
    times: list[float] = field(default_factory=list)
    rtol: float = FIRST_TOLERANCE
    checks: list[Check] = field(default_factory=list)
    peaks: list[int] = field(default_factory=list)
    steps: tuple[int | None, int | None] = (None, None)

    @property
    def ok(self) -> bool:
        return self.status == "ok"

    @property
    def median(self) -> float:
        return float(np.median(self.times)) if self.times else float("nan")

    @property
    def peak(self) -> int | None:
        return max(self.peaks) if self.peaks else None

    def worst(self, what: str) -> float | None:
        return max(getattr(check, what) for check in self.checks) if self.checks else None


class Schedule:
    """Runs cases one after the other, and remembers who has exceeded the limit at which size of a family."""

    def __init__(self, budget: Budget, say: Callable[[str], None]) -> None:
        self.budget, self.say = budget, say
        self.processes: dict[Contestant, Process] = {}
        self.given_up: dict[tuple[str, Contestant], str] = {}

    def run(self, recipe: Recipe, contestants: Iterable[Contestant]) -> list[Entry]:
        case = recipe.case()
        size = (case.name, case.family, case.n, case.A.nnz, case.columns)
        entries = [Entry(*size, contestant) for contestant in contestants if contestant.fits(case)]
        with tempfile.TemporaryDirectory() as folder:
            case.save(Path(folder) / "case.npz")
            bench = _Bench(self, case, Path(folder))
            bench.load(entries)
            for entry in entries:
                bench.guarded(entry, bench.first)
                self.say(f"  first call: {entry.contestant!s:38} {_first(entry)}")
            for number in range(1, self.budget.rounds + 1):
                for entry in entries:
                    if bench.wants_more(entry):
                        bench.guarded(entry, lambda entry, scale=1 + number / 128: bench.once(entry, scale))
            for entry in entries:
                if self.budget.steps and entry.ok and entry.median < self.budget.call / 8:
                    bench.count(entry)
            for entry in entries:
                self.say(f"  {entry.contestant!s:38} {_brief(entry)}")
                if entry.ok or self._alive(entry.contestant):
                    bench.guarded(entry, bench.forget)
        return entries

    def process(self, contestant: Contestant) -> Process:
        if not self._alive(contestant):
            self.processes[contestant] = Process(contestant.library, contestant.method, self.budget.memory)
        return self.processes[contestant]

    def _alive(self, contestant: Contestant) -> bool:
        return contestant in self.processes and self.processes[contestant].alive

    def end(self) -> None:
        for process in self.processes.values():
            process.end()


class _Bench:
    """One case: what is asked of a contestant's process, each step leaving its mark in the entry."""

    def __init__(self, schedule: Schedule, case: Case, folder: Path) -> None:
        self.schedule, self.case, self.folder = schedule, case, folder

    def guarded(self, entry: Entry, step: Callable[[Entry], None]) -> None:
        if not entry.ok and step != self.forget:
            return
        try:
            step(entry)
        except Failed as failure:
            entry.status = str(failure)
            key = entry.family, entry.contestant
            if entry.family != GALLERY and entry.status.startswith(("over ", "out of memory")):
                where = entry.case.removeprefix(entry.family).strip()
                self.schedule.given_up[key] = f"skipped: {failure} at {where or entry.case}"

    def load(self, entries: list[Entry]) -> None:
        """All at the same time, since nothing is timed yet."""
        for entry in entries:
            entry.status = self.schedule.given_up.get((entry.family, entry.contestant), "ok")
            self.guarded(entry, self._ask_to_start)
        for entry in entries:
            self.guarded(entry, lambda entry: self._process(entry).receive(LOADING) and None)

    def first(self, entry: Entry) -> None:
        """The first call; again with a smaller tolerance where the true residual misses the target, if that helps."""
        before = np.inf
        for _ in range(5):
            seconds, found = self._solve(entry, 1.0, self.schedule.budget.first_call)
            met, hopeless = found.residual <= TARGET, not found.residual < min(before, 1e5 * TARGET)
            if met or hopeless or not entry.contestant.iterative or seconds > self.schedule.budget.call / 3:
                break
            before = 0.9 * found.residual
            entry.rtol *= 0.5 * TARGET / found.residual
            self._ask_to_start(entry)
            self._process(entry).receive(LOADING)
        entry.first = seconds
        entry.checks.append(found)
        entry.status = found.complaint or "ok"
        if self._only_once(entry):  # long enough for compilation not to matter
            entry.times.append(seconds)
        else:
            entry.peaks.clear()  # of compilation

    def wants_more(self, entry: Entry) -> bool:
        if not entry.ok or self._only_once(entry):
            return False
        return not entry.times or sum(entry.times) + entry.times[-1] < self.schedule.budget.seconds

    def _only_once(self, entry: Entry) -> bool:
        return entry.first is not None and entry.first > self.schedule.budget.only_once

    def once(self, entry: Entry, scale: float) -> None:
        seconds, found = self._solve(entry, scale, self.schedule.budget.call)
        entry.times.append(seconds)
        entry.checks.append(found)
        entry.status = found.complaint or "ok"

    def count(self, entry: Entry) -> None:
        """Steps, in a call that is not timed and may compile; without an answer the measured times stand."""
        try:
            steps = self._process(entry).ask("steps", LOADING)["steps"]
        except Failed as failure:
            self.schedule.say(f"  steps of {entry.contestant}: {failure}")
        else:
            entry.steps = tuple(steps or (None, None))

    def forget(self, entry: Entry) -> None:
        if not entry.status.startswith("not installed"):
            self._process(entry).ask("forget", LOADING)

    def _process(self, entry: Entry) -> Process:
        return self.schedule.process(entry.contestant)

    def _ask_to_start(self, entry: Entry) -> None:
        self._process(entry).send("start", case=str(self.folder / "case.npz"), rtol=entry.rtol)

    def _solve(self, entry: Entry, scale: float, limit: float) -> tuple[float, Check]:
        out = self.folder / "out.npz"
        answer = self._process(entry).ask("solve", limit, scale=scale, out=str(out))
        if answer["peak"] is not None:
            entry.peaks.append(answer["peak"])
        case = self.case
        A = sp.csr_array((scale * case.A.data, case.A.indices, case.A.indptr), shape=case.A.shape)
        with np.load(out) as found:
            return answer["seconds"], check(A, case.b, case.w, found["x"], found["lam"], found["grad"])


def _brief(entry: Entry) -> str:
    return f"{entry.median:9.4f} s, {len(entry.times)} rounds" if entry.ok else entry.status


def _first(entry: Entry) -> str:
    return f"{entry.first:9.2f} s" if entry.ok else entry.status
