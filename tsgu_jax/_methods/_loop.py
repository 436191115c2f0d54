"""The loop around a method: columns, counting, freezing, stopping, true residuals.

A method knows only how to improve the solution d of A d = r from d = 0. The driver

1. scales each right-hand side by a power of two, so that no norm overflows or vanishes;
2. runs the method on the true residual until its recurrence says that the target is met, or it breaks down, or stops
   making progress, or runs out of steps. What a column has gained is taken when it is done, and no longer changes;
3. computes the true residual, and goes back to 2 with what is left of it where the recurrence was too optimistic and
   the run has gained something. So a reported residual is never that of a recurrence.

What a run has is kept whenever its residual has come down to a quarter, since the next step may spoil it. A run that
makes no progress is looked at after 10, 20, 40, ... such steps (sooner where it is short), and at a bad end: what it
has is kept if its true residual is the least so far, and the run ends where the recurrence is wrong or has come down to
rounding level.

All of it is ``lax.while_loop``, with the columns of a group in one array; what is said of a column is a number in an
array of shape (k,), or () for a vector.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import Array, lax

from tsgu._core.methods._judgement import Run, after_run
from tsgu._core.methods._options import ATTAINABLE, DRIFT, GAIN, LOST, WORTH, diverged, stagnation_window
from tsgu._core.report._progress import EVERY
from tsgu._core.report._status import CODE
from tsgu_jax._matrix._columns import norm, power_of_two, times_ratio
from tsgu_jax._methods._seen import (
    BROKEN,
    DIVERGED,
    HISTORY,
    MET,
    RUNNING,
    SPENT,
    STALLED,
    Seen,
    first_of,
    first_status,
)
from tsgu_jax._program import _mesh
from tsgu_jax._program._conditions import in_all

Apply = Callable[[Array], Array]

_CACHE = 4 << 20
"""Bytes that the vectors of a group of columns may take on the CPU, about a second-level cache."""


class State(Protocol):
    """What every method's state has; the rest is its own."""

    @property
    def norm(self) -> Array:
        """2-norm of the residual by the recurrence, per column."""

    @property
    def broken(self) -> Array:
        """Whether the last step broke down, per column."""


class Problem(NamedTuple):
    """What a step sees."""

    A: Apply
    M: Apply
    preconditioned: bool
    restart: int
    unit: Any
    """What the user's A was divided by. His solution is that of the problem here divided by it; the residuals are the
    same.
    """


class Kernel(NamedTuple):
    """The mathematics of a method."""

    start: Callable[[Problem, Array, Array], Any]
    """(problem, r, attempt) -> state, for A d = r from d = 0; ``attempt`` counts fruitless breakdowns."""
    step: Callable[[Problem, Any], Any]
    """(problem, state) -> state."""
    solution: Callable[[Problem, Any], Array]
    """(problem, state) -> d."""
    vectors: Callable[[int], int]
    """Vectors that a step touches, given ``restart``, which sizes the groups."""
    minimal: bool = False
    """Whether the residual falls in every step by construction."""
    least: Callable[[Any], Array] | None = None
    """state -> whether the residual has been the least there is, per column; None where the method does not know."""
    alone: bool = False
    """Whether the columns run one after the other on the CPU, however few the vectors are."""
    hold: Callable[[Array, Any, Any], Any] | None = None
    """(running, before, after) -> after, but with the solution of columns that are done as it was before.

    For methods whose vectors change places in a step: the loop then takes two steps a turn, after which they are back
    in theirs. XLA would copy them in every step. With M, which costs more than copies, it is one, quicker to compile.
    """


Watch = Callable[[Array, Array], None]
"""What the host hears of a step now and then: how many there were, and the largest relative residual."""


class Limits(NamedTuple):
    """The stopping rule; numbers that may be traced."""

    rtol: Any
    maxiter: Any
    atol: Any = 0.0


class _Columns(NamedTuple):
    """The right-hand sides on their way."""

    size: Array  # 2-norm
    target: Array
    limit: Array  # a residual past which nothing is left of the solution
    steps: Array
    before: Array  # smallest true residual of the runs so far
    attempt: Array
    least: Array  # whether a run has found the least residual there is
    outcome: Array  # of the last run; running before the first
    residual: Array  # true, absolute
    code: Array  # status; 0 while there is work to do
    history: Array | None  # (steps, ...)


