"""The loop around a method: columns, counting, freezing, stopping, true residuals.

A method knows only how to improve the solution d of A d = r from d = 0. The driver

1. scales each right-hand side by a power of two, so that no norm overflows or vanishes;
2. runs the method on the true residual until its recurrence says that the target is met, or it breaks down, or stops
   making progress, or runs out of steps. A column that is done is put aside and no longer changes;
3. computes the true residual, and goes back to 2 with what is left of it where the recurrence was too optimistic and
   the run has gained something. So a reported residual is never that of a recurrence.

What a run has is kept whenever its residual has come down to a quarter, since the next step may spoil it. A run that
makes no progress is looked at after 10, 20, 40, ... such steps (sooner where it is short), and at a bad end: what it
has is kept if its true residual is the least so far, and the run ends where the recurrence is wrong or has come down to
rounding level.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from tsgu._core.methods._judgement import Run, after_run, first_of
from tsgu._core.methods._options import ATTAINABLE, DRIFT, GAIN, LOOK, LOST, WORTH, Options, diverged, stagnation_window
from tsgu._core.report._log import recording
from tsgu._core.report._status import ColumnInfo
from tsgu._methods._columns import Arithmetic, arithmetic
from tsgu._rule._operator import Apply, Operator, Product

_CACHE = 4 << 20
"""Bytes that the vectors of a group of columns may take on the CPU, about a second-level cache."""


class State(Protocol):
    """What every method's state has; the rest is its own."""

    @property
    def norm(self) -> Any:
        """2-norm of the residual by the recurrence, per column."""

    @property
    def broken(self) -> Any:
        """Whether the last step broke down, per column."""


class Problem(NamedTuple):
    """What a step sees."""

    A: Product
    M: Apply
    preconditioned: bool
    restart: int
    unit: float
    """What the user's A was divided by. His solution is that of the problem here divided by it; the residuals are the
    same.
    """


class Kernel(NamedTuple):
    """The mathematics of a method."""

    start: Callable[[Arithmetic, Problem, Tensor, int], Any]
    """(arithmetic, problem, r, attempt) -> state, for A d = r from d = 0; ``attempt`` counts fruitless breakdowns."""
    step: Callable[[Arithmetic, Problem, Any], Any]
    """(arithmetic, problem, state) -> state."""
    solution: Callable[[Arithmetic, Problem, Any], Tensor]
    """(arithmetic, problem, state) -> d."""
    vectors: Callable[[Options], int]
    """Vectors that a step touches, which sizes the groups."""
    minimal: bool = False
    """Whether the residual falls in every step by construction."""
    least: Callable[[Any], Any] | None = None
    """state -> whether the residual has been the least there is, per column; None where the method does not know."""


