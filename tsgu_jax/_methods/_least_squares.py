"""The loop around LSMR.

As the driver of the other methods it scales each right-hand side by a power of two, no longer changes a column that is
done, and goes back to the method with the true residual where the recurrence was too optimistic. What differs is the
stopping rule, :mod:`tsgu._core.methods._least_squares`: a residual need not vanish, and so A^H r is recomputed too.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from tsgu._core.methods import _least_squares as least_squares
from tsgu._core.methods._judgement import LeastSquaresRun, after_least_squares_run
from tsgu._core.methods._least_squares import GAIN
from tsgu._core.methods._options import ATTAINABLE, LOST, default_rtol, stagnation_window
from tsgu._core.report._status import CODE
from tsgu_jax._matrix._columns import norm, power_of_two
from tsgu_jax._methods._loop import _grouping
from tsgu_jax._methods._rectangular import Rectangular
from tsgu_jax._methods._seen import BROKEN, HISTORY, ILL, MET, RUNNING, SPENT, STALLED, Seen, first_of, first_status
from tsgu_jax._program import _mesh


class Kernel(NamedTuple):
    """The mathematics of the method."""

    start: Callable[[Array, Array], Any]
    """(r, A^H r) -> state, for the least-squares solution of A d = r from d = 0."""
    step: Callable[[Rectangular, Any], Any]
    """(operator, state) -> state, which holds x and the estimates of norms and condition."""
    vectors: int
    """Vectors that a step touches, which sizes the groups."""


class Limits(NamedTuple):
    """The stopping rule; numbers that may be traced."""

    atol: Any
    btol: Any
    conlim: Any
    maxiter: Any
    optimal: Any  # ||A^H r|| / (||A|| ||r||) at which the recurrence stops
    incompatible: Any  # the same where the system must be compatible


class _Columns(NamedTuple):
    """The right-hand sides on their way."""

    size: Array  # 2-norm
    steps: Array
    before: Array  # smallest residual of the runs so far
    before_r: Array  # ||r|| likewise: from a start far off it falls, while its direction is as good as any
    outcome: Array  # of the last run; running before the first
    residual: Array
    code: Array  # status; 0 while there is work to do
    history: Array | None  # (steps, ...)


class _Norms(NamedTuple):
    """True norms, per column."""

    r: Array
    g: Array  # ||A^H r||
    x: Array


class Result(NamedTuple):
    """X, B - A X, and what became of each column: see :class:`tsgu_jax._program._report.Outcome`."""

    x: Array
    r: Array
    code: Array
    steps: Array
    residual: Array
    history: Array | None


class Rule(NamedTuple):
    """What the columns of one solve are held to."""

    limits: Limits
    norm: Array  # of A
    eps: float
    compatible: bool

    def measure(self, r: Array, g: Array, norm: Array, size: Array) -> Array:
        """The residual that is reported, of ||r|| and ||A^H r||."""
        relative = r / jnp.where(size > 0, size, 1)
        if self.compatible:
            return relative
        return jnp.minimum(relative, g / jnp.where(norm * r > 0, norm * r, 1))

    def is_solved(self, norms: _Norms, size: Array) -> Array:
        """Whether the true norms pass one of the tests."""
        fits = norms.r <= self.limits.btol * size + self.limits.atol * self.norm * norms.x
        return fits if self.compatible else fits | (norms.g <= self.limits.atol * self.norm * norms.r)


def minimise(
    kernel: Kernel, operator: Rectangular, b: Array, x0: Array | None, limits: Limits, compatible: bool, keep: bool
) -> Result:
    """min ||A X - B|| for B of shape (m,) or (m, k). ``compatible`` demands that the residual vanishes."""
    rule = Rule(limits, operator.norm, float(jnp.finfo(b.dtype).eps), compatible)
    solve = partial(_minimise_group, kernel, operator, rule, keep)
    if b.ndim == 1:
        return solve(b, x0)
    rows, k = b.shape
    groups, width = _grouping(rows, k, b.dtype.itemsize * kernel.vectors)
    if groups == 1 and width > 1:
        return solve(b, x0)

    def parted(a: Array) -> Array:
        """(rows, k) as (groups, rows, width), or (groups, rows) for single columns."""
        a = jnp.pad(a, ((0, 0), (0, groups * width - k)))
        a = jnp.moveaxis(a.reshape(a.shape[0], groups, width), 1, 0)
        return a[..., 0] if width == 1 else a

    def joined(a: Array) -> Array:
        """What was said of each group's columns, (groups, ..., width) or without the last, as (..., k)."""
        return jnp.moveaxis(a.reshape(groups, -1, width), 0, 1).reshape(-1, groups * width)[:, :k]

    results: Result = lax.map(lambda part: solve(*part), jax.tree.map(parted, (b, x0)))
    x, r, code, steps, residual, history = jax.tree.map(joined, results)
    return Result(x, r, code[0], steps[0], residual[0], history)