class _Kept(NamedTuple):
    """What a run is known to have: as long as it goes on, the best so far."""

    d: Array
    residual: Array  # true if it was looked at
    looked: Array
    least: Array


class Result(NamedTuple):
    """The solution, and what became of each column: see :class:`tsgu_jax._program._report.Outcome`."""

    x: Array
    code: Array
    steps: Array
    residual: Array
    history: Array | None


def solve(
    kernel: Kernel,
    problem: Problem,
    magnitude: Apply,
    b: Array,
    x0: Array | None,
    limits: Limits,
    keep: bool,
    watch: Watch | None = None,
    whole: bool = False,
) -> Result:
    """Solve A X = B for B of shape (n,) or (n, k); ``whole`` keeps a block together, as a function expects it."""
    if b.ndim == 1:
        return _solve_group(kernel, problem, magnitude, b, x0, limits, keep, watch)
    n, k = b.shape
    bytes_per_row = b.dtype.itemsize * kernel.vectors(problem.restart)
    groups, width = (1, k) if whole else _grouping(n, k, bytes_per_row, kernel.alone)
    if width == 1:  # a single column runs as (n,), while a user's callable still sees a block
        problem = problem._replace(A=_on_block(problem.A), M=_on_block(problem.M))
        magnitude = _on_block(magnitude)
    given = jax.tree.map(lambda a: jnp.pad(a, ((0, 0), (0, groups * width - k))), (b, x0))

    def group(x: Array, start: Array) -> tuple[Array, Result]:
        part = jax.tree.map(lambda a: lax.dynamic_slice_in_dim(a, start, width, 1), given)
        if width == 1:
            part = jax.tree.map(lambda a: a[:, 0], part)
        result = _solve_group(kernel, problem, magnitude, part[0], part[1], limits, keep, watch)
        x = lax.dynamic_update_slice_in_dim(x, result.x.reshape(n, width), start, 1)
        return x, result._replace(x=jnp.zeros(()))

    def joined(a: Array) -> Array:
        """What was said of each group's columns, (groups, ..., width) or without the last, as (..., k)."""
        return jnp.moveaxis(a.reshape(groups, -1, width), 0, 1).reshape(-1, groups * width)[:, :k]

    if groups == 1:
        x, result = group(jnp.zeros_like(given[0]), jnp.int32(0))
    else:
        x, result = _mesh.scan(group, jnp.zeros_like(given[0]), width * jnp.arange(groups, dtype=jnp.int32))
    history = None if result.history is None else joined(result.history)
    return Result(x[:, :k], joined(result.code)[0], joined(result.steps)[0], joined(result.residual)[0], history)


