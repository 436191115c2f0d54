"""What became of a solve, carried out of a compiled program: the arrays, and how the host hears of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.tree_util import register_dataclass

from tsgu._core.report import _log, _matrix_words, _place, _status
from tsgu._core.report._log import recording
from tsgu._core.report._status import ADVICE, SOUND, ColumnInfo
from tsgu_jax._program import _host
from tsgu_jax._program._conditions import in_all
from tsgu_jax._program._internals import is_traced

STATUSES = ("", *ADVICE)
"""Statuses as numbers; 0 is a column that is still being worked on."""

CODE = {status: code for code, status in enumerate(STATUSES)}

LOSES_CONSTANTS, NOT_HERMITIAN = 1, 2
"""Faults of a matrix that explain why a method failed on it; 0 where none is known."""

_SOUND = np.array([not status or status in SOUND for status in STATUSES])


@partial(register_dataclass, data_fields=["place"], meta_fields=["names"])
@dataclass(frozen=True)
class Choice:
    """Which of several methods it was that solved; for each its name and a note for the log."""

    place: Array | int  # ()
    names: tuple[tuple[str, str], ...]


@partial(register_dataclass, data_fields=["place"], meta_fields=["size"])
@dataclass(frozen=True)
class Member:
    """Which member of a batch it was."""

    place: Array | int  # ()
    size: int


class Outcome(NamedTuple):
    """One solve; the shape of the fields is that of the columns, (k,) or (). What was not measured is None."""

    code: Array  # index in STATUSES
    steps: Array | None  # below zero where they were not counted
    residual: Array | None  # true relative residual
    history: Array | None  # (steps kept, ...)
    target: Array | float | None  # what the residual should have reached, ()
    fault: Array | None  # what is wrong with A, as one of the numbers above, (); None where nobody looked
    choice: Choice | None = None  # where a method chose another one
    member: Member | None = None  # of a batch that is one SparseMatrix


@dataclass(frozen=True)
class Label:
    """Which solve; ``keep`` tells whether somebody recorded when it was compiled."""

    method: str
    transposed: bool
    keep: bool


_places = _place.Places()
_number: ContextVar[Any] = ContextVar("number", default=None)


def here() -> np.int32:
    """The line that asked for a solve, as a number, which a compiled program can be given."""
    return np.int32(_places.number(_place.caller()))


@contextmanager
def called_from(number: Any) -> Iterator[None]:
    """Let what is traced inside the block report at this place; the number may be traced."""
    token = _number.set(number)
    try:
        yield
    finally:
        _number.reset(token)


def emit(label: Label, outcome: Outcome) -> None:
    """Report from inside a traced solve; where all is sound and nobody records, the host is not called."""
    number = _number.get()
    number = here() if number is None else number
    tell = partial(_host.inform, partial(_hear, label))
    if label.keep:
        tell(outcome, number)
        return
    sound = jnp.all(jnp.asarray(_SOUND)[outcome.code])
    lax.cond(in_all(sound), lambda *_: None, lambda *given: tell(*given), outcome, number)


def say(method: str, transposed: bool, outcome: Outcome) -> None:
    """Report a solve that is traced or concrete."""
    label = Label(method, transposed, recording())
    if is_traced(outcome):
        emit(label, outcome)
    else:
        tell(label, jax.tree.map(np.asarray, outcome), None)


def _hear(label: Label, outcome: Outcome, number: Any) -> None:
    """On the host, once for each member of a batch, of which one is not sound, or all are recorded."""
    code: Any = outcome.code
    if code.size and not code.any():  # a solve that was not asked for, but is run for the other members of a batch
        return
    if label.keep or not _SOUND[code].all():
        tell(label, outcome, None, _places[int(number)])


def tell(label: Label, outcome: Outcome, seconds: float | None, place: _place.Place | None = None) -> None:
    """Log and warn, given NumPy arrays, at the caller's line if no other place is given.

    This may be a callback, where JAX must not be called.
    """
    code = np.atleast_1d(np.asarray(outcome.code))
    steps, residual = _per_column(outcome.steps, code.size), _per_column(outcome.residual, code.size)
    histories: list[Any] = [None] * code.size
    if outcome.history is not None:
        history = np.asarray(outcome.history).reshape(-1, code.size)
        histories = [history[: max(steps[column], 0), column] for column in range(code.size)]
    columns = [
        ColumnInfo(STATUSES[c], None if s is None or s < 0 else int(s), None if r is None else float(r), h)
        for c, s, r, h in zip(code, steps, residual, histories, strict=True)
    ]
    method, note = (label.method, "") if outcome.choice is None else outcome.choice.names[int(outcome.choice.place)]
    info = replace(_status.summarize(method, label.transposed, columns, seconds), note=note)
    advice = ""
    if outcome.fault == NOT_HERMITIAN:
        advice = _matrix_words.not_hermitian(label.method)
    elif outcome.fault == LOSES_CONSTANTS:
        advice = _matrix_words.constants_are_lost()
    target = None if outcome.target is None else float(outcome.target)
    with _log.of_member(None if outcome.member is None else (int(outcome.member.place), outcome.member.size)):
        _log.report(info, target, advice, place)


def _per_column(values: Any, size: int) -> list[Any]:
    return [None] * size if values is None else np.atleast_1d(np.asarray(values)).tolist()


if jax.effects_barrier not in _log.before_closing:
    _log.before_closing.append(jax.effects_barrier)
