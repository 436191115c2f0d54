"""Every method and every preconditioner, with what must be known to choose and to test it.

The command line, the contract suite, ``auto``, the entries for torch2jax and the tables of the documentation read
these lists, so that all of them know a new entry.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from typing import Any


@dataclass(frozen=True)
class MethodTraits:
    """A method: its name, the module of ``_methods`` that holds it in both packages, and what it is for.

    Parameters
    ----------
    hermitian, definite : bool
        Whether A must be Hermitian, or Hermitian and positive definite.
    rectangular : bool
        Whether the method minimises ``||A x - b||`` for rectangular A.
    iterative : bool
        Whether it takes steps, to a tolerance ``rtol``.
    preconditioned, starts : bool
        Whether it takes ``M``, and ``x0``.
    surrounded : bool
        Whether it is meant for eigenvalues that lie all around the origin.
    chooses : bool
        Whether it chooses among the other methods.
    use, memory, work, notes : str
        For the documentation: what A may be, the vectors that it keeps, the work of a step, and what else to know.
    """

    name: str
    module: str
    hermitian: bool = False
    definite: bool = False
    rectangular: bool = False
    iterative: bool = True
    preconditioned: bool = True
    starts: bool = True
    surrounded: bool = True
    chooses: bool = False
    use: str = ""
    memory: str = ""
    work: str = ""
    notes: str = ""


@dataclass(frozen=True)
class PreconditionerTraits:
    """A preconditioner: its name, and what it is for.

    Parameters
    ----------
    hermitian : bool
        Whether M is Hermitian where A is, as ``linear_cg`` and ``minres`` need it.
    use, setup, notes : str
        For the documentation: for which A, what it takes to build, and what else to know.
    """

    name: str
    hermitian: bool = True
    use: str = ""
    setup: str = ""
    notes: str = ""


METHODS: list[MethodTraits] = [
    MethodTraits(
        "direct",
        "_direct",
        iterative=False,
        preconditioned=False,
        starts=False,
        use="any nonsingular matrix",
        memory="the factors: a few times A in two dimensions, very much more in three",
        work="none",
        notes="factored once for the solution and all its derivatives; many right-hand sides are cheap",
    ),
    MethodTraits(
        "linear_cg",
        "_cg",
        hermitian=True,
        definite=True,
        use="Hermitian positive definite",
        memory="5",
        work="1 product with A, 1 with M",
        notes="the fewest steps and the cheapest ones",
    ),
    MethodTraits(
        "minres",
        "_minres",
        hermitian=True,
        use="Hermitian",
        memory="7",
        work="1 product with A, 1 with M",
        notes="the residual falls in every step; the default",
    ),
    MethodTraits(
        "bicgstab",
        "_bicgstab",
        surrounded=False,
        use="any",
        memory="7",
        work="2 products with A, 2 with M",
        notes="short recurrences; the residual may jump",
    ),
    MethodTraits(
        "gmres",
        "_gmres",
        use="any",
        memory="`restart`, twice that with M",
        work="1 product with A, 1 with M",
        notes="the residual falls in every step; `restart=30`; M may change from step to step",
    ),
    MethodTraits(
        "auto",
        "_auto",
        preconditioned=False,
        starts=False,
        chooses=True,
        use="any nonsingular matrix",
        memory="that of the method chosen",
        work="that of the method chosen",
        notes="looks at A, chooses one of the others, verifies the result, and falls back",
    ),
    MethodTraits(
        "lsmr",
        "_lsmr",
        rectangular=True,
        preconditioned=False,
        use="rectangular, full column rank",
        memory="7",
        work="1 product with A, 1 with its adjoint",
        notes="takes `damp`",
    ),
]

PRECONDITIONERS: list[PreconditionerTraits] = [
    PreconditionerTraits(
        "jacobi",
        use="rows of different scale",
        setup="none to speak of",
        notes="for `linear_cg` and `minres` where the diagonal has one sign",
    ),
    PreconditionerTraits(
        "block_jacobi",
        use="several unknowns per node, numbered together",
        setup="small dense inverses",
        notes="definite if A is",
    ),
    PreconditionerTraits(
        "ilu",
        hermitian=False,
        use="general matrices, with `bicgstab` and `gmres`",
        setup="incomplete LU, on the host",
        notes="not symmetric, so not for `linear_cg` and `minres`",
    ),
    PreconditionerTraits(
        "amg",
        use="elliptic equations, with every method; for `linear_cg` and `minres` definite ones",
        setup="levels by PyAMG, on the host",
        notes="the number of steps hardly grows with the grid",
    ),
]


def method(name: str) -> MethodTraits:
    """The method of this name."""
    return next(each for each in METHODS if each.name == name)


def preconditioner(name: str) -> PreconditionerTraits:
    """The preconditioner of this name."""
    return next(each for each in PRECONDITIONERS if each.name == name)


def square() -> list[MethodTraits]:
    """The methods that solve square systems and are no choice among others."""
    return [method for method in METHODS if not method.rectangular and not method.chooses]


def krylov() -> list[MethodTraits]:
    """The iterative ones of these."""
    return [method for method in square() if method.iterative]


def loaded(package: str, methods: Iterable[MethodTraits]) -> dict[str, Any]:
    """The methods themselves by name, as one of the two packages has them."""
    return {
        method.name: getattr(import_module(f"{package}._methods.{method.module}"), method.name) for method in methods
    }


def meant(argument: str, given: object, package: str) -> str:
    """The method of this name as the user would write it; where there is none, the first one that takes steps."""
    fitting = [each for each in METHODS if each.rectangular == ("lstsq" in argument)]
    first = next(each.name for each in fitting if each.iterative)
    return f"{package}.{given if given in [each.name for each in fitting] else first}"


def method_table() -> str:
    """The methods as a table in Markdown."""
    return _table(
        ("", "for", "memory, in vectors", "work per step", "notes"),
        [(f"`{each.name}`", each.use, each.memory, each.work, each.notes) for each in METHODS],
    )


def preconditioner_table() -> str:
    """The preconditioners as a table in Markdown."""
    return _table(
        ("", "for", "set-up", "notes"),
        [(f"`{each.name}`", each.use, each.setup, each.notes) for each in PRECONDITIONERS],
    )


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
