"""The contestants: every library with the methods that its users would choose, and the cases that each is fit for.

A module of this package is named after its library and offers ``start(method, case, rtol)``, which brings a case to the
library's own formats and returns a :class:`Run`. Each is given what its documentation recommends: the sparse format in
which it is fastest, compilation with arrays as arguments, and the preconditioners that come with it. Matrices change
their values from call to call, as in training, but not their pattern: so what depends on the pattern alone is made
once, if the library can keep it, while factors and preconditioners are made in every call.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from tests.benchmarks.comparison.problems import Case


class Outcome(NamedTuple):
    """What a call returns: x, A^-T w, and the gradient of the stored values, -lambda_i x_j without conjugates."""

    x: Any
    grad_b: Any
    grad_values: Any


@dataclass(frozen=True)
class Run:
    solve: Callable[[Any], Outcome]  # of the values; timed
    values: Callable[[np.ndarray], Any] = np.asarray  # to the library's own arrays; not timed
    steps: Callable[[Any], tuple[int | None, int | None]] | None = None  # of the values: forward, adjoint; not timed


@dataclass(frozen=True)
class Contestant:
    library: str
    method: str
    fits: Callable[[Case], bool]
    iterative: bool = True

    def __str__(self) -> str:
        return f"{self.library}: {self.method}"

    @property
    def ours(self) -> bool:
        return self.library in OURS


def definite(case: Case) -> bool:
    return case.definite


def general(case: Case) -> bool:
    """Methods for general matrices meet those that conjugate gradients cannot solve."""
    return not case.definite


def block(case: Case) -> bool:
    """Several right-hand sides."""
    return case.definite and case.columns > 1


def anything(case: Case) -> bool:
    return True


OURS = ("tsgu", "tsgu_jax")

CONTESTANTS = (
    *(
        Contestant(library, method, fits, iterative)
        for library in OURS
        for method, fits, iterative in (
            ("auto", anything, True),
            ("linear_cg", definite, True),
            ("linear_cg + amg", definite, True),
            ("bicgstab + ilu", general, True),
            ("direct (SuperLU)", anything, False),
            ("direct (PARDISO)", anything, False),
        )
    ),
    Contestant("torchsparsegradutils", "linear_cg", definite),
    Contestant("torchsparsegradutils", "minres", definite),
    Contestant("torchsparsegradutils", "bicgstab", general),
    Contestant("torch_sla", "cg + jacobi", definite),
    Contestant("torch_sla", "cg", block),
    Contestant("torch_sla", "cg + amg", definite),
    Contestant("torch_sla", "pyamg", definite),
    Contestant("torch_sla", "bicgstab + jacobi", general),
    Contestant("torch_sla", "gmres + jacobi", general),
    Contestant("torch_sla", "lu", anything, iterative=False),
    Contestant("jax", "cg", definite),
    Contestant("jax", "bicgstab", general),
    Contestant("jax", "gmres", general),
    Contestant("jax", "spsolve", anything, iterative=False),
    Contestant("lineax", "CG", definite),
    Contestant("lineax", "BiCGStab", general),
    Contestant("lineax", "GMRES", general),
    Contestant("klujax", "solve_with_symbol", anything, iterative=False),
    Contestant("scipy", "cg", definite),
    Contestant("scipy", "cg + pyamg", definite),
    Contestant("scipy", "bicgstab + spilu", general),
    Contestant("scipy", "splu", anything, iterative=False),
)

DISTRIBUTIONS = {"tsgu_jax": "tsgu", "torch_sla": "torch-sla"}
"""Where a library is installed under another name."""


def contestants(libraries: list[str] | None = None) -> list[Contestant]:
    """Those of the given libraries, or all. ``auto`` takes part where the installed version has it."""
    import tsgu

    return [
        contestant
        for contestant in CONTESTANTS
        if (libraries is None or contestant.library in libraries)
        and (contestant.method != "auto" or "auto" in tsgu.__all__)
    ]
