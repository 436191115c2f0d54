"""What solves and differentiates: a module per framework, imported when it is asked for."""

from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple, Protocol, cast

import numpy.typing as npt
import scipy.sparse as sp

from tsgu._cli._errors import CommandError, reason
from tsgu._cli._precond import Precond

Array = npt.NDArray[Any]


class Solution(NamedTuple):
    """A solution of A x = b and the gradient of Re(w^H x).

    Gradients are those of PyTorch: d(loss) = Re(sum(conj(gradient) * d(input))), so that the gradient with respect to b
    is the solution of the adjoint system A^H lambda = w.
    """

    x: Array
    """Like b."""
    adjoint: Array
    """Gradient with respect to b, like b."""
    gradient: Array
    """Gradient with respect to the stored entries of A, shape (nnz,), in A's own order."""


class Backend(Protocol):
    """A module in ``tsgu._cli``. What it solves is found in ``tsgu.record()``, and what fails to converge warned of."""

    def differentiate(
        self, A: sp.csr_array, b: Array, w: Array, method: str, rtol: float, precond: Precond | None = None
    ) -> Solution:
        """Solve by a method, with a preconditioner if one is asked for, and differentiate.

        A is canonical (row-major, no repeats) and has the dtype of b and w, in which everything is computed. Raises
        :class:`numpy.linalg.LinAlgError` if A is singular, and CommandError if it has no such preconditioner.
        """
        ...


_BACKENDS = {"torch": ("tsgu._cli._torch", "PyTorch"), "jax": ("tsgu._cli._jax", "JAX")}


def names(asked: str | None) -> tuple[str, ...]:
    """The backends to run: those asked for; by default PyTorch, and JAX where it is installed."""
    if asked in _BACKENDS:
        return (asked,)
    return ("torch", "jax") if asked == "both" or find_spec("jax") is not None else ("torch",)


def load(name: str) -> Backend:
    """Import a backend.

    Raises
    ------
    CommandError
        If the framework is not installed.
    """
    module, framework = _BACKENDS[name]
    try:
        return cast(Backend, import_module(module))
    except ImportError as error:
        raise CommandError(f'{framework} is needed: pip install "tsgu[{name}]" ({reason(error)})') from error
