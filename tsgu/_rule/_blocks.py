"""A batch of linear systems on one pattern, as the gradient rule sees it: the diagonal blocks of one system."""

from collections.abc import Callable
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
    plan : Plan
    pattern : Pattern
        Of a member.
    place : Place
        Where the user asked for the solve.
    count : int
        Of members.
    member : callable
        ``member(place=place, member=(index, count))``, the system of one of them.
    """

    def __init__(self, plan: Plan, pattern: Pattern, place: Place, count: int, member: Callable[..., Any]) -> None:
        self.pattern: Pattern | None = pattern._blocks(count)
        self.place, self.wanted, self.members = place, plan.wanted, count
        self._plan, self._of_member, self._count, self._member = plan, pattern, count, member
        self._forward, self._adjoint = plan.resolved()
        self._members: dict[int, Any] = {}
        self._known: dict[Role, tuple[Any, Tensor, Prepared]] = {}
        self._blocks: dict[int, Blocks] = {}

    def blocks(self, count: int) -> "Blocks":
        """A batch of batches: the members are numbered through, the inner ones first."""
        if count not in self._blocks:
            every = count * self._count
            self._blocks[count] = Blocks(self._plan, self._of_member, self.place, every, self._member)
        return self._blocks[count]

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
                self._alone(i).solve(values[i], b[i], starts[i], transposed, primal) for i in range(count)
            )  # one after the other, so that no more than one is in memory twice
            return torch.stack(list(solved)).flatten(0, 1)
        with torch.no_grad(), _internals.forward_mode(False):
            prepared = self._prepared(role, values)
            x = prepared.solve_transpose(b) if transposed else prepared.solve(b)
        return x.flatten(0, 1)

    def _alone(self, index: int) -> Any:
        if index not in self._members:
            self._members[index] = self._member(place=self.place, member=(index, self._count))
        return self._members[index]

    def _prepared(self, role: Role, values: Tensor) -> Prepared:
        """What is prepared for these values: made in the forward pass, found again in the adjoint."""
        key, known = (values.data_ptr(), _internals.version(values)), self._known.get(role)
        if known is None or known[0] != key:
            arguments = {name: value for name, value in self._plan.arguments.items() if name != "x0"}
            prepared = role.solver.prepared_batch(self._of_member, values, arguments)
            self._known[role] = known = key, values, prepared  # the values kept alive, with their address
        return known[2]
