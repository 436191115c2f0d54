"""Who solves with A and who with its transpose: the user's callables and their arguments, as given."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from tsgu._core import _kinds
from tsgu._core.methods import _registry
from tsgu._core.report import _solver_words
from tsgu._matrix import _checks
from tsgu._rule._method import Method
from tsgu._rule._operator import check_transposable
from tsgu._rule._outcome import Wanted
from tsgu._rule._recipe import is_recipe
from tsgu.precond._base import Preconditioner

Solver = Callable[..., Any]


def check_solver(name: str, solver: Any, prepares: bool = True) -> None:
    """Refuse what cannot solve; ``prepares`` says whether it may be prepared for a matrix, or be so already."""
    ours = Preconditioner.__module__.rpartition(".")[0]  # where the functions that make them are, too
    if isinstance(solver, Preconditioner) or str(getattr(solver, "__module__", "")).startswith(ours):
        raise TypeError(_solver_words.preconditioner_as_solver(name, solver))
    _checks.check_callable(name, solver)
    if not prepares and solver is not None and not callable(solver):
        raise TypeError(_solver_words.not_a_solver(name, solver, _registry.meant(name, solver, "tsgu")))


@dataclass(frozen=True)
class Plan:
    """The callables and their arguments, as the user gave them.

    A callable given as ``solve`` is applied to A, and to A^T in the adjoint where no ``transpose_solve`` is given. A
    foreign ``transpose_solve(A, G)`` receives A and solves A^T Y = G; where no ``solve`` is given it is applied to A^T,
    and so solves A X = B. An own method needs no such distinction: it knows both.

    ``x0`` and ``atol`` serve the forward solve alone, and the adjoint gets ``M.T`` for ``M``. A callable from outside
    gets ``atol`` in all its solves: what it means by it is not known.
    """

    solve: Solver | None
    transpose_solve: Solver | None
    arguments: Mapping[str, Any]
    verify: float | None
    wanted: Wanted

    def check(self, differentiated: bool, like: Tensor) -> None:
        """Refuse, before anything is computed, what cannot be honoured in the forward or in the adjoint.

        ``like`` is a right-hand side.
        """
        for name, solver in (("solve", self.solve), ("transpose_solve", self.transpose_solve)):
            check_solver(name, solver)
            if isinstance(solver, Method):
                solver.arguments(self.arguments)
            elif _kinds.is_prepared(solver) and self.arguments:
                raise TypeError(_solver_words.arguments_of_prepared(name, sorted(self.arguments)))
        _checks.check_verify(self.verify)
        adjoint = self.transpose_solve or self.solve
        if differentiated and not (isinstance(adjoint, Method) and adjoint.hermitian):
            M = adjoint.arguments(self.arguments).get("M") if isinstance(adjoint, Method) else self.arguments.get("M")
            if not is_recipe(M):
                check_transposable(M, _kinds.name_of(adjoint), like)

    def resolved(self) -> "tuple[Role, Role]":
        """Who solves with A, and who solves with A^T."""
        given = self.solve is not None
        forward = Role(self.solve if given else self.transpose_solve, of_transpose=not given)
        if self.transpose_solve is None:
            return forward, forward
        adjoint = Role(self.transpose_solve, of_transpose=True)
        return forward, forward if adjoint == forward else adjoint


@dataclass(frozen=True)
class Role:
    """A solver, and whether it is a callable that receives A to solve with A^T."""

    solver: Any
    of_transpose: bool

    def __post_init__(self) -> None:
        if isinstance(self.solver, Method) or _kinds.is_prepared(self.solver):  # which solve with both
            object.__setattr__(self, "of_transpose", False)