def _minimise_group(kernel: Kernel, operator: Rectangular, rule: Rule, keep: bool, b: Array, x: Array | None) -> Result:
    finite = jnp.isfinite(b).all(axis=0)
    b = jnp.where(finite, b, 0)
    scale = power_of_two(b)
    b = b / scale
    size = norm(b)
    if x is None:
        x, r = jnp.zeros((operator.columns, *b.shape[1:]), b.dtype), b
    else:
        x = jnp.where(size > 0, x / scale, 0)
        r = b - operator.apply(x)
    g = operator.adjoint(r)
    integers = jnp.zeros(size.shape, jnp.int32)
    history = jnp.zeros((HISTORY, *size.shape), size.dtype) if keep else None
    first = jnp.full_like(size, jnp.inf)
    columns = _Columns(size, integers, first, first, integers, jnp.zeros_like(size), integers, history)
    nothing = jnp.zeros_like(size), jnp.zeros_like(size)
    columns = _judge(rule, columns, _norms(r, g, x), nothing)

    def runs(carry: tuple[Array, Array, Array, _Columns]) -> tuple[Array, Array, Array, _Columns]:
        x, r, g, columns = carry
        open_ = columns.code == 0
        d, columns = _run(kernel, operator, rule, jnp.where(open_, r, 0), jnp.where(open_, g, 0), norm(x), columns)
        moved = x + d
        left = b - operator.apply(moved)
        left_g = operator.adjoint(left)
        lost = ~(norm(left) <= least_squares.DIVERGED * norm(r))  # true for NaN
        kept = lost | ~open_
        x, r, g = jnp.where(kept, x, moved), jnp.where(kept, r, left), jnp.where(kept, g, left_g)
        columns = columns._replace(outcome=jnp.where(lost, BROKEN, columns.outcome))
        norms = _norms(r, g, x)
        rounding = _mesh.cond(
            jnp.all(rule.is_solved(norms, size)), lambda _: nothing, lambda x: _rounding(operator, rule, x, b), x
        )
        return x, r, g, _judge(rule, columns, norms, rounding)

    x, r, _, columns = _mesh.while_loop(lambda carry: jnp.any(carry[3].code == 0), runs, (x, r, g, columns))
    # A residual that is not finite from the start belongs to an A that is not.
    sound = finite & jnp.isfinite(columns.residual)
    return Result(
        jnp.where(sound, x * scale, jnp.nan),
        jnp.where(sound, r * scale, jnp.nan),
        jnp.where(finite, columns.code, CODE["non-finite"]),
        columns.steps,
        jnp.where(sound, columns.residual, jnp.nan),
        columns.history,
    )


def _norms(r: Array, g: Array, x: Array) -> _Norms:
    return _Norms(norm(r), norm(g), norm(x))


def _rounding(operator: Rectangular, rule: Rule, x: Array, b: Array) -> tuple[Array, Array]:
    """What rounding does to r and to A^H r."""
    terms = operator.magnitude(x) + jnp.abs(b)
    level = ATTAINABLE * rule.eps
    return level * norm(terms), level * norm(operator.adjoint_magnitude(terms))


