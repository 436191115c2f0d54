"""Methods that were given arguments by ``functools.partial``."""

import functools
from collections.abc import Mapping
from typing import Any

from tsgu._core.report import _solver_words


def unwrapped(
    kind: type, solve: Any, transpose_solve: Any, arguments: Mapping[str, Any]
) -> tuple[Any, Any, dict[str, Any]]:
    """The methods themselves, and all the arguments together.

    For what is hidden in a partial, the rule could not do what it does for arguments: keep ``x0`` and ``atol`` from
    other solves than the forward, transpose ``M``, know of ``damp``. A partial beside a callable from outside, which is
    not to see its arguments, stays a callable itself.

    Parameters
    ----------
    kind : type
        Of the methods of the package.
    solve, transpose_solve : callable or None
        As the user gave them.
    arguments : mapping
        Those given beside them, which win.

    Raises
    ------
    TypeError
        If two partials give the same argument differently.
    """
    given = [solver for solver in (solve, transpose_solve) if solver is not None]
    if not all(isinstance(_inner(solver), kind) for solver in given):
        return solve, transpose_solve, dict(arguments)
    hidden: dict[str, Any] = {}
    for solver in given:
        for name, value in getattr(solver, "keywords", {}).items():
            if name in hidden and name not in arguments and not _same(hidden[name], value):
                raise TypeError(_solver_words.given_twice(name, hidden[name], value))
            hidden[name] = value
    return _inner(solve), _inner(transpose_solve), {**hidden, **arguments}


def _inner(solver: Any) -> Any:
    return solver.func if isinstance(solver, functools.partial) and not solver.args else solver


def _same(a: Any, b: Any) -> bool:
    return a is b or (isinstance(a, int | float) and isinstance(b, int | float) and a == b)
