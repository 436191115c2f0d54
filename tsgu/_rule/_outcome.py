"""What became of a solve: a value beside X, and X as the user wants it where it failed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from tsgu._core.report import _log
from tsgu._core.report._failure import policy_of
from tsgu._core.report._status import CODE, SOUND, Status
from tsgu._matrix import _checks


class Info(NamedTuple):
    """What became of a solve, for each right-hand side, as tensors on the device of B that have no gradient.

    ``x, info = tsgu.sparse_generic_solve(..., return_info=True)`` gives it of the forward solve. The shape of its
    tensors is that of B without its rows: () or (k,), and (batch,) or (batch, k) for a batch.

    Attributes
    ----------
    status : Tensor of int32
        A number of :class:`Status`.
    iterations : Tensor of int32
        Steps taken; -1 where a method does not count any.
    residual : Tensor, of the real dtype of B
        True relative residual, as in :class:`SolveInfo`; NaN where it was not measured.

    Examples
    --------
    >>> import torch, tsgu
    >>> A = torch.tensor([[4.0, 1.0], [1.0, 3.0]]).to_sparse()
    >>> x, info = tsgu.linear_cg(A, torch.ones(2, 3), return_info=True)
    >>> tsgu.Status(int(info.status[0])).words, info.iterations.tolist(), info.sound.tolist()
    ('converged', [2, 2, 2], [True, True, True])
    """

    status: Tensor
    iterations: Tensor
    residual: Tensor

    @property
    def sound(self) -> Tensor:
        """Whether each column is solved, to its target or to rounding level, or was not to be verified."""
        return self.status <= Status.NOT_VERIFIED


@dataclass(frozen=True)
class Wanted:
    """What the user wants of a solve beside X."""

    policy: str = "warn"
    """What is done where it fails."""
    told: bool = False
    """Whether what became of it is returned."""


def wanted(on_failure: Any, return_info: Any) -> Wanted:
    """What the user wants, checked."""
    _checks.check_flag("return_info", return_info)
    return Wanted(policy_of(on_failure), return_info)


def with_info(found: Any, vector: bool) -> Any:
    """What the rule returns, x or (x, told), as the user gets it: x or (x, info), for vectors or blocks of columns."""
    if isinstance(found, Tensor):
        return found
    x, told = found
    return x, info_of(told.squeeze(-3), x.dtype, vector)


def info_of(told: Tensor, dtype: torch.dtype, vector: bool) -> Info:
    """From status, steps and residual, (..., 3, k)."""
    status, steps, residual = (told.squeeze(-1) if vector else told).movedim(-1 if vector else -2, 0).unbind(0)
    return Info(status.to(torch.int32), steps.to(torch.int32), residual.to(dtype.to_real()))


def settled(
    wanted: Wanted, members: int, primal: bool, solve: Callable[[], tuple[Tensor, ...]]
) -> tuple[tuple[Tensor, ...], Tensor | None]:
    """What ``solve()`` returns, each (members * n, ...), as the user wants it where it failed; and, of the user's own
    solve and if wanted, what became of it: status, steps and residual, (members, 3, k), with k = 1 for vectors.

    Reports made meanwhile are handed on at its end, those of a batch together.
    """
    tells = wanted.told and primal
    with _log.gathered(wanted.policy, every=tells or wanted.policy == "nan") as reports:
        solved = solve()
    if wanted.policy == "nan":
        solved = tuple(_masked(x, members, reports) for x in solved)
    return solved, _told(reports, members, solved[0]) if tells else None


def nothing_to_solve(wanted: Wanted, members: int, primal: bool, b: Tensor) -> Tensor | None:
    """What is told of a system without unknowns or right-hand sides."""
    if not (wanted.told and primal):
        return None
    columns = 1 if b.dim() == 1 else b.shape[1]
    return torch.tensor([float(Status.CONVERGED), 0.0, 0.0], dtype=torch.float64)[:, None].repeat(members, 1, columns)


def _masked(x: Tensor, members: int, reports: Sequence[_log.Gathered]) -> Tensor:
    """x with NaN in the columns that failed, member by member."""
    failed = np.zeros((members, 1 if x.dim() == 1 else x.shape[1]), bool)
    for report, member in reports:
        failed[member if members > 1 else 0] |= [column.status not in SOUND for column in report.info.columns]
    if not failed.any():
        return x
    mask = torch.from_numpy(failed).to(x.device)[:, None, :]
    by_member = x.reshape(members, -1, failed.shape[1])
    return by_member.masked_fill(mask, math.nan).reshape(x.shape)


def _told(reports: Sequence[_log.Gathered], members: int, x: Tensor) -> Tensor:
    told = np.empty((members, 3, 1 if x.dim() == 1 else x.shape[1]))
    for report, member in reports:
        columns, member = report.info.columns, member if members > 1 else 0
        told[member, 0] = [CODE[column.status] for column in columns]
        told[member, 1] = [-1 if column.iterations is None else column.iterations for column in columns]
        told[member, 2] = [math.nan if column.residual is None else column.residual for column in columns]
    return torch.from_numpy(told).to(x.device)