def _judge(rule: Rule, columns: _Columns, norms: _Norms, rounding: tuple[Array, Array]) -> _Columns:
    """Take note of the true norms between two runs; a column whose status stays 0 gets another run."""
    c, ran = columns, columns.outcome != RUNNING
    residual = jnp.where(c.code == 0, rule.measure(norms.r, norms.g, rule.norm, c.size), c.residual)
    least = rounding[1]
    if rule.compatible:
        least = jnp.maximum(least, default_rtol(rule.eps) * rule.norm * norms.r)
    # Zero passes the test of optimality where A^H b is small beside ||A|| ||b||, without a digit of x.
    untried = ~ran & (norms.x == 0) & (norms.g > 0) & (norms.r > rule.limits.btol * c.size)
    gained = (residual <= GAIN * c.before) | (norms.r <= GAIN * c.before_r)
    run = LeastSquaresRun(
        met=rule.is_solved(norms, c.size) & ~untried,
        at_rounding=ran & (norms.r <= rounding[0]),
        lost=rounding[0] > LOST * c.size,
        optimal=ran & (norms.g <= least),
        optimal_lost=rounding[1] > LOST * rule.norm * c.size,
        infinite=~jnp.isfinite(residual),
        spent=c.steps >= rule.limits.maxiter,
        ill=c.outcome == ILL,
        stalled=c.outcome == STALLED,
        fruitless=ran & ~gained,
        broken=c.outcome == BROKEN,
    )
    code = after_least_squares_run(first_status, run, rule.compatible)
    return c._replace(
        code=jnp.where(c.code == 0, code, c.code).astype(jnp.int32),
        residual=residual,
        before=jnp.minimum(c.before, residual),
        before_r=jnp.minimum(c.before_r, norms.r),
    )


def _run(
    kernel: Kernel, operator: Rectangular, rule: Rule, r: Array, g: Array, norm_x: Array, columns: _Columns
) -> tuple[Array, _Columns]:
    """Run the method on A d = r; d, as it was when each column was done, and the columns with what they have shown."""
    scale = power_of_two(r)
    seen = Seen.start(columns)
    fixed = jnp.maximum(rule.limits.btol, rule.eps) * columns.size + rule.limits.atol * rule.norm * norm_x
    see = partial(_see, rule, columns, fixed, scale, stagnation_window(operator.columns))

    def going(carry: tuple[Any, Seen]) -> Array:
        return jnp.any(carry[1].outcome == RUNNING)

    def step(carry: tuple[Any, Seen]) -> tuple[Any, Seen]:
        old, seen = carry
        state = kernel.step(operator, old)
        if r.ndim > 1:  # a column that is done no longer changes
            state = state._replace(x=jnp.where(seen.outcome == RUNNING, state.x, old.x))
        return state, see(state, seen)

    state, seen = _mesh.while_loop(going, step, (kernel.start(r / scale, g / scale), seen))
    return state.x * scale, seen.noted(columns)


def _see(rule: Rule, columns: _Columns, fixed: Array, scale: Array, window: int, state: Any, seen: Seen) -> Seen:
    """Take note of a step."""
    limits = rule.limits
    r, g, x = state.norm_r * scale, state.norm_g * scale, state.norm_x * scale
    optimal = limits.incompatible if rule.compatible else limits.optimal
    fits = r <= fixed + jnp.maximum(limits.atol, rule.eps) * state.norm_a * x

    def judged(steps: Array, idle: Array) -> Array:
        return first_of(
            [
                fits | (g <= optimal * state.norm_a * r),
                ~jnp.isfinite(r + g),
                state.condition >= limits.conlim,
                columns.steps + steps >= limits.maxiter,
                idle >= window,
            ],
            [MET, BROKEN, ILL, SPENT, STALLED],
            RUNNING,
        )

    return seen.after(rule.measure(r, g, state.norm_a, columns.size), columns.steps, judged)
