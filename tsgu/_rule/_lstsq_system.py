"""How a least-squares problem and its adjoint are to be solved: the user's callables, resolved to two solves."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor

from tsgu._core import _kinds
from tsgu._core.methods._options import default_rtol
from tsgu._core.report import _log, _place, _solver_words, _status
from tsgu._matrix import _checks, _internals, _products
from tsgu._matrix._pattern import Pattern
from tsgu._matrix._sparse_matrix import SparseMatrix
from tsgu._rule._foreign import Layouts
from tsgu._rule._implicit_lstsq import Pair
from tsgu._rule._method import Method
from tsgu._rule._outcome import Wanted
from tsgu._rule._plan import Solver, check_solver


class PreparedLeastSquares(Protocol):
    """A method prepared for one matrix."""

    @property
    def rows(self) -> int:
        """Equations: m, or m + n where x is damped."""

    def least_squares(self, B: Tensor, x0: Tensor | None) -> Pair:
        """X that minimises ||A X - B||, and B - A X."""

    def minimum_norm(self, C: Tensor) -> Tensor:
        """Y with A^H Y = C."""


@dataclass(frozen=True)
class LeastSquaresPlan:
    """The callables and their arguments, as the user gave them.

    ``lstsq`` is applied to A, and to A^T in the adjoint where no ``transpose_lstsq`` is given. A foreign
    ``transpose_lstsq(A, G)`` receives A and solves A^T Y = G. ``x0`` serves the forward solve alone.
    """

    lstsq: Solver
    transpose_lstsq: Solver | None
    arguments: Mapping[str, Any]
    verify: float | None
    wanted: Wanted

    @property
    def is_damped(self) -> bool:
        return bool(self.arguments.get("damp"))

    def check(self) -> None:
        """Refuse, before anything is computed, what cannot be honoured in the forward or in the adjoint."""
        damped = self.is_damped
        for name, solver in (("lstsq", self.lstsq), ("transpose_lstsq", self.transpose_lstsq)):
            check_solver(name, solver, prepares=False)
            if isinstance(solver, Method):
                if not solver.rectangular:
                    raise TypeError(_solver_words.not_for_rectangular(name, solver.name))
                solver.arguments(self.arguments)
            elif solver is not None and damped:
                raise TypeError(_solver_words.damp_of_another(_kinds.name_of(solver)))
        _checks.check_verify(self.verify)


class LeastSquaresSystem:
    """A least-squares problem as the gradient rule sees it; see :class:`tsgu._rule._implicit_lstsq.System`."""

    def __init__(
        self,
        plan: LeastSquaresPlan,
        pattern: Pattern,
        given: Tensor | None = None,
        place: _place.Place | None = None,
        member: tuple[int, int] | None = None,
    ) -> None:
        self.pattern, self.wanted = pattern, plan.wanted
        self.place = place or _place.caller()
        self._member = member
        self._plan = plan
        self._given = given
        self._known: tuple[Any, _Solves] | None = None
        self._values: Tensor | None = None
        self._members: dict[int, LeastSquaresSystem] = {}

    def solve(self, values: Tensor, b: Tensor | None, c: Tensor | None, x0: Tensor | None, primal: bool) -> Pair:
        """By r1 with A^H r1 = c, and x that minimises ||A x - (b - r1)||: then A^H (b - A x) = c.

        Any r1 would do; the smallest loses the fewest digits. With damping all of it is said of [A; damp I] and [b; 0].
        """
        if primal:
            for name, tensor in (("A", values), ("B", b), ("x0", x0)):
                if tensor is not None:
                    _checks.check_finite(name, tensor)
        solves = self._prepare(values)
        with torch.no_grad(), _log.of_member(self._member):
            shift = None if c is None else solves.adjoint.minimum_norm(c.contiguous())
            side = _extended(b, solves.forward.rows)
            if shift is not None:
                side = -shift if side is None else side - shift
            assert side is not None
            x, r = solves.forward.least_squares(side.contiguous(), x0)
            r = r if shift is None else r + shift
        return r[: self.pattern.shape[0]], x

    def member(self, index: int, count: int) -> "LeastSquaresSystem":
        if index not in self._members:
            member = _log.member_of(self._member, index, count)
            self._members[index] = LeastSquaresSystem(self._plan, self.pattern, place=self.place, member=member)
        return self._members[index]

    def _prepare(self, values: Tensor) -> "_Solves":
        """What is prepared for these values: made in the forward pass, found again in the adjoint."""
        key = values.data_ptr(), _internals.version(values)
        if self._known is None or self._known[0] != key:
            self._values = values  # kept alive, so that its address is not used again
            self._known = key, _Solves(self._plan, Layouts(SparseMatrix(values, self.pattern), self._given))
        return self._known[1]


def _extended(b: Tensor | None, rows: int) -> Tensor | None:
    """[b; 0], with this many rows."""
    if b is None or b.shape[0] == rows:
        return b
    return torch.cat([b, b.new_zeros(rows - b.shape[0], *b.shape[1:])])


class _Solves:
    """Both roles of a plan, prepared for one matrix when they are first needed."""

    def __init__(self, plan: LeastSquaresPlan, matrix: Layouts) -> None:
        self._plan, self._matrix = plan, matrix

    @cached_property
    def forward(self) -> PreparedLeastSquares:
        return self._prepared(self._plan.lstsq, of_transpose=False)

    @cached_property
    def adjoint(self) -> PreparedLeastSquares:
        other = self._plan.transpose_lstsq
        if other is None or (other is self._plan.lstsq and isinstance(other, Method)):
            return self.forward
        return self._prepared(other, of_transpose=True)

    def _prepared(self, solver: Any, of_transpose: bool) -> PreparedLeastSquares:
        arguments = {name: value for name, value in self._plan.arguments.items() if name != "x0"}
        if isinstance(solver, Method):
            prepared: Any = solver.prepared(self._matrix.sparse, **arguments)
            return prepared
        return _Foreign(solver, of_transpose, self._matrix, arguments, self._plan.verify)


class _Foreign:
    """A callable from outside the package: given A as the user has it, and its result checked by two products."""

    def __init__(
        self, solver: Any, of_transpose: bool, matrix: Layouts, arguments: Mapping[str, Any], verify: float | None
    ) -> None:
        self._solver, self._name, self._of_transpose = solver, _kinds.name_of(solver), of_transpose
        self._matrix, self._arguments, self._verify = matrix, arguments, verify
        self.rows = matrix.sparse.shape[0]

    def least_squares(self, B: Tensor, x0: Tensor | None) -> Pair:
        arguments = dict(self._arguments) if x0 is None else {**self._arguments, "x0": x0}
        began = time.perf_counter()
        x = self._solver(self._matrix.given, B, **arguments)
        x = _checks.solution(self._name, x, B, (self._matrix.sparse.shape[1], *B.shape[1:]))
        r = B - self._product(x)
        self._report(B, r, began, transposed=False)
        return x, r

    def minimum_norm(self, C: Tensor) -> Tensor:
        """By A^T conj(Y) = conj(C), which is what a callable is asked for."""
        G = torch.conj_physical(C)
        began = time.perf_counter()
        matrix = self._matrix.given if self._of_transpose else self._matrix.transpose
        y = self._solver(matrix, G, **self._arguments)
        y = torch.conj_physical(_checks.solution(self._name, y, G, (self.rows, *C.shape[1:])))
        if self._verify is None:
            self._report(C, C, began, transposed=True)
        else:
            self._report(C, C - self._adjoint_product(y), began, transposed=True)
        return y

    def _product(self, x: Tensor) -> Tensor:
        return _products.csr_product(_products.csr(self._matrix.sparse.values, self._matrix.sparse.pattern), x)

    def _adjoint_product(self, u: Tensor) -> Tensor:
        transpose = self._matrix.sparse_transpose
        return _products.csr_product(_products.csr(torch.conj_physical(transpose.values), transpose.pattern), u)

    def _report(self, b: Tensor, r: Tensor, began: float, transposed: bool) -> None:
        if self._verify is None:
            columns = [_status.ColumnInfo("not verified", None, None)] * (1 if b.dim() == 1 else b.shape[1])
        else:
            columns = self._columns(b, r, transposed)
        _log.report(_status.summarize(self._name, transposed, columns, time.perf_counter() - began), self._verify)

    def _columns(self, b: Tensor, r: Tensor, transposed: bool) -> list[_status.ColumnInfo]:
        """The measure of :mod:`tsgu._core.methods._least_squares` for each column, with norms that cannot overflow."""
        assert self._verify is not None
        values = self._matrix.sparse.values
        top = values.abs().max()
        top = torch.where(top > 0, top, 1.0)
        norm = torch.linalg.vector_norm(values / top).item()
        b, r = (t.unsqueeze(1) if t.dim() == 1 else t for t in (b, r))
        sizes: list[float] = []
        left: list[float] = []
        for part, out in ((b, sizes), (r, left)):
            scale = part.abs().amax(0)
            scale = torch.where(scale > 0, scale, 1.0)
            out += (torch.linalg.vector_norm(part / scale, dim=0).double() * scale).tolist()
        scale = r.abs().amax(0)
        unit = r / torch.where(scale > 0, scale, 1.0)
        g = self._product(unit) if transposed else self._adjoint_product(unit)
        sides = zip(*(torch.linalg.vector_norm(t, dim=0).tolist() for t in (g / top, unit)), strict=True)
        optimal = [norm_g / (norm * norm_r) if norm * norm_r else 0.0 for norm_g, norm_r in sides]
        eps = torch.finfo(values.dtype).eps
        columns = []
        for size, rest, optimality in zip(sizes, left, optimal, strict=True):
            relative = rest / size if size else (0.0 if rest == 0 else float("inf"))
            measure = relative if transposed else min(relative, optimality)
            status = "converged"
            if not size < float("inf"):
                status = "non-finite"
            elif not measure <= self._verify:
                lost = transposed and optimality <= max(default_rtol(eps), 1e-6)
                status = "rank deficient" if lost else "residual above verify"
            columns.append(_status.ColumnInfo(status, None, measure))
        return columns
