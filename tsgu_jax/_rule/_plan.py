"""Who solves with A and who with its transpose: the user's callables and their arguments, as given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from jax import Array

from tsgu._core import _kinds
from tsgu._core.methods import _registry
from tsgu._core.report import _solver_words
from tsgu_jax._matrix import _checks
from tsgu_jax._matrix._pattern import Pattern
from tsgu_jax._matrix._sparse_matrix import SparseMatrix
from tsgu_jax._rule._foreign import Foreign, ForeignSystem
from tsgu_jax._rule._function import is_function, trace
from tsgu_jax._rule._method import Configured, Method, PreparedSolver
from tsgu_jax._rule._operator import refuse_recipe
from tsgu_jax._rule._system import LinearSystem
from tsgu_jax.precond._base import Preconditioner

Solver = Callable[..., Any]


def check_solver(name: str, solver: Any, prepares: bool = True) -> None:
    """Refuse what cannot solve; ``prepares`` says whether it may be prepared for a matrix, or be so already."""
    ours = Preconditioner.__module__.rpartition(".")[0]  # where the functions that make them are, too
    if isinstance(solver, Preconditioner) or str(getattr(solver, "__module__", "")).startswith(ours):
        raise TypeError(_solver_words.preconditioner_as_solver(name, solver, "tsgu_jax"))
    _checks.check_callable(name, solver)
    if not prepares and solver is not None and not callable(solver):
        raise TypeError(_solver_words.not_a_solver(name, solver, _registry.meant(name, solver, "tsgu_jax")))


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
    policy: str = "warn"
    """What is done where a solve fails."""

    def check(self) -> None:
        """Refuse, before anything is computed, what cannot be honoured in the forward or in the adjoint."""
        for name, solver in (("solve", self.solve), ("transpose_solve", self.transpose_solve)):
            check_solver(name, solver)
            if isinstance(solver, Method):
                solver.arguments(self.arguments)
            elif _kinds.is_prepared(solver) and self.arguments:
                raise TypeError(_solver_words.arguments_of_prepared(name, sorted(self.arguments)))
        _checks.check_verify(self.verify)

    @property
    def x0(self) -> Any:
        return self.arguments.get("x0")

    @property
    def is_own(self) -> bool:
        """Whether the package's own methods do it all, so that the package may compile the whole."""
        own = Method, PreparedSolver
        return all(solver is None or isinstance(solver, own) for solver in (self.solve, self.transpose_solve))

    def system(self, pattern: Pattern | None, values: Array | None, given: Any, like: Any) -> LinearSystem:
        """The linear system for A on a pattern, or for a matrix that is only a function; ``like`` is one B."""
        matrix = None if pattern is None else SparseMatrix.tree_unflatten(None, (values, pattern))
        configured = partial(self._configured, given=given, like=like, matrix=matrix)
        forward = configured(self.transpose_solve, True) if self.solve is None else configured(self.solve, False)
        known = self.solve is self.transpose_solve and isinstance(self.solve, Method)
        same = self.solve is None or self.transpose_solve is None or known
        adjoint = None if same else configured(self.transpose_solve, True)
        return LinearSystem(
            pattern,
            None if pattern is not None else given,
            forward,
            adjoint,
            tried=self.verify is not None,
            policy=self.policy,
        )

    def _configured(self, solver: Any, of_transpose: bool, given: Any, like: Any, matrix: Any) -> Configured:
        arguments = {name: value for name, value in self.arguments.items() if name != "x0"}
        if isinstance(solver, Method):  # which solves with A and with A^T, so that one preparation serves both
            M = arguments.get("M")
            refuse_recipe(M)
            if is_function(M) and not _kinds.prepares(M):
                arguments["M"] = trace("M", M, like, convert=True)
            return solver.configure(arguments, like.shape[0], like.dtype, matrix)
        of_transpose = of_transpose and not _kinds.is_prepared(solver)  # which solves with both
        return Foreign(solver, of_transpose, given, arguments, self.verify, ForeignSystem, like)
