"""How a linear system and its transpose are to be solved: the user's callables, resolved to two solves."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from tsgu._core import _kinds
from tsgu._core.methods import _registry
from tsgu._core.methods._options import ATTAINABLE, SAME, default_rtol
from tsgu._core.report import _function_words, _log, _place, _solver_words, _status
from tsgu._matrix import _checks, _internals, _products
from tsgu._matrix._autodiff import assemble
from tsgu._matrix._pattern import Pattern
from tsgu._matrix._sparse_matrix import SparseMatrix
from tsgu._rule._function import Function
from tsgu._rule._method import Method, Prepared, PreparedSolver
from tsgu._rule._operator import CallableOperator, check_transposable
from tsgu._rule._operator import transposed as transpose_of
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
            check_transposable(M, _kinds.name_of(adjoint), like)

    def resolved(self) -> "tuple[_Role, _Role]":
        """Who solves with A, and who solves with A^T."""
        given = self.solve is not None
        forward = _Role(self.solve if given else self.transpose_solve, of_transpose=not given)
        if self.transpose_solve is None:
            return forward, forward
        adjoint = _Role(self.transpose_solve, of_transpose=True)
        return forward, forward if adjoint == forward else adjoint


@dataclass(frozen=True)
class _Role:
    """A solver, and whether it is a callable that receives A to solve with A^T."""

    solver: Any
    of_transpose: bool

    def __post_init__(self) -> None:
        if isinstance(self.solver, Method) or _kinds.is_prepared(self.solver):  # which solve with both
            object.__setattr__(self, "of_transpose", False)


class LinearSystem:
    """A linear system as the gradient rule sees it; see :class:`tsgu._rule._implicit.System`.

    Parameters
    ----------
    plan : Plan
        Checked.
    pattern : Pattern or None
        Where the values stand; None for a matrix that is only a callable.
    given : Tensor, Function or None
        The matrix in the user's own layout, detached, or the function that it is; None for a SparseMatrix.
    place : Place, optional
        Where the user asked for the solve, which its adjoint is reported at too; by default the caller's line.
    member : tuple of int, optional
        Which one it is of a batch, and of how many.
    """

    def __init__(
        self,
        plan: Plan,
        pattern: Pattern | None,
        given: Any = None,
        place: _place.Place | None = None,
        member: tuple[int, int] | None = None,
    ) -> None:
        self.pattern = pattern
        self.place = place or _place.caller()
        self._member = member
        self._plan = plan
        self._given = given
        self._ready: tuple[Any, _Solves] | None = None
        self._values: Tensor | None = None
        self._members: dict[int, LinearSystem] = {}

    def solve(self, values: Tensor | None, b: Tensor, x0: Tensor | None, transposed: bool, primal: bool) -> Tensor:
        if primal:
            for name, tensor in (("A", values), ("B", b), ("x0", x0)):
                if tensor is not None:
                    _checks.check_finite(name, tensor)
        solves, b = self._prepare(values), b.contiguous()  # an upstream gradient may be one number, expanded
        # No tangents either, which a function may bring in.
        with torch.no_grad(), _internals.forward_mode(False), _log.of_member(self._member):
            if not primal and isinstance(self._given, Function) and not self._given.is_unchanged():
                raise RuntimeError(_function_words.changed_function())
            return solves.adjoint.solve_transpose(b) if transposed else solves.forward.solve(b, x0, primal)

    def product(self, x: Tensor) -> Tensor:
        """A x, in the graph, for A given as a function."""
        y: Tensor = self._given(x)
        return y

    def adjoint_target(self, dtype: torch.dtype) -> float:
        """The relative residual at which the solves of a derivative stop."""
        solver = self._plan.transpose_solve or self._plan.solve
        given = solver.arguments(self._plan.arguments).get("rtol") if isinstance(solver, Method) else None
        return default_rtol(torch.finfo(dtype).eps) if given is None else float(given)

    def member(self, index: int, count: int) -> "LinearSystem":
        if index not in self._members:
            member = _log.member_of(self._member, index, count)
            self._members[index] = LinearSystem(self._plan, self.pattern, place=self.place, member=member)
        return self._members[index]

    def _prepare(self, values: Tensor | None) -> "_Solves":
        """What is ready for these values: made in the forward pass, found again in the adjoint."""
        key = None if values is None else (values.data_ptr(), _internals.version(values))
        if self._ready is None or self._ready[0] != key:
            self._values = values  # kept alive, so that its address is not used again
            self._ready = key, _Solves(self._plan, self._matrix(values))
        return self._ready[1]

    def _matrix(self, values: Tensor | None) -> Any:
        if values is None or self.pattern is None:
            return _Given(self._given)
        return _Layouts(SparseMatrix(values, self.pattern), self._given)


class _Solves:
    """Both roles of a plan, made ready for one matrix when they are first needed."""

    def __init__(self, plan: Plan, matrix: Any) -> None:
        self._plan, self._matrix = plan, matrix
        self._forward, self._adjoint = plan.resolved()

    @cached_property
    def forward(self) -> Prepared:
        return self._prepared(self._forward)

    @cached_property
    def adjoint(self) -> Prepared:
        return self.forward if self._adjoint == self._forward else self._prepared(self._adjoint)

    def _prepared(self, role: _Role) -> Prepared:
        arguments = {name: value for name, value in self._plan.arguments.items() if name != "x0"}
        if isinstance(role.solver, Method):
            return role.solver.ready(self._matrix.sparse, **arguments)
        return _Foreign(role, self._matrix, arguments, self._plan.verify)


class _Layouts:
    """One matrix as the package holds it, and in the user's own layout."""

    def __init__(self, sparse: SparseMatrix, given: Tensor | None) -> None:
        self.sparse = sparse
        self.given: Any = sparse if given is None else given

    @cached_property
    def sparse_transpose(self) -> SparseMatrix:
        return self.sparse.T

    def product(self, x: Tensor, transposed: bool) -> Tensor:
        """A x, or A^T x."""
        matrix = self.sparse_transpose if transposed else self.sparse
        return _products.csr_product(_products.csr(matrix.values, matrix.pattern), x)

    def magnitude(self, x: Tensor, transposed: bool) -> Tensor:
        """|A| |x|, or |A^T| |x|."""
        matrix = self.sparse_transpose if transposed else self.sparse
        return _products.csr_product(_products.csr(matrix.values.abs(), matrix.pattern), x.abs())

    @cached_property
    def transpose(self) -> Any:
        """A^T in A's own layout and index dtype; CSR has no ``.T`` in torch that is CSR again."""
        if isinstance(self.given, SparseMatrix):
            return self.sparse_transpose
        layout = self.given.layout
        index = torch.int64 if layout == torch.sparse_coo else self.given.col_indices().dtype
        return assemble(self.sparse_transpose.values, self.sparse_transpose.pattern, layout, index)


