"""The loop around LSMR, and the method prepared for one matrix.

As the driver of the other methods it scales each right-hand side by a power of two, puts aside a column that is done,
and goes back to the method with the true residual where the recurrence was too optimistic. What differs is the stopping
rule, :mod:`tsgu._core.methods._least_squares`: a residual need not vanish, and so A^H r is recomputed too.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, ParamSpec

import numpy as np
import torch
from torch import Tensor

from tsgu._core.methods._judgement import LeastSquaresRun, after_least_squares_run, first_of
from tsgu._core.methods._least_squares import (
    DIVERGED,
    GAIN,
    LeastSquaresOptions,
    optimality_tolerance,
    resolve_least_squares,
)
from tsgu._core.methods._options import ATTAINABLE, LOST, default_rtol, stagnation_window
from tsgu._core.report import _log, _solver_words, _status, _wording
from tsgu._core.report._log import recording
from tsgu._core.report._status import ColumnInfo
from tsgu._matrix._autocast import uncast
from tsgu._matrix._sparse_matrix import SparseMatrix
from tsgu._methods._columns import Arithmetic, arithmetic
from tsgu._methods._loop import _enter, _group_width, _leave, _norms, _powers_of_two, _steps_between_reads
from tsgu._methods._rectangular import Rectangular, RectangularOperator, _rows
from tsgu._rule._method import Method

P = ParamSpec("P")


class Kernel(NamedTuple):
    """The mathematics of the method."""

    start: Callable[[Arithmetic, Tensor, Tensor], Any]
    """(arithmetic, r, A^H r) -> state, for the least-squares solution of A d = r from d = 0."""
    step: Callable[[Arithmetic, Rectangular, Any], Any]
    """(arithmetic, operator, state) -> state, which holds x and the estimates of norms and condition."""
    vectors: int
    """Vectors that a step touches, which sizes the groups."""


class _Rule(NamedTuple):
    """What the columns of one solve are held to."""

    options: LeastSquaresOptions
    norm: float  # of A
    eps: float
    compatible: bool

    @property
    def optimal(self) -> float:
        return optimality_tolerance(self.options.atol, self.eps, self.compatible)

    def measure(self, r: float, g: float, norm: float, size: float) -> float:
        """The residual that is reported, of ||r|| and ||A^H r||."""
        relative = r / size if size else r
        if self.compatible:
            return relative
        return min(relative, g / (norm * r) if norm * r else g)


@dataclass
class _Column:
    """One right-hand side on its way."""

    rule: _Rule
    size: float
    window: int
    fixed: float = 0.0  # what ||r|| must reach in the current run, whatever d becomes
    steps: int = 0
    best: float = math.inf
    best_step: int = 0
    before: float = math.inf
    before_r: float = math.inf  # ||r|| likewise: from a start far off it falls, while its direction is as good as any
    outcome: str = ""
    status: str = ""
    residual: float = math.nan
    history: list[float] = field(default_factory=list)

    def enter(self, x: float) -> None:
        """Take note of a run that starts at an x of this norm."""
        atol, btol = self.rule.options.atol, self.rule.options.btol
        self.fixed = max(btol, self.rule.eps) * self.size + atol * self.rule.norm * x
        self.best, self.best_step, self.outcome = math.inf, 0, ""

    def see(self, steps: int, scale: float, r: float, g: float, norm: float, x: float, condition: float) -> bool:
        """Take note of a step of the current run; whether the run goes on."""
        rule = self.rule
        r, g, x = r * scale, g * scale, x * scale
        measure = rule.measure(r, g, norm, self.size)
        if measure < 0.99 * self.best:
            self.best, self.best_step = measure, steps
        if r <= self.fixed + max(rule.options.atol, rule.eps) * norm * x or g <= rule.optimal * norm * r:
            self.outcome = "met"
        elif not math.isfinite(r + g):
            self.outcome = "broken"
        elif condition >= rule.options.conlim:
            self.outcome = "ill"
        elif self.steps + steps >= rule.options.maxiter:
            self.outcome = "spent"
        elif steps - self.best_step >= self.window:
            self.outcome = "stalled"
        else:
            return True
        return False

    def is_solved(self, r: float, g: float, x: float) -> bool:
        """Whether the true norms pass one of the tests."""
        atol, btol, norm = self.rule.options.atol, self.rule.options.btol, self.rule.norm
        return r <= btol * self.size + atol * norm * x or (g <= atol * norm * r and not self.rule.compatible)

    def judge(self, r: float, g: float, x: float, rounding: tuple[float, float]) -> bool:
        """Take note of the true norms between two runs; whether another run is worth its while."""
        rule = self.rule
        self.residual = rule.measure(r, g, rule.norm, self.size)
        # Zero passes the test of optimality where A^H b is small beside ||A|| ||b||, without a digit of x.
        untried = not self.outcome and x == 0 and g > 0 and r > rule.options.btol * self.size
        ran = bool(self.outcome)
        least = max(rounding[1], default_rtol(rule.eps) * rule.norm * r if rule.compatible else 0.0)
        run = LeastSquaresRun(
            met=self.is_solved(r, g, x) and not untried,
            at_rounding=ran and r <= rounding[0],
            lost=rounding[0] > LOST * self.size,
            optimal=ran and g <= least,
            optimal_lost=rounding[1] > LOST * rule.norm * self.size,
            infinite=not math.isfinite(self.residual),
            spent=self.steps >= rule.options.maxiter,
            ill=self.outcome == "ill",
            stalled=self.outcome == "stalled",
            fruitless=ran and not (self.residual <= GAIN * self.before or r <= GAIN * self.before_r),
            broken=self.outcome == "broken",
        )
        self.status = after_least_squares_run(first_of, run, rule.compatible)
        self.before, self.before_r = min(self.before, self.residual), min(self.before_r, r)
        return not self.status

    def info(self) -> ColumnInfo:
        return ColumnInfo(self.status, self.steps, self.residual, np.array(self.history) if self.history else None)


def minimise(
    kernel: Kernel, operator: Rectangular, b: Tensor, x0: Tensor | None, options: LeastSquaresOptions, compatible: bool
) -> tuple[Tensor, Tensor, list[ColumnInfo]]:
    """min ||A X - B|| for B of shape (m,) or (m, k): X, the residual B - A X, and what became of each column.

    ``compatible`` demands that the residual vanishes.
    """
    columns = b.unsqueeze(1) if b.dim() == 1 else b
    starts = None if x0 is None else x0.unsqueeze(1) if x0.dim() == 1 else x0
    x, r = columns.new_empty(operator.columns, columns.shape[1]), torch.empty_like(columns)
    infos: list[ColumnInfo] = []
    width = _group_width(b, kernel.vectors)
    rule = _Rule(options, operator.norm, torch.finfo(b.dtype).eps, compatible)
    for first in range(0, columns.shape[1], width):
        group = slice(first, first + width)
        start = None if starts is None else starts[:, group]
        x[:, group], r[:, group], group_infos = _minimise_group(kernel, operator, rule, columns[:, group], start)
        infos += group_infos
    return (x.squeeze(1), r.squeeze(1), infos) if b.dim() == 1 else (x, r, infos)


def _minimise_group(
    kernel: Kernel, operator: Rectangular, rule: _Rule, b: Tensor, x: Tensor | None
) -> tuple[Tensor, Tensor, list[ColumnInfo]]:
    largest = b.abs().amax(0).tolist()
    if not all(map(math.isfinite, largest)):
        b = torch.where(torch.isfinite(b).all(0), b, 0)
    _, scale = _powers_of_two(b, largest)
    b = b / scale
    size = _norms(b)
    if x is None:
        x, r = b.new_zeros(operator.columns, b.shape[1]), b
    else:
        x = torch.where(torch.tensor(size, device=b.device) > 0, x / scale, 0)
        r = b - operator.apply(x)
    g = operator.adjoint(r)
    columns = [_Column(rule, s, stagnation_window(operator.columns)) for s in size]
    pending = list(range(len(columns)))
    rounding = [(0.0, 0.0)] * len(columns)
    while True:
        norms = zip(pending, _norms(r[:, pending]), _norms(g[:, pending]), _norms(x[:, pending]), strict=True)
        pending = [i for i, norm_r, norm_g, norm_x in norms if columns[i].judge(norm_r, norm_g, norm_x, rounding[i])]
        if not pending:
            break
        bs, start, old, old_g = b[:, pending], x[:, pending], r[:, pending], g[:, pending]
        for index, norm in zip(pending, _norms(start), strict=True):
            columns[index].enter(norm)
        xs = start + _run(kernel, operator, old, old_g, [columns[index] for index in pending])
        rs = bs - operator.apply(xs)
        gs = operator.adjoint(rs)
        for place, (index, new, was) in enumerate(zip(pending, _norms(rs), _norms(old), strict=True)):
            if not new <= DIVERGED * was:  # true for NaN
                xs[:, place], rs[:, place], gs[:, place] = start[:, place], old[:, place], old_g[:, place]
                columns[index].outcome = "broken"
        if len(pending) == len(columns):
            x, r, g = xs, rs, gs
        else:
            x[:, pending], r[:, pending], g[:, pending] = xs, rs, gs
        norms = zip(pending, _norms(rs), _norms(gs), _norms(xs), strict=True)
        if not all(columns[i].is_solved(norm_r, norm_g, norm_x) for i, norm_r, norm_g, norm_x in norms):
            terms = operator.magnitude(xs) + bs.abs()
            level = ATTAINABLE * rule.eps
            for i, norm_r, norm_g in zip(
                pending, _norms(terms), _norms(operator.adjoint_magnitude(terms)), strict=True
            ):
                rounding[i] = level * norm_r, level * norm_g
    x, r = x * scale, r * scale
    infos = [column.info() for column in columns]
    for index, entry in enumerate(largest):
        if not math.isfinite(entry):
            x[:, index] = r[:, index] = math.nan
            infos[index] = ColumnInfo("non-finite", 0, math.nan)
    return x, r, infos


def _run(kernel: Kernel, operator: Rectangular, r: Tensor, g: Tensor, columns: list[_Column]) -> Tensor:
    """Run the method on A d = r for a group of columns; d, as it was when each column was done."""
    space = arithmetic(r.device, r.shape[1])
    scales, scale = _powers_of_two(r, r.abs().amax(0).tolist())
    state = kernel.start(space, _enter(space, r / scale), _enter(space, g / scale))
    every = _steps_between_reads(r.device)
    limit = max(column.rule.options.maxiter - column.steps for column in columns)
    keep = recording()
    running = list(range(len(columns)))
    steps = 0
    d = torch.zeros_like(g)
    while running:
        state = kernel.step(space, operator, state)
        steps += 1
        if steps % every and steps < limit:
            continue
        estimates = (state.norm_r, state.norm_g, state.norm_a, state.norm_x, state.condition)
        seen = list(zip(*map(space.tolist, estimates), strict=True))
        if keep:
            for index in running:
                column, (norm_r, norm_g, norm_a, *_) = columns[index], seen[index]
                norms = norm_r * scales[index], norm_g * scales[index]
                column.history.append(column.rule.measure(*norms, norm_a, column.size))
        done = [index for index in running if not columns[index].see(steps, scales[index], *seen[index])]
        if done:
            running = [index for index in running if index not in done]
            x = _leave(state.x)
            for index in done:
                columns[index].steps += steps
                d[:, index] = x[:, index] * scales[index]
    return d


def least_squares_method(kernel: Kernel) -> Callable[[Callable[P, Tensor]], Method[P]]:
    """Make a method of a kernel and the public function that documents it."""

    def decorate(function: Callable[P, Tensor]) -> Method[P]:
        def prepare(A: Any, arguments: Mapping[str, Any]) -> _LeastSquaresSystem:
            if not isinstance(A, SparseMatrix):
                accepted = f"a sparse tensor or a SparseMatrix for {function.__name__}"
                raise TypeError(_wording.not_a("A", accepted, A))
            return _LeastSquaresSystem(kernel, function.__name__, A, arguments)

        return Method(function, prepare, settings=None, hermitian=False, rectangular=True)

    return decorate


class _LeastSquaresSystem:
    """The method prepared for one matrix: for least squares, and for the solution of a square system."""

    def __init__(self, kernel: Kernel, name: str, A: SparseMatrix, arguments: Mapping[str, Any]) -> None:
        self._kernel, self._name, self._matrix = kernel, name, A
        self._options = resolve_least_squares(arguments, A.shape[1], torch.finfo(A.dtype).eps)

    @cached_property
    def _operator(self) -> RectangularOperator:
        return RectangularOperator(self._matrix, self._options.damp)

    @property
    def rows(self) -> int:
        """Equations: m, and n more where x is damped."""
        return self._operator.rows

    def least_squares(self, B: Tensor, x0: Tensor | None) -> tuple[Tensor, Tensor]:
        """X that minimises ||A X - B||, and B - A X, with ``rows`` rows."""
        return self._scaled(B, x0, compatible=False)

    def minimum_norm(self, C: Tensor) -> Tensor:
        """The smallest Y with A^H Y = C, with ``rows`` rows."""
        C = C * _rows(self._operator.scale, C)
        return self._minimise(self._operator.H, C, None, transposed=True, compatible=True)[0]

    def solve(self, B: Tensor, x0: Tensor | None = None, primal: bool = True) -> Tensor:
        """X with A X = B, for square A."""
        self._check_undamped()
        return self._scaled(B, x0, compatible=True)[0]

    def solve_transpose(self, G: Tensor) -> Tensor:
        """Y with A^T Y = G, for square A."""
        self._check_undamped()
        return torch.conj_physical(self.minimum_norm(torch.conj_physical(G)))

    def _check_undamped(self) -> None:
        if self._options.damp:  # the rule of square systems knows nothing of it
            raise TypeError(_solver_words.damp_in_a_solve())

    def _scaled(self, B: Tensor, x0: Tensor | None, compatible: bool) -> tuple[Tensor, Tensor]:
        """X = D X' for X' that minimises ||A D X' - B||."""
        scale = _rows(self._operator.scale, B)
        x0 = None if x0 is None else x0 / scale
        x, r = self._minimise(self._operator, B, x0, transposed=False, compatible=compatible)
        return x * scale, r

    @uncast
    def _minimise(
        self, operator: Rectangular, B: Tensor, x0: Tensor | None, transposed: bool, compatible: bool
    ) -> tuple[Tensor, Tensor]:
        began = time.perf_counter()
        x, r, columns = minimise(self._kernel, operator, B, x0, self._options, compatible)
        info = _status.summarize(self._name, transposed, columns, time.perf_counter() - began)
        _log.report(info, max(self._options.atol, self._options.btol))
        return x, r
