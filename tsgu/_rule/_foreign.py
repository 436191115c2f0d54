"""Solvers from outside the package, and prepared ones: given A as the user has it, and their results checked."""

import math
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from tsgu._core import _kinds
from tsgu._core.methods._options import ATTAINABLE, SAME
from tsgu._core.report import _log, _status
from tsgu._matrix import _checks, _products
from tsgu._matrix._autodiff import assemble
from tsgu._matrix._sparse_matrix import SparseMatrix
from tsgu._rule._function import Function
from tsgu._rule._method import PreparedSolver
from tsgu._rule._operator import CallableOperator
from tsgu._rule._operator import transposed as transpose_of
from tsgu._rule._plan import Role


class Layouts:
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


class Given:
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


class Foreign:
    """A solver from outside the package, or prepared by the user: its result is checked by one product with A.

    A callable is given A as the user has it. A method of the package that was prepared is not held to ``verify`` but to
    its own target, since it may have been prepared for another matrix.
    """

    def __init__(self, role: Role, matrix: Layouts | Given, arguments: Mapping[str, Any], verify: float | None) -> None:
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
        if transposed and isinstance(self._matrix, Given):
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
