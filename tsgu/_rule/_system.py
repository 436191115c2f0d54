"""A linear system as the gradient rule sees it: a plan, prepared for one matrix at a time."""

from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from tsgu._core.methods._options import default_rtol
from tsgu._core.report import _function_words, _log, _place
from tsgu._matrix import _checks, _internals
from tsgu._matrix._pattern import Pattern
from tsgu._matrix._sparse_matrix import SparseMatrix
from tsgu._rule._blocks import Blocks
from tsgu._rule._foreign import Foreign, Given, Layouts
from tsgu._rule._function import Function
from tsgu._rule._method import Method, Prepared
from tsgu._rule._plan import Plan, Role


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
        self.pattern, self.wanted = pattern, plan.wanted
        self.place = place or _place.caller()
        self._member = member
        self._plan = plan
        self._given = given
        self._known: tuple[Any, _Solves] | None = None
        self._values: Tensor | None = None
        self._blocks: dict[int, Blocks] = {}

    members = 1

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

    def blocks(self, count: int) -> Blocks:
        """The system whose diagonal blocks are those of a batch of values."""
        if count not in self._blocks:
            assert self.pattern is not None
            one = partial(LinearSystem, self._plan, self.pattern)  # not this one, which would be a cycle of references
            self._blocks[count] = Blocks(self._plan, self.pattern, self.place, count, one)
        return self._blocks[count]

    def _prepare(self, values: Tensor | None) -> "_Solves":
        """What is prepared for these values: made in the forward pass, found again in the adjoint."""
        key = None if values is None else (values.data_ptr(), _internals.version(values))
        if self._known is None or self._known[0] != key:
            self._values = values  # kept alive, so that its address is not used again
            self._known = key, _Solves(self._plan, self._matrix(values))
        return self._known[1]

    def _matrix(self, values: Tensor | None) -> Any:
        if values is None or self.pattern is None:
            return Given(self._given)
        return Layouts(SparseMatrix(values, self.pattern), self._given)


class _Solves:
    """Both roles of a plan, prepared for one matrix when they are first needed."""

    def __init__(self, plan: Plan, matrix: Any) -> None:
        self._plan, self._matrix = plan, matrix
        self._forward, self._adjoint = plan.resolved()

    @cached_property
    def forward(self) -> Prepared:
        return self._prepared(self._forward)

    @cached_property
    def adjoint(self) -> Prepared:
        return self.forward if self._adjoint == self._forward else self._prepared(self._adjoint)

    def _prepared(self, role: Role) -> Prepared:
        arguments = {name: value for name, value in self._plan.arguments.items() if name != "x0"}
        if isinstance(role.solver, Method):
            return role.solver.prepared(self._matrix.sparse, **arguments)
        return Foreign(role, self._matrix, arguments, self._plan.verify)
