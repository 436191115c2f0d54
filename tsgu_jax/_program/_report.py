"""How the host hears what became of a solve, from inside a compiled program or beside one."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.tree_util import register_dataclass

from tsgu._core.methods import _diagnosis
from tsgu._core.report import _log, _matrix_words, _place, _status
from tsgu._core.report._status import ColumnInfo, Status
from tsgu_jax._program import _host, _mesh
from tsgu_jax._program._conditions import in_all
from tsgu_jax._program._internals import is_traced
from tsgu_jax._program._outcome import STATUSES, Outcome


@partial(register_dataclass, data_fields=["values", "row", "col"], meta_fields=["shape", "hermitian"])
@dataclass(frozen=True)
class Evidence:
    """The matrix, for the host to look for what explains a failure; ``hermitian`` where the method needs it so."""

    values: Array
    row: Array
    col: Array
    shape: tuple[int, int]
    hermitian: bool


@dataclass(frozen=True)
class Label:
    """Which solve; whether somebody recorded when it was compiled, and whether a failure is to be warned of."""

    method: str
    transposed: bool
    keep: bool
    warns: bool = True


_places = _place.Places()
_number: ContextVar[Any] = ContextVar("number", default=None)


def here() -> np.uint32:
    """The line that asked for a solve, as a number, which a compiled program can be given."""
    return np.uint32(_places.number(_place.caller()))


@contextmanager
def called_from(number: Any) -> Iterator[None]:
    """Let what is traced inside the block report at this place; the number may be traced."""
    token = _number.set(number)
    try:
        yield
    finally:
        _number.reset(token)


def settled(label: Label, policy: str, x: Array, outcome: Outcome, evidence: Evidence | None = None) -> Array:
    """x, traced or concrete, once what became of it is reported, and what failed is as the user wants it."""
    if is_traced(outcome):
        x = _host.after(emit(label, outcome, evidence), x)
    else:
        tell(label, outcome, evidence)
    return masked(policy, x, outcome)


def masked(policy: str, x: Array, outcome: Outcome) -> Array:
    """x, where the policy is "nan" with NaN in the columns that failed; those of x are its last dimensions."""
    return jnp.where(outcome.sound, x, jnp.nan) if policy == "nan" else x


def emit(label: Label, outcome: Outcome, evidence: Evidence | None = None) -> Array:
    """Report from inside a traced solve, after which a zero is to be had; where all is sound and nobody records, the
    host is not called.
    """
    number = _number.get()
    fixed, arrays = _message(label, outcome, evidence, here() if number is None else number)
    tell = partial(_host.inform, partial(_hear, *fixed), effect=label.keep)
    if label.keep:  # the record is read after ``jax.effects_barrier``
        return tell(*arrays)
    if not label.warns:
        return jnp.int32(0)
    sound = in_all(jnp.all(outcome.sound))
    zero: Array = _mesh.cond(sound, lambda *_: jnp.int32(0), lambda *given: tell(*given), *arrays)
    return zero


def tell(
    label: Label, outcome: Outcome, evidence: Evidence | None, lead: int = 0, seconds: float | None = None
) -> None:
    """Report a concrete solve at the caller's line; or a batch, where what a member has of its own has ``lead`` more
    dimensions.
    """
    fixed, arrays = _message(label, outcome, evidence, here())
    same = "number", "row", "col"
    given = (
        np.asarray(array)[(None,) * lead] if name in same else np.asarray(array)
        for name, array in zip(fixed[_NAMES], arrays, strict=True)
    )
    _hear(*fixed, lead, *given, seconds=seconds)


_NAMES = 4
"""Where the names of the arrays stand in what is fixed of a message."""


def _message(label: Label, outcome: Outcome, evidence: Evidence | None, number: Any) -> tuple[Any, Any]:
    """What is said of a solve: what is known when it is traced, and arrays."""
    fields = outcome._asdict()
    choice, member = fields.pop("choice"), fields.pop("member")
    fields |= {"number": number, "choice": choice and choice.place, "member": member and member.place}
    if evidence is not None:
        fields |= {"values": evidence.values, "row": evidence.row, "col": evidence.col}
    fields = {name: array for name, array in fields.items() if array is not None}
    about = None if evidence is None else (evidence.shape, evidence.hermitian)
    names, size = choice and choice.names, member and member.size
    fixed = label.method, label.transposed, label.keep, label.warns, tuple(fields), names, size, about
    return fixed, tuple(fields.values())


def _hear(
    method: str,
    transposed: bool,
    keep: bool,
    warns: bool,
    names: tuple[str, ...],
    choices: tuple[tuple[str, str], ...] | None,
    size: int | None,
    about: tuple[tuple[int, int], bool] | None,
    lead: int,
    *arrays: Any,
    seconds: float | None = None,
) -> None:
    """On the host, once for a batch: hand each member to the logs, and warn of those that are not sound.

    This may be called by a compiled program, where JAX must not be called. A member that was not asked for, but is run
    for others, has the code 0.
    """
    shape = np.broadcast_shapes(*(array.shape[:lead] for array in arrays))
    reports: list[_log.Report] = []
    members: list[int] = []
    for flat, index in enumerate(np.ndindex(shape)):
        place = [tuple(0 if s == 1 else i for i, s in zip(index, array.shape, strict=False)) for array in arrays]
        one = {name: array[at] for name, array, at in zip(names, arrays, place, strict=True)}
        if one["code"].size and not one["code"].any():
            continue
        if not keep and np.all(one["code"] <= Status.NOT_VERIFIED):
            continue
        name, note = (method, "") if choices is None else choices[int(one["choice"])]
        info = replace(_status.summarize(name, transposed, _columns(one), seconds), note=note)
        target = float(one["target"]) if "target" in one else None
        reports.append(_log.Report(info, target, partial(_advice, method, info.status, about, one)))
        members.append(int(one["member"]) if size is not None and math.prod(shape) == size else flat)
    count = size if not shape and size is not None else math.prod(shape) if shape else None
    number = arrays[names.index("number")].flat[0]
    _log.report_all(reports, None if count is None else (members, count), _places.find(int(number)), warns)


def _columns(one: dict[str, Any]) -> list[ColumnInfo]:
    code = np.atleast_1d(one["code"])
    steps, residual = (_per_column(one.get(name), code.size) for name in ("steps", "residual"))
    histories: list[Any] = [None] * code.size
    if "history" in one:
        history = one["history"].reshape(-1, code.size).copy()  # what a program hands over is gone after the call
        histories = [history[: max(steps[column], 0), column] for column in range(code.size)]
    return [
        ColumnInfo(STATUSES[c], None if s is None or s < 0 else int(s), None if r is None else float(r), h)
        for c, s, r, h in zip(code, steps, residual, histories, strict=True)
    ]


def _per_column(values: Any, size: int) -> list[Any]:
    return [None] * size if values is None else np.atleast_1d(values).tolist()


def _advice(method: str, status: str, about: tuple[tuple[int, int], bool] | None, one: dict[str, Any]) -> str:
    """In place of the usual one, where the matrix shows why the method failed."""
    if about is None or status == "prepared for another matrix":
        return ""
    shape, hermitian = about
    matrix = _diagnosis.stored(one["values"], one["row"], one["col"], shape)
    if hermitian and not _diagnosis.is_hermitian(matrix):
        return _matrix_words.not_hermitian(method)
    return _matrix_words.constants_are_lost() if _diagnosis.loses_constants(matrix) else ""


if jax.effects_barrier not in _log.before_closing:
    _log.before_closing.append(jax.effects_barrier)
