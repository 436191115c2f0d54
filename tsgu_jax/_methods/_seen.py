"""What a run of a method has shown: the part of the loops that counts steps, keeps a history and sees stagnation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from tsgu._core.methods._options import LOOK
from tsgu._core.report._status import CODE

HISTORY = 10_000
"""Steps whose residual is kept where somebody records."""

RUNNING, MET, DIVERGED, BROKEN, ILL, SPENT, STALLED, DRIFTED = range(8)
"""How the run of a column ended; ill-conditioned is for least squares, and drifted for the other methods."""


def first_of(conditions: Sequence[Array], choices: Sequence[Any], otherwise: Any) -> Array:
    """The choice of the first condition that holds, as ``jnp.select``, but in one kernel: a step is made of few."""
    picked = jnp.asarray(otherwise)
    for condition, choice in zip(reversed(conditions), reversed(choices), strict=True):
        picked = jnp.where(condition, choice, picked)
    return picked


def first_status(conditions: Sequence[Array], choices: Sequence[Any], otherwise: Any) -> Array:
    """The same for statuses, as their numbers: a ``pick`` of :mod:`tsgu._core.methods._judgement`."""
    codes = [CODE[choice] if isinstance(choice, str) else choice for choice in (*choices, otherwise)]
    return first_of(conditions, codes[:-1], codes[-1])


class Seen(NamedTuple):
    """What the current run has shown."""

    steps: Array  # of the run
    best: Array
    best_step: Array
    look: Array  # steps without progress after which the run is looked at
    outcome: Array
    taken: Array  # steps when the column was done
    history: Array | None

    @classmethod
    def start(cls, columns: Any) -> Seen:
        """Of the columns of a solve nothing yet; those whose status is known do not run."""
        zeros = jnp.zeros_like(columns.steps)
        outcome = jnp.where(columns.code == 0, RUNNING, MET).astype(jnp.int32)
        best = jnp.full_like(columns.size, jnp.inf)
        return cls(jnp.int32(0), best, zeros, zeros + LOOK, outcome, zeros, columns.history)

    @property
    def due(self) -> Array:
        """Whether a run goes on and is to be looked at, per column."""
        return (self.outcome == RUNNING) & (self.steps - self.best_step >= self.look)

    def after_a_look(self, due: Array, drifted: Array) -> Seen:
        """The same where those that were due have been looked at."""
        outcome = jnp.where(drifted, DRIFTED, self.outcome).astype(self.outcome.dtype)
        return self._replace(look=jnp.where(due, 2 * self.look, self.look), outcome=outcome)

    def noted(self, columns: Any) -> Any:
        """The columns of a solve with what the run has shown."""
        return columns._replace(
            steps=columns.steps + self.taken,
            outcome=jnp.where(columns.code == 0, self.outcome, columns.outcome),
            history=self.history,
        )

    def after(self, measure: Array, before: Array, judged: Callable[[Array, Array], Array]) -> Seen:
        """The same after one more step, which left this measure of the residual.

        ``before`` are the steps of earlier runs, and ``judged(steps, idle)`` how the run ends, if it does; ``idle``
        counts the steps since the measure last fell.
        """
        steps = self.steps + 1
        improved = measure < 0.99 * self.best
        best_step = jnp.where(improved, steps, self.best_step)
        outcome = judged(steps, steps - best_step)
        running = self.outcome == RUNNING
        history = self.history
        if history is not None:
            place = jnp.where(running, before + steps - 1, HISTORY)
            index = (place, jnp.arange(measure.size)) if measure.ndim else (place,)
            history = history.at[index].set(measure, mode="drop")
        return Seen(
            steps,
            jnp.where(improved, measure, self.best),
            best_step,
            jnp.where(improved, jnp.clip(steps // 2, 2, LOOK), self.look),
            jnp.where(running, outcome, self.outcome).astype(self.outcome.dtype),
            jnp.where(running, steps, self.taken),
            history,
        )
