"""A batch of linear systems on one pattern, as the gradient rule sees it: the diagonal blocks of one system."""

from typing import Any

import torch
from torch import Tensor

from tsgu._core.report._place import Place
from tsgu._matrix import _checks, _internals
from tsgu._matrix._pattern import Pattern
from tsgu._rule._method import Method, Prepared
from tsgu._rule._plan import Plan, Role


class Blocks:
    """See :class:`tsgu._rule._implicit.System`. Values are those of the members one after the other.

    Parameters
    ----------
    one : LinearSystem
        For any values on the pattern of a member.
    plan : Plan
        Of it.
    count : int
        Of members.
    """

    def __init__(self, one: Any, plan: Plan, count: int) -> None:
        self.pattern: Pattern | None = one.pattern._blocks(count)
        self.place: Place = one.place
        self._one, self._plan, self._count = one, plan, count
        self._forward, self._adjoint = plan.resolved()
        self._members: dict[int, Any] = {}
        self._known: dict[Role, tuple[Any, Tensor, Prepared]] = {}

    def blocks(self, count: int) -> "Blocks":
        """A batch of batches: the members are numbered through, the inner ones first."""
        found: Blocks = self._one.blocks(count * self._count)
        return found

    def solve(self, values: Tensor | None, b: Tensor, x0: Tensor | None, transposed: bool, primal: bool) -> Tensor:
        assert values is not None
        role, count = self._adjoint if transposed else self._forward, self._count
        values, b = values.reshape(count, -1), b.contiguous().unflatten(0, (count, -1))
        if primal:
            for name, tensor in (("A", values), ("B", b)):
                _checks.check_finite_members(name, tensor)
        if not isinstance(role.solver, Method) or role.solver.prepare_batch is None:
            starts = [None] * count if x0 is None else x0.unflatten(0, (count, -1))
            solved = (
                self._member(i).solve(values[i], b[i], starts[i], transposed, primal) for i in range(count)
            )  # one after the other, so that no more than one is in memory twice
            return torch.stack(list(solved)).flatten(0, 1)
        with torch.no_grad(), _internals.forward_mode(False):
            prepared = self._prepared(role, values)
            x = prepared.solve_transpose(b) if transposed else prepared.solve(b)
        return x.flatten(0, 1)

    def _member(self, index: int) -> Any:
        if index not in self._members:
            self._members[index] = self._one.member(index, self._count)
        return self._members[index]

    def _prepared(self, role: Role, values: Tensor) -> Prepared:
        """What is prepared for these values: made in the forward pass, found again in the adjoint."""
        key, known = (values.data_ptr(), _internals.version(values)), self._known.get(role)
        if known is None or known[0] != key:
            arguments = {name: value for name, value in self._plan.arguments.items() if name != "x0"}
            prepared = role.solver.prepared_batch(self._one.pattern, values, arguments)
            self._known[role] = known = key, values, prepared  # the values kept alive, with their address
        return known[2]
