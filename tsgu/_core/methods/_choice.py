"""Which method for which matrix: what is looked at, what each candidate is estimated to cost, which is tried first.

Costs are counted in products with A, forward and adjoint solve together. With n unknowns, nnz entries, and a graph of
width w (see :attr:`tsgu._core.pattern._symbolic.Symbolic.width`), and so of length n / w,

    direct                  150 + 12 r, where r = max(n w, w^3) / nnz is what separators take; by PARDISO 250 + r / 2
                            where A may be definite, so that the order of elimination is kept, and 620 + r elsewhere;
                            by rslab 250 + 1.6 r where A is real and symmetric, and 250 + 2.8 r elsewhere
    linear_cg + amg         600, whatever n; 900 by smoothed aggregation, or 1250
    linear_cg + jacobi      3 n / w: information crosses the graph in n / w steps; or 8 n / w
    minres                  12 n / w
    bicgstab + amg          900
    bicgstab + jacobi       8 n / w
    gmres + ilu             8000

where the second figures are for matrices whose off-diagonal entries often have the sign of the diagonal, and all come
from measurements on Laplacians in two and three dimensions, with and without convection, and on elasticity. An estimate
may be off by far, for coefficients that jump. So whatever is iterative may take a few times the steps of its estimate;
then the next candidate has its turn.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt

from tsgu._core.methods._options import ASYMMETRY
from tsgu._core.pattern._symbolic import Symbolic

Array = npt.NDArray[Any]

SMALL = 2000
"""Unknowns up to which a matrix is factored without further ado."""

_PATIENCE = 4
"""Multiple of the steps in an estimate after which the next candidate has its turn."""

_FEWEST = 50
"""Steps that every candidate may take."""

_LARGEST_FILL = 1 << 28
"""Entries of factors, about 4 GB, above which factoring is not tried."""

_PER_SECOND = 1e9
"""Entries that a product goes through in a second."""

_WRONG_SIGN = 0.1
"""Share of off-diagonal entries, by weight, that may have the sign of the diagonal where classical coarsening is
trusted."""


@dataclass(frozen=True)
class Traits:
    """What is looked at.

    Attributes
    ----------
    n, nnz : int
    width : float
        Of the graph.
    complex : bool
    hermitian : bool
        To rounding.
    sign : int
        1 or -1 if every entry on the diagonal is positive or negative, else 0.
    diagonal : bool
        Whether every entry on the diagonal is stored and nonzero.
    coupled : bool
        Whether off-diagonal entries have the sign opposite to the diagonal, as in an M-matrix, but for a tenth of
        their weight.
    seen : bool
        Whether the values were there to be looked at; if not, what is said of them is a guess.
    """

    n: int
    nnz: int
    width: float
    complex: bool
    hermitian: bool
    sign: int
    diagonal: bool
    coupled: bool
    seen: bool = True

    @property
    def length(self) -> float:
        """Of the graph: steps in which information crosses it."""
        return self.n / max(self.width, 1.0)

    @property
    def fill(self) -> float:
        """Entries of the factors: of those of separators in three dimensions, and n log n in two."""
        return self.nnz + 4 * self.n * math.log2(1 + self.width) + 60 * self.width**2

    def __str__(self) -> str:
        size = f"{self.n} unknowns, width {self.width:.0f}"
        if not self.seen:
            return f"traced, {size}"
        parts = [("" if self.hermitian else "not ") + ("Hermitian" if self.complex else "symmetric")]
        parts.append({1: "positive diagonal", -1: "negative diagonal"}.get(self.sign, ""))
        if not self.sign:
            parts[-1] = "diagonal of both signs" if self.diagonal else "zeros on the diagonal"
        return ", ".join([*parts, size])


@dataclass(frozen=True)
class Candidate:
    """A method, its preconditioner with the arguments to build it, and what it is estimated to take."""

    method: str
    precond: str | None
    cost: float
    steps: float = math.inf
    options: tuple[tuple[str, Any], ...] = ()

    @property
    def name(self) -> str:
        return self.method if self.precond is None else f"{self.method} + {self.precond}"

    def maxiter(self, asked: int | None, last: bool) -> int | None:
        """Steps that it may take; None for the default of the method."""
        if last or math.isinf(self.steps):
            return asked
        patience = max(_FEWEST, math.ceil(_PATIENCE * self.steps))
        return patience if asked is None else min(patience, asked)


def traits_of(symbolic: Symbolic, values: Array) -> Traits:
    """Look at a square matrix, given by its pattern and values of shape (nnz,)."""
    largest = max(np.abs(values.real).max(initial=0), np.abs(values.imag).max(initial=0))
    values = values / largest if largest else values  # so that no sum overflows
    n = symbolic.shape[0]
    on = symbolic.row == symbolic.col
    diagonal = values[on]
    full = diagonal.size == n
    signs = np.sign(diagonal.real)
    sign = int(signs[0]) if n and full and np.all(signs == signs[0]) else 0
    off = values.real[~on] * sign
    return Traits(
        n=n,
        nnz=symbolic.nnz,
        width=symbolic.width,
        complex=values.dtype.kind == "c",
        hermitian=_is_hermitian(symbolic, values),
        sign=sign,
        diagonal=full and bool(np.all(diagonal != 0)),
        coupled=sign != 0 and bool(off[off > 0].sum() <= _WRONG_SIGN * np.abs(off).sum()),
    )


def _is_hermitian(symbolic: Symbolic, values: Array) -> bool:
    if not symbolic.is_symmetric:
        return False
    off = np.abs(values - values[symbolic.transposition].conj())
    return bool(off.max(initial=0) <= ASYMMETRY * np.finfo(values.dtype).eps * np.abs(values).max(initial=0))


def candidates(traits: Traits, library: str, amg: bool | None = None, overhead: float = 0.0) -> tuple[Candidate, ...]:
    """What to try, in this order; never empty.

    Parameters
    ----------
    traits : Traits
    library : {"superlu", "pardiso", "rslab"}
        Who can factor: SuperLU alone, or one of the others too.
    amg : bool, optional
        Whether PyAMG can be used; by default, whether it is installed.
    overhead : float, optional
        Seconds that come on top of multigrid, where another hierarchy is another program to compile.
    """
    amg = find_spec("pyamg") is not None if amg is None else amg
    cheapest = min(dict.fromkeys(("superlu", library)), key=lambda library: _cost_of_direct(traits, library))
    direct = Candidate("direct", None, _cost_of_direct(traits, cheapest), options=(("library", cheapest),))
    found = [
        *_iterative(traits, amg, overhead * _PER_SECOND / max(traits.nnz, 1)),
        *([direct] if traits.fill <= _LARGEST_FILL else []),
    ]
    found.sort(key=lambda candidate: candidate.cost)
    if direct in found:  # which solves whatever can be solved
        del found[found.index(direct) + 1 :]
    return tuple(found)


def _cost_of_direct(traits: Traits, library: str) -> float:
    if traits.n <= SMALL:
        return 0.0
    work = max(traits.n * traits.width, traits.width**3)
    per_entry = work / max(traits.nnz, 1)
    if library == "superlu":
        return 150 + 12 * per_entry
    if library == "rslab":
        return 250 + (1.6 if traits.hermitian and not traits.complex else 2.8) * per_entry
    return 250 + 0.5 * per_entry if traits.hermitian and traits.sign > 0 else 620 + per_entry


def _iterative(traits: Traits, amg: bool, more: float) -> list[Candidate]:
    length, steps = traits.length, 25
    if traits.hermitian and traits.sign:
        cost, turns = (3, 1.5) if traits.coupled else (8, 3)
        found = [Candidate("linear_cg", "jacobi", cost * length, turns * length)]
        if amg and traits.coupled and not traits.complex:
            found.append(Candidate("linear_cg", "amg", 600 + more, steps))
        elif amg:
            by_aggregation = 900 if traits.coupled else 1250
            found.append(
                Candidate("linear_cg", "amg", by_aggregation + more, 2 * steps, (("kind", "smoothed_aggregation"),))
            )
        return [*found, Candidate("minres", None, 12 * length, 6 * length)]
    if traits.hermitian:
        return [Candidate("minres", None, 12 * length, 6 * length)]
    found = [Candidate("gmres", "ilu", 8000, 200)]
    if traits.diagonal:
        found.append(Candidate("bicgstab", "jacobi", 8 * length, 2 * length))
    if amg and traits.coupled and not traits.complex:
        found.append(Candidate("bicgstab", "amg", 900 + more, steps))
    return found


FINAL = ("converged", "accuracy limit", "non-finite")
"""Statuses of a column for which nothing else is tried: it is solved, or no method could."""

SINGULAR = ("singular", "numerically singular")
"""Statuses that say why nothing was solved: those of the factors that end a list are reported, whatever residual."""


def note(traits: Traits, plan: Sequence[Candidate], place: int, failures: Sequence[str] = ()) -> str:
    """What was chosen and why, for the log."""
    costs = ", ".join(f"{candidate.name} {candidate.cost:.0f}" for candidate in plan)
    tried = "".join(f"; {failure}" for failure in failures)
    return f"auto: {plan[place].name} for a matrix that is {traits}; estimated cost in products with A: {costs}{tried}"