class _Given:
    """The same for a matrix given as a function."""

    def __init__(self, function: Function) -> None:
        self.sparse = function
        self._operator = CallableOperator(function, "a solver from outside", False)

    @property
    def given(self) -> Any:
        return self.sparse.apply

    @property
    def transpose(self) -> Any:
        return self._operator.transpose.apply

    def product(self, x: Tensor, transposed: bool) -> Tensor:
        return self._operator.transpose.apply(x) if transposed else self.sparse.apply(x)

    def magnitude(self, x: Tensor, transposed: bool) -> Tensor:
        """|A x|, or |A^T x|: all that can be said of |A| |x| from products."""
        return self.product(x, transposed).abs()

    def judged(self, x: Tensor, g: Tensor, columns: list[_status.ColumnInfo], rtol: float) -> list[_status.ColumnInfo]:
        """What became of a solve with the transpose, by what is derived."""
        return self._operator.transpose.judged(x, g, columns, rtol)


class _Foreign:
    """A solver from outside the package, or prepared by the user: its result is checked by one product with A.

    A callable is given A as the user has it. A method of the package that was prepared is not held to ``verify`` but to
    its own target, since it may have been prepared for another matrix.
    """

    def __init__(
        self, role: _Role, matrix: _Layouts | _Given, arguments: Mapping[str, Any], verify: float | None
    ) -> None:
        self._name = _kinds.name_of(role.solver)
        self._solver = role.solver
        self._of_transpose = role.of_transpose
        self._matrix = matrix
        self._arguments = arguments
        self._verify = verify

    def solve(self, B: Tensor, x0: Tensor | None = None, primal: bool = True) -> Tensor:
        arguments = dict(self._arguments) if x0 is None else {**self._arguments, "x0": x0}
        return self._solve(B, arguments, transposed=False, primal=primal)

    def solve_transpose(self, G: Tensor) -> Tensor:
        arguments = dict(self._arguments)
        if arguments.get("M") is not None:
            arguments["M"] = transpose_of(arguments["M"], False, self._name)
        return self._solve(G, arguments, transposed=True, primal=False)

    def _solve(self, B: Tensor, arguments: dict[str, Any], *, transposed: bool, primal: bool) -> Tensor:
        began = time.perf_counter()
        prepared, reports = self._prepared, list[_log.Report]()
        if isinstance(prepared, PreparedSolver):
            with _log.set_aside() as reports:
                x = prepared.within_the_rule(B, transposed != self._of_transpose, primal)
        elif prepared is not None:
            x = prepared.solve_transpose(B) if transposed != self._of_transpose else prepared.solve(B)
        else:
            matrix = self._matrix.given if transposed == self._of_transpose else self._matrix.transpose
            x = self._solver(matrix, B, **arguments)
        x = _checks.solution(self._name, x, B)
        if isinstance(prepared, PreparedSolver):
            self._report_own(reports[0], x, B, transposed, prepared.atol if primal else 0.0, began)
        else:
            columns = self._columns(x, B, transposed)
            info = _status.summarize(self._name, transposed, columns, time.perf_counter() - began)
            _log.report(info, self._verify)
        return x

    def _report_own(self, own: _log.Report, x: Tensor, B: Tensor, transposed: bool, atol: float, began: float) -> None:
        """What a prepared method of the package reports of itself, held to its target with the matrix at hand."""
        sizes, left = self._measured(x, B, transposed)
        target, columns = own.target or 0.0, list[_status.ColumnInfo]()
        for column, size, residual in zip(own.info.columns, sizes, left, strict=True):
            least = max(target * size, atol, SAME * (column.residual or 0.0) * size)
            # Not for NaN, of which the method has told the reason.
            missed = residual > least and residual > SAME * self._rounding(x, B, transposed)[len(columns)]
            status = "prepared for another matrix" if missed else column.status
            columns.append(replace(column, status=status, residual=_relative(residual, size)))
        info = _status.summarize(own.info.method, transposed, columns, time.perf_counter() - began)
        advice = own.advice if info.status == own.info.status else ""
        _log.report(replace(info, note=own.info.note), own.target, advice)

    @cached_property
    def _prepared(self) -> Any:
        """None for a callable that has nothing to prepare."""
        if _kinds.prepares(self._solver):
            return self._solver.prepare(self._matrix.given, **self._arguments)
        return self._solver if _kinds.is_prepared(self._solver) else None

    def _columns(self, x: Tensor, B: Tensor, transposed: bool) -> list[_status.ColumnInfo]:
        """The true relative residual of each column, by one product."""
        if self._verify is None:
            return [_status.ColumnInfo("not verified", None, None)] * (1 if B.dim() == 1 else B.shape[1])
        columns = []
        for size, residual in zip(*self._measured(x, B, transposed), strict=True):
            relative = _relative(residual, size)
            bad = "non-finite" if not size < math.inf else "residual above verify"
            columns.append(_status.ColumnInfo("converged" if relative <= self._verify else bad, None, relative))
        if transposed and isinstance(self._matrix, _Given):
            return self._matrix.judged(x, B, columns, self._verify)
        return columns

    def _measured(self, x: Tensor, B: Tensor, transposed: bool) -> tuple[list[float], list[float]]:
        """Norms of each column of B and of its true residual."""
        return _norms(B, B), _norms(B - self._matrix.product(x, transposed), B)

    def _rounding(self, x: Tensor, B: Tensor, transposed: bool) -> list[float]:
        """Rounding level of the residual of each column."""
        bound = self._matrix.magnitude(x, transposed) + B.abs()
        return [ATTAINABLE * torch.finfo(B.dtype).eps * size for size in _norms(bound, B)]


def _norms(columns: Tensor, B: Tensor) -> list[float]:
    """The 2-norm of each column, in double precision; scaled by those of B, so that none overflows or vanishes."""
    columns, B = (t.unsqueeze(1) if t.dim() == 1 else t for t in (columns, B))
    scale = B.abs().amax(0)
    scale = torch.where(scale > 0, scale, 1.0)
    norms: list[float] = (torch.linalg.vector_norm(columns / scale, dim=0).double() * scale).tolist()
    return norms


def _relative(residual: float, size: float) -> float:
    return residual / size if size else (0.0 if residual == 0 else math.inf)
