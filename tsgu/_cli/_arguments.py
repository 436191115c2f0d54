"""The arguments of the command line."""

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from tsgu._cli._errors import CommandError
from tsgu._cli._precond import PRECONDITIONERS, Precond
from tsgu._core._dtypes import DTYPES
from tsgu._core.methods import _registry

METHODS = tuple(method.name for method in _registry.square())
CHOOSING = tuple(method.name for method in _registry.METHODS if method.chooses)
"""Take one of the methods, with a preconditioner of their own choice."""
BACKENDS = ("torch", "jax", "both")

_DESCRIPTION = """\
Solve A x = b, differentiate the solution with respect to A and b, and check the gradient against finite differences.
Without MATRIX this is done for a built-in problem of heat conduction with 10 000 unknowns, by every method.
"""

_EPILOG = """\
What is differentiated is the loss Re(w^H x) with a fixed pseudo-random w, so the adjoint system is A^H lambda = w.
Iterations are those of the forward and of the adjoint solve. The gradient error is relative to a finite difference by
an independent solver; "allowed" is the error that the residuals, the finite difference and rounding explain. A check
fails if a solve does not converge, if a residual, computed afresh, is above its target, or if the gradient error is
above what is allowed. Where both backends run, "difference" is the largest relative difference between their solutions
and gradients. Seconds of JAX include compilation, and those of both the set-up of a preconditioner.

exit status: 0 if every check passes, 1 if one fails, 2 if the command cannot be carried out, 130 if interrupted
"""


@dataclass(frozen=True)
class Arguments:
    """What was asked for; None where nothing was said."""

    matrix: Path | None
    rhs: Path | None
    method: str | None
    rtol: float | None
    dtype: str | None
    backend: str | None
    precond: str | None
    block: int | None
    save: Path | None
    plot: Path | None

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods to run: the one named, else direct for a file, and all for the built-in problem.

        With a preconditioner, GMRES for a file, and all that can use it for the built-in problem.
        """
        if self.method is not None:
            return (self.method,)
        if self.precond is None:
            return METHODS if self.matrix is None else ("direct",)
        return tuple(m for m in METHODS if _obstacle(m, self.precond) is None) if self.matrix is None else ("gmres",)

    @property
    def preconditioner(self) -> Precond | None:
        return None if self.precond is None else Precond(self.precond, _BLOCK if self.block is None else self.block)


_BLOCK = 4


def _obstacle(method: str, precond: str) -> str | None:
    """Why a method cannot use a preconditioner."""
    traits = _registry.method(method)
    if traits.chooses:
        return f"{method} chooses its own preconditioner; choose a Krylov method"
    if not traits.preconditioned:
        return f"{method} takes no preconditioner; choose a Krylov method"
    if traits.hermitian and not _registry.preconditioner(precond).hermitian:
        return f"{precond} is not symmetric, which {method} needs; use bicgstab or gmres"
    return None


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, as every other error; argparse would print the usage before it."""
        raise CommandError(f"{message} (python -m tsgu --help shows the arguments)")


def parse(argv: Sequence[str] | None) -> Arguments:
    """The command's arguments.

    Raises
    ------
    CommandError
        If they are not understood.
    SystemExit
        After ``--help``.
    """
    parser = _Parser(
        prog="python -m tsgu",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "matrix",
        nargs="?",
        type=Path,
        metavar="MATRIX",
        help="square matrix: Matrix Market (.mtx, .mtx.gz) or scipy.sparse.save_npz (.npz); repeated entries are added",
    )
    parser.add_argument(
        "--rhs",
        type=Path,
        metavar="FILE",
        help="right-hand side b, n numbers or n rows of them (.mtx, .npy, or text); by default all ones for MATRIX",
    )
    parser.add_argument(
        "--method",
        type=_method,
        metavar="METHOD",
        help=f"one of {', '.join(METHODS)}, or {', '.join(CHOOSING)}, which chooses by the matrix; by default direct "
        "for MATRIX, and all for the built-in problem",
    )
    parser.add_argument(
        "--rtol",
        type=_tolerance,
        metavar="R",
        help="largest relative residual ||b - A x|| / ||b||; by default 1e-8 in double and 1e-5 in single precision",
    )
    parser.add_argument(
        "--dtype",
        type=_dtype,
        metavar="D",
        help=f"one of {', '.join(DTYPES)}; by default double precision, complex if A or b is",
    )
    parser.add_argument(
        "--backend",
        type=_backend,
        metavar="BACKEND",
        help=f"one of {', '.join(BACKENDS)}; by default both where JAX is installed",
    )
    parser.add_argument(
        "--precond",
        type=_precond,
        metavar="P",
        help=f"precondition by one of {', '.join(PRECONDITIONERS)}; by default METHOD is then gmres for MATRIX, and "
        "all that can use it for the built-in problem",
    )
    parser.add_argument(
        "--block", type=_rows, metavar="N", help=f"rows of a block of block_jacobi; by default {_BLOCK}"
    )
    parser.add_argument(
        "--save", type=Path, metavar="X.npy", help="write the solution (of the first method, where several run)"
    )
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw the residual after each step")
    arguments = Arguments(**vars(parser.parse_args(argv)))
    if arguments.block is not None and arguments.precond != "block_jacobi":
        raise CommandError("argument --block: is for --precond block_jacobi")
    if arguments.precond is not None and arguments.method is not None:
        obstacle = _obstacle(arguments.method, arguments.precond)
        if obstacle is not None:
            raise CommandError(f"argument --precond: {obstacle}")
    return arguments


def _method(text: str) -> str:
    known = (*METHODS, *CHOOSING)
    if text not in known:
        raise argparse.ArgumentTypeError(f"unknown method {text!r}; the methods are {', '.join(known)}")
    return text


def _precond(text: str) -> str:
    if text not in PRECONDITIONERS:
        known = ", ".join(PRECONDITIONERS)
        raise argparse.ArgumentTypeError(f"unknown preconditioner {text!r}; the preconditioners are {known}")
    return text


def _rows(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"must be an integer >= 1; got {text!r}")
    return int(text)


def _dtype(text: str) -> str:
    if text not in DTYPES:
        raise argparse.ArgumentTypeError(f"unknown dtype {text!r}; the dtypes are {', '.join(DTYPES)}")
    return text


def _backend(text: str) -> str:
    if text not in BACKENDS:
        raise argparse.ArgumentTypeError(f"unknown backend {text!r}; the backends are {', '.join(BACKENDS)}")
    return text


def _tolerance(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number >= 0):
        raise argparse.ArgumentTypeError(f"must be a finite number >= 0; got {text!r}")
    return number