def _grouping(n: int, k: int, bytes_per_row: int, alone: bool = False) -> tuple[int, int]:
    """Groups, and columns in each: all at once on an accelerator; on the CPU as many as stay in cache, up to eight."""
    k = max(k, 1)  # a column of padding where there is none
    most = k if jax.default_backend() != "cpu" else 1 if alone else min(8, max(1, _CACHE // (bytes_per_row * n)))
    groups = -(-k // most)
    return groups, -(-k // groups)


def _on_block(function: Apply) -> Apply:
    return lambda v: function(v[:, None])[:, 0]


def _solve_group(
    kernel: Kernel,
    problem: Problem,
    magnitude: Apply,
    b: Array,
    x0: Array | None,
    limits: Limits,
    keep: bool,
    watch: Watch | None,
) -> Result:
    eps = float(jnp.finfo(b.dtype).eps)
    finite = jnp.isfinite(b).all(axis=0)
    b = jnp.where(finite, b, 0)
    scale = power_of_two(b)
    b = b / scale
    size = norm(b)
    unit = jnp.asarray(problem.unit, size.dtype)
    x = jnp.zeros_like(b) if x0 is None else jnp.where(size > 0, times_ratio(x0, unit, scale), 0)
    target = jnp.maximum(limits.rtol * size, limits.atol / scale).astype(size.dtype)
    integers = jnp.zeros(size.shape, jnp.int32)
    history = jnp.zeros((HISTORY, *size.shape), size.dtype) if keep else None
    r = b if x0 is None else b - problem.A(x)
    residual = norm(r)
    limit = diverged(eps) * size * jnp.maximum(1, jnp.where(size > 0, residual / size, 1))  # a poor x0 is no divergence
    never = jnp.zeros(size.shape, bool)
    columns = _Columns(
        size, target, limit, integers, jnp.full_like(size, jnp.inf), integers, never, integers, residual, integers,
        history,
    )  # fmt: skip
    columns = _judge(columns, jnp.zeros_like(size), limits)

    def runs(carry: tuple[Array, Array, _Columns]) -> tuple[Array, Array, _Columns]:
        x, r, columns = carry
        r = jnp.where(columns.code == 0, r, 0)
        d, columns = _run(kernel, problem, magnitude, r, columns, limits, b.shape[0], watch)
        moved = x + d
        left = b - problem.A(moved)
        residual = norm(left)
        far = ~(residual <= columns.limit)
        # A run that ended worse than it began is undone; one that stopped for want of steps is kept all the same,
        # unless the method lowers the residual in every step: conjugate gradients may raise it while x improves.
        lost = far | ((residual > columns.before) & (kernel.minimal | (columns.outcome != SPENT)))
        lost &= ~(jnp.isnan(residual) & jnp.isfinite(moved).all(axis=0))  # which belongs to an A that is not finite
        x, r = jnp.where(lost, x, moved), jnp.where(lost, r, left)
        columns = columns._replace(
            outcome=jnp.where(far, DIVERGED, columns.outcome),
            residual=jnp.where(columns.code == 0, jnp.where(lost, columns.residual, residual), columns.residual),
        )
        rounding = _mesh.cond(
            jnp.any(columns.residual > columns.target),
            lambda x: ATTAINABLE * eps * norm(magnitude(x) + jnp.abs(b)),
            lambda _: jnp.zeros_like(size),
            x,
        )
        return x, r, _judge(columns, rounding, limits)

    x, _, columns = _mesh.while_loop(lambda carry: jnp.any(carry[2].code == 0), runs, (x, r, columns))
    sound = finite & jnp.isfinite(columns.residual)
    x = jnp.where(sound, times_ratio(x, scale, unit), jnp.nan)
    code = jnp.where(sound & ~jnp.isfinite(x).all(axis=0), CODE["overflow"], columns.code)
    relative = columns.residual / jnp.where(size > 0, size, 1)
    return Result(
        x,
        jnp.where(finite, code, CODE["non-finite"]),
        columns.steps,
        jnp.where(sound, relative, jnp.nan),
        None if columns.history is None else columns.history / jnp.where(size > 0, size, 1),
    )


def _judge(columns: _Columns, rounding: Array, limits: Limits) -> _Columns:
    """Take note of the true residuals between two runs; a column whose status stays 0 gets another run."""
    c = columns
    run = Run(
        met=c.residual <= c.target,
        at_rounding=(c.outcome != RUNNING) & (c.residual <= rounding),
        lost=rounding > LOST * c.size,
        infinite=~jnp.isfinite(c.residual),
        spent=c.steps >= limits.maxiter,
        fruitless=c.residual > GAIN * c.before,
        least=c.least,
        failed=(c.outcome == BROKEN) | (c.outcome == DIVERGED),
        retried=c.attempt > 0,
    )
    open_ = c.code == 0
    return c._replace(
        code=jnp.where(open_, after_run(first_status, run), c.code).astype(jnp.int32),
        attempt=jnp.where(open_ & run.fruitless & run.failed, 1, c.attempt).astype(jnp.int32),
        before=jnp.minimum(c.before, c.residual),
    )


def _run(
    kernel: Kernel,
    problem: Problem,
    magnitude: Apply,
    r: Array,
    columns: _Columns,
    limits: Limits,
    n: int,
    watch: Watch | None,
) -> tuple[Array, _Columns]:
    """Run the method on A d = r; d, as it was when each column was done, or the best kept, and the columns with what
    they have shown.
    """
    scale = power_of_two(r)
    r = r / scale
    state = kernel.start(problem, r, columns.attempt)
    seen = Seen.start(columns)
    see = partial(_see, columns=columns, scale=scale, maxiter=limits.maxiter, window=stagnation_window(n), watch=watch)
    rounding = ATTAINABLE * float(jnp.finfo(r.dtype).eps)

    def is_worth_keeping(state: Any, seen: Seen, kept: _Kept) -> Array:
        if kernel.minimal:  # the next step does not spoil it
            return jnp.zeros_like(kept.looked)
        return (seen.outcome == RUNNING) & (state.norm < WORTH * kept.residual)

    def until_one_pauses(state: Any, seen: Seen, kept: _Kept) -> tuple[Any, Seen]:
        def going(carry: tuple[Any, Seen]) -> Array:
            state, now = carry  # under vmap this is also asked of systems whose columns are all done
            pauses = (now.outcome != seen.outcome) | now.due | is_worth_keeping(state, now, kept)
            return jnp.any(now.outcome == RUNNING) & ~jnp.any(pauses)

        def step(carry: tuple[Any, Seen]) -> tuple[Any, Seen]:
            before, seen = carry
            state = kernel.step(problem, before)
            seen = see(state, seen)
            if kernel.hold is None or problem.preconditioned:
                return state, seen
            after = kernel.step(problem, state)
            return kernel.hold(seen.outcome == RUNNING, state, after), see(after, seen)

        stepped: tuple[Any, Seen] = _mesh.while_loop(going, step, (state, seen))
        return stepped

    def until_all_are_done(carry: tuple[Any, Seen, _Kept]) -> tuple[Any, Seen, _Kept]:
        state, before, kept = carry
        state, seen = until_one_pauses(state, before, kept)
        ended, worth = seen.outcome != before.outcome, is_worth_keeping(state, seen, kept)
        due = seen.due | (worth & kept.looked)
        d = kernel.solution(problem, state)
        sound = (ended & (seen.outcome == MET) & ~kept.looked) | (worth & ~due)
        if not kernel.minimal:
            sound |= ended & (seen.outcome == SPENT)
        doubtful = (ended & ~sound) | due
        residual, level = _mesh.cond(
            in_all(~jnp.any(doubtful)),
            lambda d: (state.norm, jnp.zeros_like(state.norm)),
            lambda d: (norm(r - problem.A(d)), rounding * norm(magnitude(d) + jnp.abs(r))),
            d,
        )
        better = doubtful & (residual < kept.residual)
        drifted = due & ~((residual <= DRIFT * state.norm) & (state.norm > level))
        kept = _Kept(
            jnp.where(sound | better, d, kept.d),
            jnp.where(better, residual, jnp.where(sound, state.norm, kept.residual)),
            kept.looked | due,
            kept.least if kernel.least is None else jnp.where(ended | drifted, kernel.least(state), kept.least),
        )
        return state, seen.after_a_look(due, drifted), kept

    kept = _Kept(jnp.zeros_like(r), norm(r), columns.code < 0, columns.least)
    _, seen, kept = _mesh.while_loop(
        lambda carry: jnp.any(carry[1].outcome == RUNNING), until_all_are_done, (state, seen, kept)
    )
    return kept.d * scale, seen.noted(columns)._replace(least=columns.least | kept.least)


def _see(
    state: State, seen: Seen, columns: _Columns, scale: Array, maxiter: Any, window: int, watch: Watch | None
) -> Seen:
    """Take note of a step."""
    norm = state.norm * scale
    if watch is not None:
        left = jnp.where(seen.outcome == RUNNING, norm / columns.size, 0).max(initial=0)
        steps = seen.steps + 1
        _mesh.cond(steps % EVERY == 0, watch, lambda *_: None, columns.steps.max(initial=0) + steps, left)

    def judged(steps: Array, idle: Array) -> Array:
        return first_of(
            [
                norm <= columns.target,
                ~(norm < columns.limit),
                state.broken,
                columns.steps + steps >= maxiter,
                idle >= window,
            ],
            [MET, DIVERGED, BROKEN, SPENT, STALLED],
            RUNNING,
        )

    return seen.after(norm, columns.steps, judged)
