"""A linear system as the gradient rule sees it: a plan, prepared for one matrix at a time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.tree_util import register_dataclass

from tsgu._core.report import _function_words
from tsgu._core.report._status import CODE
from tsgu_jax._matrix import _autodiff, _products
from tsgu_jax._matrix._pattern import Pattern
from tsgu_jax._matrix._sparse_matrix import SparseMatrix
from tsgu_jax._program import _report
from tsgu_jax._program._outcome import Info, Member, Outcome
from tsgu_jax._program._report import Evidence
from tsgu_jax._rule import _implicit
from tsgu_jax._rule._function import Derived, Function, derive, deviation
from tsgu_jax._rule._method import Configured, Prepared, Reporting


@partial(
    register_dataclass,
    data_fields=["pattern", "function", "forward", "adjoint", "member"],
    meta_fields=["tried", "policy"],
)
@dataclass(frozen=True, eq=False)
class LinearSystem:
    """A linear system as the gradient rule sees it; see :class:`tsgu_jax._rule._implicit.System`.

    A pytree where the methods are the package's own, so that it can be an argument of a compiled program.
    """

    pattern: Pattern | None
    function: Function | None
    forward: Configured
    adjoint: Configured | None
    """None where the forward serves the adjoint too."""
    tried: bool = False
    """Whether it is tried that the function is linear."""
    member: Member | None = None
    policy: str = "warn"
    """What is done where a solve fails."""

    transposed = False
    members = None

    def of(self, member: Member) -> LinearSystem:
        return replace(self, member=member)

    @property
    def name(self) -> str:
        return self.forward.name

    def differentiated(self, values: Array | None, B: Array, x0: Array | None) -> tuple[Array, Info]:
        return _implicit.solve(self, values, B, x0)

    def primal(self, values: Array | None, B: Array, x0: Array | None) -> tuple[Array, Outcome]:
        prepared = self.prepared(values)
        x, outcome = prepared.solve(B, x0, prepared.atol)
        return _report.masked(self.policy, x, outcome), outcome

    def evidence(self, values: Array | None) -> Evidence | None:
        hermitian = getattr(self.forward, "hermitian", None)
        if values is None or self.pattern is None or hermitian is None:
            return None
        entries = self.pattern.entries
        return Evidence(values, entries.row, entries.col, entries.shape, hermitian)

    @cached_property
    def _derived(self) -> Derived | str:
        assert self.function is not None
        return derive(self.function, self.function.like)

    @property
    def transposable(self) -> bool:
        return self.function is None or not isinstance(self._derived, str)

    def product(self, values: Array | None, x: Array) -> Array:
        if self.function is None:
            assert values is not None
            assert self.pattern is not None
            return _products.entrywise(values, x, self.pattern.entries)
        if isinstance(self._derived, str):
            consts = _autodiff.refusing(_function_words.closed_over(self._derived), self.function.consts)
            return replace(self.function, consts=consts)(x)
        return self._derived.linear(x)

    def prepare(self, values: Array | None) -> Solves:
        forward = Reporting(self.forward.name, self.prepared(values), self.member, self.policy)
        if self.adjoint is None:
            return Solves(forward, forward)
        adjoint = self.adjoint.prepare(self._matrix(values))
        return Solves(forward, Reporting(self.adjoint.name, adjoint, self.member, self.policy))

    def prepared(self, values: Array | None) -> Prepared:
        """Prepared for the forward solve."""
        prepared = self.forward.prepare(self._matrix(values))
        if self.function is None or not self.tried:
            return prepared
        return _Tried(prepared, deviation(self.function.held, self.function.like))

    def _matrix(self, values: Array | None) -> Any:
        if values is None or self.pattern is None:
            return self.function
        return SparseMatrix.tree_unflatten(None, (values, self.pattern))


@dataclass(frozen=True)
class _Tried:
    """A solve with a function, whose result is NaN where that was seen not to be linear."""

    prepared: Prepared
    deviation: Array

    @property
    def refusal(self) -> str | None:
        return self.prepared.refusal

    @property
    def atol(self) -> Any:
        return self.prepared.atol

    @property
    def evidence(self) -> Evidence | None:
        return self.prepared.evidence

    def solve(self, B: Array, x0: Array | None, atol: Any = None) -> tuple[Array, Outcome]:
        x, outcome = self.prepared.solve(B, x0, atol)
        finite = jnp.isfinite(self.deviation)
        linear = self.deviation <= float(jnp.finfo(B.dtype).eps) ** 0.5
        fault = jnp.where(finite, CODE["not linear"], CODE["non-finite matrix"])
        code = jnp.where(linear, outcome.code, fault).astype(outcome.code.dtype)
        return jnp.where(linear, x, jnp.nan), outcome._replace(code=code)

    def solve_transpose(self, G: Array) -> tuple[Array, Outcome]:
        return self.prepared.solve_transpose(G)


@dataclass(frozen=True)
class Solves:
    """Both solves with one matrix, reported."""

    forward: Reporting
    adjoint: Reporting

    @property
    def refusal(self) -> str | None:
        return self.adjoint.refusal

    @property
    def atol(self) -> Any:
        return self.forward.prepared.atol

    def solve(self, b: Array, x0: Array | None, atol: Any) -> tuple[Array, Info]:
        x, outcome = self.forward.prepared.solve(b, x0, atol)
        return self.forward.reported(False, x, outcome), outcome.info(x.dtype)

    def solve_transpose(self, g: Array) -> tuple[Array, Info]:
        y, outcome = self.adjoint.prepared.solve_transpose(g)
        return self.adjoint.reported(True, y, outcome), outcome.info(y.dtype)