@dataclass
class _Column:
    """One right-hand side on its way."""

    size: float
    target: float
    limit: float
    window: int
    maxiter: int
    steps: int = 0
    best: float = float("inf")
    best_step: int = 0
    look: int = LOOK  # steps without progress after which the run is looked at
    looked: bool = False
    kept: float = float("inf")  # residual of what is kept of the run: true if it was looked at
    worth: float = 0.0  # a residual at which more is worth keeping; none where it falls in every step
    least: bool = False
    before: float = float("inf")
    outcome: str = ""
    attempt: int = 0
    status: str = ""
    residual: float = float("nan")
    history: list[float] = field(default_factory=list)

    def enter(self, residual: float, minimal: bool) -> None:
        """Take note of a run that starts from this residual."""
        self.best, self.best_step, self.outcome = float("inf"), 0, ""
        self.look, self.looked, self.kept = LOOK, False, residual
        self.worth = 0.0 if minimal else WORTH * residual

    def see(self, steps: int, norm: float, broken: bool, scale: float) -> bool:
        """Take note of a step of the current run; whether the run goes on, and need not be looked at."""
        norm *= scale
        if norm < 0.99 * self.best:
            self.best, self.best_step, self.look = norm, steps, min(LOOK, max(2, steps // 2))
        if norm <= self.target:
            self.outcome = "met"
        elif not norm < self.limit:
            self.outcome = "diverged"
        elif broken:
            self.outcome = "broken"
        elif self.steps + steps >= self.maxiter:
            self.outcome = "spent"
        elif steps - self.best_step >= self.window:
            self.outcome = "stalled"
        else:
            return steps - self.best_step < self.look and norm >= self.worth
        return False

    def is_doubtful(self, steps: int, minimal: bool) -> bool:
        """Whether to compare the true residual with that of what is kept before what the run has is taken."""
        if not self.outcome:
            return self.looked or steps - self.best_step >= self.look
        if self.outcome == "spent":
            return minimal
        return self.outcome != "met" or self.looked

    def takes(self, residual: float) -> None:
        """Take note of what is kept with this residual."""
        self.kept, self.worth = residual, WORTH * residual if self.worth else 0.0

    def keeps(self, residual: float, claimed: float, rounding: float) -> bool:
        """Take note of the true residual in the middle of a run, or at a bad end; whether it is the least so far."""
        self.look, self.looked = 2 * self.look, True
        if not self.outcome and not (residual <= DRIFT * claimed and claimed > rounding):
            self.outcome = "drifted"
        if not residual < self.kept:
            return False
        self.takes(residual)
        return True

    def judge(self, residual: float, rounding: float) -> bool:
        """Take note of the true residual between two runs; whether another run is worth its while."""
        self.residual = residual
        if not self.outcome:  # a poor x0 is not the method's fault
            self.limit *= max(1.0, residual / self.size if self.size else 1.0)
        ran = bool(self.outcome)
        run = Run(
            met=residual <= self.target,
            at_rounding=ran and residual <= rounding,
            lost=rounding > LOST * self.size,
            infinite=not math.isfinite(residual),
            spent=self.steps >= self.maxiter,
            fruitless=ran and residual > GAIN * self.before,
            least=self.least,
            failed=self.outcome in ("broken", "diverged"),
            retried=self.attempt > 0,
        )
        self.status = after_run(first_of, run)
        if run.fruitless and run.failed:
            self.attempt = 1
        self.before = min(self.before, residual)
        return not self.status

    def is_lost(self, residual: float, minimal: bool) -> bool:
        """Whether the run that ended with this true residual is to be undone, since it ended worse than it began.

        A run that stopped for want of steps is kept all the same, unless the method makes its residual fall in every
        step: that of conjugate gradients may rise while x improves.
        """
        if not residual <= self.limit:
            self.outcome = "diverged"
        return (residual > self.before and (minimal or self.outcome != "spent")) or self.outcome == "diverged"

    def info(self) -> ColumnInfo:
        relative = self.residual / self.size if self.size else self.residual
        history = np.array(self.history) / self.size if self.history else None
        return ColumnInfo(self.status, self.steps, relative, history)


Watch = Callable[[int, float], None]
"""What hears of each step: how many there were, and the largest relative residual."""


def solve(
    kernel: Kernel,
    operator: Operator,
    M: Apply,
    preconditioned: bool,
    b: Tensor,
    x0: Tensor | None,
    options: Options,
    watch: Watch | None = None,
) -> tuple[Tensor, list[ColumnInfo]]:
    """Solve A X = B for B of shape (n,) or (n, k); X like B, and what became of each column."""
    vector = b.dim() == 1
    product, inverse = _shaped_product(operator.apply, vector), _shaped(M, vector)
    problem = Problem(product, inverse, preconditioned, options.restart, operator.unit)
    magnitude = _shaped(operator.magnitude, vector)
    columns = b.unsqueeze(1) if vector else b
    starts = None if x0 is None else x0.unsqueeze(1) if vector else x0
    solved = torch.empty_like(b, memory_format=torch.contiguous_format)  # and no view, which could not be written to
    x = solved.unsqueeze(1) if vector else solved
    infos: list[ColumnInfo] = []
    width = _group_width(b, kernel.vectors(options))
    for first in range(0, columns.shape[1], width):
        group = slice(first, first + width)
        start = None if starts is None else starts[:, group]
        solution, group_infos = _solve_group(kernel, problem, magnitude, columns[:, group], start, options, watch)
        x[:, group] = solution
        infos += group_infos
    return solved, infos


def _shaped(function: Apply, vector: bool) -> Apply:
    """A user's callable sees vectors if B is one and blocks otherwise; a single column runs as (n,) in both cases."""
    if vector:
        return lambda v: function(v) if v.dim() == 1 else function(v[:, 0]).unsqueeze(1)
    return lambda v: function(v) if v.dim() == 2 else function(v.unsqueeze(1)).squeeze(1)


def _shaped_product(function: Product, vector: bool) -> Product:
    """The same, with memory for the result."""
    same = 1 if vector else 2

    def product(v: Tensor, /, out: Tensor | None = None) -> Tensor:
        if v.dim() == same:
            return function(v, out)
        if vector:
            return function(v[:, 0], None if out is None else out[:, 0]).unsqueeze(1)
        return function(v.unsqueeze(1), None if out is None else out.unsqueeze(1)).squeeze(1)

    return product


def _group_width(b: Tensor, vectors: int) -> int:
    """Columns that are worked on together: all on an accelerator; on the CPU as many as stay in cache, up to eight."""
    if b.device.type != "cpu":
        return max(1, b.numel())
    return min(8, max(1, _CACHE // max(1, vectors * b.shape[0] * b.element_size())))


def _solve_group(
    kernel: Kernel,
    problem: Problem,
    magnitude: Apply,
    b: Tensor,
    x: Tensor | None,
    options: Options,
    watch: Watch | None,
) -> tuple[Tensor, list[ColumnInfo]]:
    n, eps = b.shape[0], torch.finfo(b.dtype).eps
    largest = b.abs().amax(0).tolist() if n else [0.0] * b.shape[1]
    if not all(map(math.isfinite, largest)):
        b = torch.where(torch.isfinite(b).all(0), b, 0)
    scales, scale = _powers_of_two(b, largest)
    b = b / scale
    size, unit = _norms(b), torch.full_like(scale, problem.unit)
    if x is None:
        x, r = torch.zeros_like(b), b
    else:
        x = torch.where(torch.tensor(size, device=b.device) > 0, times_ratio(x, unit, scale), 0)
        r = b - problem.A(x)
    columns = [
        _Column(s, max(options.rtol * s, options.atol / c), diverged(eps) * s, stagnation_window(n), options.maxiter)
        for s, c in zip(size, scales, strict=True)
    ]
    pending = list(range(len(columns)))
    rounding = [0.0] * len(columns)
    while True:
        pending = [
            index
            for index, norm, limit in zip(pending, _norms(r), rounding, strict=True)
            if columns[index].judge(norm, limit)
        ]
        if not pending:
            break
        bs, start = _take(b, pending), _take(x, pending)
        r = bs - problem.A(start) if len(pending) < r.shape[1] else r
        xs = start + _run(kernel, problem, magnitude, r, [columns[index] for index in pending], watch)
        old, r = r, bs - problem.A(xs)
        for place, (index, norm) in enumerate(zip(pending, _norms(r), strict=True)):
            if columns[index].is_lost(norm, kernel.minimal):
                xs[:, place], r[:, place] = start[:, place], old[:, place]
        if len(pending) == len(columns):
            x = xs
        else:
            x[:, pending] = xs
        rounding = [0.0] * len(pending)
        if any(norm > columns[index].target for index, norm in zip(pending, _norms(r), strict=True)):
            rounding = [ATTAINABLE * eps * norm for norm in _norms(magnitude(xs) + bs.abs())]
    x = times_ratio(x, scale, unit)
    infos = [column.info() for column in columns]
    for index, finite in enumerate(torch.isfinite(x).all(0).tolist()):
        if not finite:
            infos[index] = replace(infos[index], status="overflow")
    for index, entry in enumerate(largest):
        if not math.isfinite(entry):
            x[:, index] = float("nan")
            infos[index] = ColumnInfo("non-finite", 0, float("nan"))
    return x, infos


def _run(
    kernel: Kernel, problem: Problem, magnitude: Apply, r: Tensor, columns: list[_Column], watch: Watch | None
) -> Tensor:
    """Run the method on A d = r for a group of columns; d, as it was when each column was done, or the best kept."""
    space = arithmetic(r.device, r.shape[1])
    scales, scale = _powers_of_two(r, r.abs().amax(0).tolist())
    see = [column.see for column in columns]
    state = kernel.start(space, problem, _enter(space, r / scale), max(column.attempt for column in columns))
    every = _steps_between_reads(r.device)
    limit = max(column.maxiter - column.steps for column in columns)
    recorded = recording()
    running = list(range(len(columns)))
    for column, norm in zip(columns, _norms(r), strict=True):
        column.enter(norm, kernel.minimal)
    steps = 0
    d = torch.zeros_like(r)
    while running:
        state = kernel.step(space, problem, state)
        steps += 1
        if steps % every and steps < limit:
            continue
        norms, broken = space.tolist(state.norm), space.tolist(state.broken)
        if recorded:
            for index in running:
                columns[index].history.append(norms[index] * scales[index])
        if watch is not None:
            left = (norms[index] * scales[index] / columns[index].size for index in running)
            watch(max(columns[index].steps for index in running) + steps, max(left))
        paused = [index for index in running if not see[index](steps, norms[index], broken[index], scales[index])]
        if not paused:
            continue
        solution = _leave(kernel.solution(space, problem, state)) * scale
        doubtful = [index for index in paused if columns[index].is_doubtful(steps, kernel.minimal)]
        keep = [index for index in paused if index not in doubtful]
        for index in keep:
            columns[index].takes(norms[index] * scales[index])
        if doubtful:
            residual = _norms(r - problem.A(solution))
            rounding = _norms(magnitude(solution) + r.abs())
            eps = torch.finfo(r.dtype).eps
            for index in doubtful:
                claimed, level = norms[index] * scales[index], ATTAINABLE * eps * rounding[index]
                if columns[index].keeps(residual[index], claimed, level):
                    keep.append(index)
        d[:, keep] = solution[:, keep]
        for index in paused:
            if columns[index].outcome:
                running.remove(index)
                columns[index].steps += steps
                columns[index].least |= kernel.least is not None and space.tolist(kernel.least(state))[index]
    return d


def _steps_between_reads(device: torch.device) -> int:
    """The residual is read in every step on the CPU; an accelerator would wait for it, and is read now and then."""
    return 1 if device.type == "cpu" else 10


def _enter(space: Arithmetic, r: Tensor) -> Tensor:
    return r[:, 0].contiguous() if space.width == 1 and r.device.type == "cpu" else r.contiguous()


def _leave(d: Tensor) -> Tensor:
    return d.unsqueeze(1) if d.dim() == 1 else d


def _take(columns: Tensor, places: list[int]) -> Tensor:
    return columns if len(places) == columns.shape[1] else columns[:, places]


def _powers_of_two(columns: Tensor, largest: list[float]) -> tuple[list[float], Tensor]:
    """A power of two near the largest entry of each column, 1 for a zero column: scaling by it is exact."""
    powers = [math.ldexp(0.5, math.frexp(entry)[1]) if 0 < entry < math.inf else 1.0 for entry in largest]
    return powers, torch.tensor(powers, dtype=columns.real.dtype, device=columns.device)


def times_ratio(x: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """x up / down for powers of two, which overflows and vanishes only where the result does."""
    together = (up >= 1) == (down >= 1)  # then the ratio is a normal number
    return x * torch.where(together, up / down, up) / torch.where(together, 1, down)


def _norms(columns: Tensor) -> list[float]:
    return torch.linalg.vector_norm(columns, dim=0).tolist()
