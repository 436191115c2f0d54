"""The programs of a solve: with the rule, and for concrete arrays without it."""

from __future__ import annotations

import time
from typing import Any, Protocol, Self

import jax
import jax.numpy as jnp
from jax import Array

from tsgu._core.report import _function_words
from tsgu._core.report._log import recording
from tsgu._core.report._status import CODE
from tsgu_jax._program import _internals, _mesh, _report
from tsgu_jax._program._outcome import Info, Member, Outcome
from tsgu_jax._program._report import Evidence, Label


class Solvable(Protocol):
    """What can be solved with and without the rule: a linear system or a least-squares problem, a pytree."""

    @property
    def name(self) -> str: ...

    @property
    def transposed(self) -> bool:
        """Whether it is the transpose that is solved with."""

    @property
    def members(self) -> int | None:
        """How many there are in a batch that is one system; the outcome then has a leading dimension."""

    def of(self, member: Member) -> Self:
        """The same for one member of a batch."""

    def differentiated(self, values: Any, B: Array, x0: Array | None) -> tuple[Array, Info]:
        """X by the rule, and what became of it."""

    def primal(self, values: Any, B: Array, x0: Array | None) -> tuple[Array, Outcome]:
        """X alone, for concrete arrays: what became of it comes back as arrays too."""

    def evidence(self, values: Any) -> Evidence | None:
        """The matrix, where it may show why a method fails."""

    @property
    def policy(self) -> str:
        """What is done where a solve fails."""


def run(system: Solvable, values: Array | None, B: Array, x0: Array | None, own: bool) -> tuple[Array, Info]:
    """Apply the rule; ``own`` where the package's own methods do it all, so that it may compile the whole."""
    found = _mesh.with_automatic_axes(
        lambda system, values, x0, B: run(system, values, B, x0, own), system, values, x0, B
    )
    if found is not None:
        return tuple(found)
    if not _internals.is_traced(system, values, B, x0):
        began = time.perf_counter()
        primal = _compiled_primal if own else _primal
        x, outcome = primal(system, values, B, x0)
        if not _internals.is_traced(x, outcome):
            _tell(system, values, outcome, began)
            return x, outcome.info(x.dtype)
        # Everything given is concrete, but a callable closes over something that is not, or this is the trace of a
        # function for which these are constants.
    rule = _compiled_rule if own else _rule
    x, info = rule(system, values, B, x0, _report.here())
    return x, info


def _rule(system: Solvable, values: Array | None, B: Array, x0: Array | None, place: Any) -> Any:
    with _report.called_from(place):
        system, values, B, x0 = _mesh.alike(system, values, B, x0)
        return _over_batch(lambda system, *given: system.differentiated(*given), system, values, B, x0)


def _primal(system: Solvable, values: Array | None, B: Array, x0: Array | None) -> Any:
    system, values, B, x0 = _mesh.alike(system, values, B, x0)
    return _over_batch(lambda system, *given: system.primal(*given), system, values, B, x0)


def _over_batch(solve: Any, system: Solvable, values: Array | None, B: Array, x0: Array | None) -> Any:
    if values is None or values.ndim == 1:
        return solve(system, values, B, x0)
    size = values.shape[0]

    def one(place: Array, *given: Any) -> Any:
        return solve(system.of(Member(place, size)), *given)

    return jax.vmap(one, in_axes=(0, 0, 0, None if x0 is None else 0))(jnp.arange(size, dtype=jnp.int32), values, B, x0)


_compiled_rule = jax.jit(_rule)
_compiled_primal = jax.jit(_primal)
"""Compiled once for each structure: the arrays of a system, its indices too, are arguments."""


def _tell(system: Solvable, values: Array | None, outcome: Outcome, began: float) -> None:
    outcome = jax.device_get(outcome)
    for status, words in (
        ("not linear", _function_words.not_linear),
        ("non-finite matrix", _function_words.non_finite_function),
    ):
        if (outcome.code == CODE[status]).any():
            raise ValueError(words())
    label = Label(system.name, system.transposed, recording(), system.policy == "warn")
    lead = int((values is not None and values.ndim == 2) or system.members is not None)
    _report.tell(label, outcome, system.evidence(values), lead, time.perf_counter() - began)
