"""Who hears of a solve: logs that are open, and a warning if something is wrong."""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple, overload

import numpy as np

from tsgu._core.report import _place
from tsgu._core.report._failure import on_failure, policy_of
from tsgu._core.report._place import Place
from tsgu._core.report._progress import Line
from tsgu._core.report._status import SOUND, ConvergenceWarning, SolveInfo, describe, members_in_words

_LEGEND = 8
"""Lines that a legend may have beside the curves."""


class Report(NamedTuple):
    """The outcome of a solve, what its residual should have reached, and advice in place of the usual one.

    The advice may be a function, called where it is wanted.
    """

    info: SolveInfo
    target: float | None
    advice: str | Callable[[], str] = ""


class Log(Sequence[SolveInfo]):
    """The solves made inside ``with record() as log``, in the order in which they ended.

    A sequence of :class:`SolveInfo`; printing it, or a slice of it, shows a table, with a note below it where
    :data:`auto` has chosen a method.

    Examples
    --------
    >>> import torch, tsgu
    >>> A = torch.tensor([[4.0, 1.0], [1.0, 3.0]]).to_sparse()
    >>> with tsgu.record() as log:
    ...     x = tsgu.linear_cg(A, torch.ones(2))
    >>> print(log)
    method     system  status     iterations  residual  seconds
    linear_cg  A       converged  2           ...
    """

    def __init__(self, infos: Iterable[SolveInfo] = ()) -> None:
        self._infos = list(infos)

    @overload
    def __getitem__(self, index: int) -> SolveInfo: ...
    @overload
    def __getitem__(self, index: slice) -> "Log": ...
    def __getitem__(self, index: int | slice) -> "SolveInfo | Log":
        return Log(self._infos[index]) if isinstance(index, slice) else self._infos[index]

    def __len__(self) -> int:
        return len(self._infos)

    def __repr__(self) -> str:
        head = ("method", "system", "status", "iterations", "residual", "seconds")
        rows = [head] + [
            (
                info.method,
                "A^T" if info.transposed else "A",
                info.status,
                _or_dash(info.iterations, "d"),
                _or_dash(info.residual, ".1e"),
                _or_dash(info.seconds, ".3f"),
            )
            for info in self._infos
        ]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join([*lines, *dict.fromkeys(info.note for info in self._infos if info.note)])

    def plot(self, ax: Any = None) -> Any:
        """Draw the residual history of each solve.

        The legend has a line for each of a few solves. Of many, those of the same method, system and status share a
        colour and a line, which says how many they are.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw; a new figure if None.

        Returns
        -------
        matplotlib.axes.Axes

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        own = ax is None
        if own:
            try:
                from matplotlib import pyplot
            except ImportError as error:
                raise ImportError('log.plot() needs matplotlib: pip install "tsgu[plot]"') from error
            ax = pyplot.subplots(figsize=(6.4, 4.0), layout="constrained")[1]
        curves = [
            (number, info, info.history)
            for number, info in enumerate(self._infos)
            if info.history is not None and info.history.size
        ]
        few = len(curves) <= _LEGEND
        groups: dict[str, list[Any]] = {}
        for number, info, history in curves:
            kind = f"{info.method}, {'adjoint' if info.transposed else 'forward'}, {info.status}"
            name = f"{number}: {kind}" if few else kind
            group = groups.setdefault(name, [])
            style = {"color": group[0].get_color()} if group else {}
            style |= {"label": name, "marker": "o" if history.size == 1 else "", "alpha": 1.0 if few else 0.5}
            group += ax.plot(np.arange(1, history.size + 1), history, **style)
        ax.set_xlabel("step")
        ax.set_ylabel("relative residual")
        if groups:
            shown = list(groups.items())[:_LEGEND]
            names = [name if len(group) == 1 else f"{name}, {len(group)} solves" for name, group in shown]
            rest = len(curves) - sum(len(group) for _, group in shown)
            title = f"and {rest} more solves" if rest else None
            above = {"loc": "lower left", "bbox_to_anchor": (0, 1), "frameon": False} if own else {}
            if own:
                ax.figure.set_figheight(3.8 + 0.2 * len(shown))
            ax.legend([group[0] for _, group in shown], names, title=title, fontsize="small", **above)
        if any(np.any(line.get_ydata() > 0) for line in ax.lines):  # a residual may vanish in the first step
            ax.set_yscale("log")
        return ax


def _or_dash(value: Any, spec: str) -> str:
    return "-" if value is None else format(value, spec)


_logs: list[Log] = []  # a process-wide list: backward passes and callbacks run in threads of the frameworks' own
_lock = threading.Lock()
_lines: list[Line] = []

before_closing: list[Callable[[], Any]] = []
"""Called at the end of each :func:`record` block: a framework that reports late waits here for what is under way."""


@contextmanager
def record(progress: bool = False) -> Iterator[Log]:
    """Collect a :class:`SolveInfo` for every solve inside the block, adjoint ones included.

    Solves made by other threads during the block are collected too, since a backward pass may run in one.

    Parameters
    ----------
    progress : bool, optional
        Show a line on stderr, by tqdm where it is installed, for an iterative solve of a square system that takes
        over a second: its steps so far, its residual and its target.

    Yields
    ------
    Log
        A sequence of :class:`SolveInfo`, with ``plot()``; printing it shows a table.

    Examples
    --------
    >>> import torch, tsgu
    >>> A = torch.tensor([[4.0, 1.0], [1.0, 3.0]]).to_sparse().requires_grad_()
    >>> with tsgu.record() as log:
    ...     tsgu.sparse_generic_solve(A, torch.ones(2), solve=tsgu.linear_cg).sum().backward()
    >>> [(info.transposed, info.status) for info in log]
    [(False, 'converged'), (True, 'converged')]
    """
    log = Log()
    line = [Line()] if progress else []
    with _lock:
        _logs.append(log)
        _lines.extend(line)
    try:
        yield log
        for wait in before_closing:
            wait()
    finally:
        with _lock:
            _logs[:] = [other for other in _logs if other is not log]
            _lines[:] = [other for other in _lines if other not in line]
        for shown in line:
            shown.end()


def recording() -> bool:
    """Whether anybody wants residual histories."""
    return bool(_logs)


_aside: ContextVar[list[Report] | None] = ContextVar("aside", default=None)


class Gathered(NamedTuple):
    """A report, and which member of a batch it is of; 0 where there is none."""

    report: Report
    member: int


class _Gathering(NamedTuple):
    reports: list[Gathered]
    size: list[int]
    every: bool


_gathering: ContextVar[_Gathering | None] = ContextVar("gathering", default=None)


def listening() -> bool:
    """Whether anybody hears of a solve that went well."""
    gathering = _gathering.get()
    return bool(_logs or _lines) or _aside.get() is not None or (gathering is not None and gathering.every)


def watched() -> Line | None:
    """The line that shows how a solve goes on, if somebody wants one."""
    return _lines[-1] if _lines else None


@contextmanager
def set_aside() -> Iterator[list[Report]]:
    """Collect the reports of solves made inside the block, instead of making them: for whoever may solve again."""
    reports: list[Report] = []
    token = _aside.set(reports)
    try:
        yield reports
    finally:
        _aside.reset(token)


@contextmanager
def gathered(policy: str, every: bool) -> Iterator[list[Gathered]]:
    """Collect the reports of the solves of one system or batch, and make them together at the end of the block.

    Inside, ``policy`` is what is done where a solve fails; with ``every`` those that went well are reported too.
    """
    gathering = _Gathering([], [], every)
    token = _gathering.set(gathering)
    try:
        with on_failure(policy):
            yield gathering.reports
    finally:
        _gathering.reset(token)
    members = [member for _, member in gathering.reports], max(gathering.size, default=0)
    reports = [report for report, _ in gathering.reports]
    report_all(reports, members if members[1] else None, None, policy == "warn")


_member: ContextVar[tuple[int, int] | None] = ContextVar("member", default=None)


@contextmanager
def of_member(member: tuple[int, int] | None) -> Iterator[None]:
    """Name this member of a batch, its number and how many there are, in what is reported inside; None for none."""
    token = _member.set(member)
    try:
        yield
    finally:
        _member.reset(token)


def member_of(inner: tuple[int, int] | None, index: int, count: int) -> tuple[int, int]:
    """A member of a batch whose members may be batches, numbered through; those are unfolded first, by their index."""
    place, size = inner or (0, 1)
    return index * size + place, count * size


def goes_on() -> bool:
    """Whether a failure is no error: of a member of a batch, and where the user wants to have it otherwise."""
    return _member.get() is not None or policy_of(None) != "warn"


def report(
    info: SolveInfo, target: float | None, advice: str | Callable[[], str] = "", place: Place | None = None
) -> None:
    """Hand the outcome of a solve to the logs, and warn of it, at ``place``, if the outcome is not sound."""
    member = _member.get()
    report_all([Report(info, target, advice)], None if member is None else ([member[0]], member[1]), place)


def report_all(
    reports: Sequence[Report], members: tuple[Sequence[int], int] | None, place: Place | None, warns: bool = True
) -> None:
    """Hand these solves to the logs, and if it ``warns``, do so at ``place`` for those that are not sound, once for a
    status.

    ``members`` tells which they are of a batch, and how many that has.
    """
    aside, gathering = _aside.get(), _gathering.get()
    if aside is not None:
        aside.extend(reports)
        return
    if gathering is not None:
        gathering.reports.extend(map(Gathered, reports, [0] * len(reports) if members is None else members[0]))
        gathering.size.extend([] if members is None else [members[1]])
        return
    failed: dict[str, list[int]] = {}
    for index, found in enumerate(reports):
        enter(found.info)
        if warns and found.info.status not in SOUND:
            failed.setdefault(found.info.status, []).append(index)
    for indices in failed.values():
        worst = max((reports[index] for index in indices), key=lambda found: found.info.residual or 0.0)
        advice = worst.advice() if callable(worst.advice) else worst.advice
        words = "" if members is None else members_in_words([members[0][index] for index in indices], members[1])
        _place.warn(ConvergenceWarning(describe(worst.info, worst.target, advice, words), worst.info), place)


def enter(info: SolveInfo) -> None:
    """Hand the outcome of a solve to the logs alone."""
    with _lock:
        for log in _logs:
            log._infos.append(info)
        line = _lines[-1] if _lines else None
    if line is not None:
        line.end()
