"""A Krylov method with its arguments, and prepared for one matrix."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ParamSpec

import jax
import jax.numpy as jnp
from jax import Array
from jax.custom_batching import custom_vmap
from jax.tree_util import register_dataclass

from tsgu._core.methods._options import Settings, resolve_options
from tsgu._core.report import _function_words, _solver_words
from tsgu._core.report._log import recording, watched
from tsgu_jax._matrix._columns import power_of_two
from tsgu_jax._methods._loop import Kernel, Limits, Problem, Watch, solve
from tsgu_jax._program import _host
from tsgu_jax._program._outcome import Outcome
from tsgu_jax._program._promotion import as_usual
from tsgu_jax._program._report import Evidence
from tsgu_jax._rule._function import Function
from tsgu_jax._rule._method import Method
from tsgu_jax._rule._operator import (
    Apply,
    CallableOperator,
    MatrixOperator,
    Operator,
    Preconditioner,
    TransposedCallable,
    preconditioner,
)

P = ParamSpec("P")


def krylov_method(
    kernel: Kernel, *, hermitian: bool, settings: type[Settings] | None
) -> Callable[[Callable[P, Array]], Method[P]]:
    """Make a method of a kernel and the public function that documents it."""

    def decorate(function: Callable[P, Array]) -> Method[P]:
        name = function.__name__

        def configure(arguments: Mapping[str, Any], n: int, dtype: Any, matrix: Any) -> _Krylov:
            options = resolve_options(arguments, n, float(jnp.finfo(dtype).eps))
            limits = Limits(options.rtol, min(options.maxiter, 2**31 - 1))
            atol = options.atol or None
            M = preconditioner(arguments.get("M"), n, dtype, hermitian)
            watching = watched() is not None
            return _Krylov(kernel, name, hermitian, options.restart, recording(), watching, limits, atol, M)

        return Method(function, configure, settings=settings, hermitian=hermitian)

    return decorate


@partial(
    register_dataclass,
    data_fields=["limits", "atol", "M"],
    meta_fields=["kernel", "name", "hermitian", "restart", "keep", "watched"],
)
@dataclass(frozen=True, eq=False)
class _Krylov:
    """The arguments of a method, resolved for systems of one size and dtype."""

    kernel: Kernel
    name: str
    hermitian: bool
    restart: int
    keep: bool
    watched: bool
    limits: Limits
    atol: Any
    """None where it is zero."""
    M: Preconditioner | None

    def prepare(self, matrix: Any) -> _KrylovSystem:
        if isinstance(matrix, Function):
            return _KrylovSystem(self, CallableOperator(matrix.held, self.hermitian, (matrix.like,)))
        return _KrylovSystem(self, MatrixOperator.scaled(matrix.values, matrix.pattern.entries))


@partial(register_dataclass, data_fields=["_method", "_operator"], meta_fields=[])
@dataclass(frozen=True, eq=False)
class _KrylovSystem:
    _method: _Krylov
    _operator: Operator

    @property
    def refusal(self) -> str | None:
        for operator, words in (
            (self._operator, _function_words.transpose_of_a),
            (self._method.M, _solver_words.transpose_of_m),
        ):
            if isinstance(operator, CallableOperator) and operator.transpose is None:
                return words(self._method.name, str(operator.derived))
        return None

    @property
    def atol(self) -> Any:
        return self._method.atol

    @property
    def evidence(self) -> Evidence | None:
        operator = self._operator
        if not isinstance(operator, MatrixOperator):
            return None
        entries = operator.entries
        return Evidence(operator.values, entries.row, entries.col, entries.shape, self._method.hermitian)

    def solve(self, B: Array, x0: Array | None, atol: Any = None) -> tuple[Array, Outcome]:
        """X with A X = B."""
        return self._solve(self._operator, self._method.M, B, x0, atol)

    def solve_transpose(self, G: Array) -> tuple[Array, Outcome]:
        """Y with A^T Y = G."""
        if self.refusal is not None:  # what cannot be honoured is not run with something else in its place
            raise TypeError(self.refusal)
        forward: Any = self._operator
        operator = forward.transpose
        M = None if self._method.M is None else self._method.M.transpose
        x, outcome = self._solve(operator, M, G, None, None)
        return x, operator.judged(x, G, outcome) if isinstance(operator, TransposedCallable) else outcome

    def _solve(self, operator: Operator, M: Any, B: Array, x0: Array | None, atol: Any) -> tuple[Array, Outcome]:
        run = _run if _sees_columns(operator, M) else _run_with_batches_as_columns
        found: tuple[Array, Outcome] = run(self._method, operator, M, B, x0, atol)
        return found


def _sees_columns(*operators: Any) -> bool:
    """Whether a function of the user's takes part, which is to see B in the shape that the user gave it."""
    return any(isinstance(operator, CallableOperator | TransposedCallable) for operator in operators)


def _run(method: _Krylov, operator: Operator, M: Any, B: Array, x0: Array | None, atol: Any) -> tuple[Array, Outcome]:
    inverse = _identity if M is None else M.apply
    if M is not None and isinstance(operator, MatrixOperator):
        inverse = _inverse(inverse, operator.unit)
    apply: Apply = operator.apply
    magnitude: Apply = operator.magnitude
    if isinstance(operator, MatrixOperator):
        apply, magnitude = operator.products()
    problem = Problem(apply, inverse, M is not None, method.restart, operator.unit)
    watch: Watch | None = None
    if method.watched:
        tell = partial(_tell, method.name, operator.transposed)

        def watch(steps: Array, left: Array) -> None:
            _host.inform(tell, steps, left, method.limits.rtol, effect=True)

    limits = method.limits if atol is None else method.limits._replace(atol=atol)
    whole = _sees_columns(operator, M)
    result = solve(method.kernel, problem, magnitude, B, x0, limits, method.keep, watch, whole)
    return result.x, Outcome(*result[1:], jnp.asarray(method.limits.rtol))


@custom_vmap
def _run_with_batches_as_columns(*args: Any) -> tuple[Array, Outcome]:
    return _run(*args)


@_run_with_batches_as_columns.def_vmap
@as_usual
def _(size: int, batched: list[Any], *args: Any) -> tuple[tuple[Array, Outcome], Any]:
    """For one matrix a batch of right-hand sides is columns, in groups that stay in cache, each with its own count."""
    *given, B, x0, atol = args
    if any(jax.tree.leaves(batched[:3])):
        in_axes = jax.tree.map(lambda one: 0 if one else None, tuple(batched))
        found = jax.vmap(_run, in_axes=in_axes)(*args)
        return found, jax.tree.map(lambda _: True, found)

    def fold(b: Array, over: bool) -> Array:
        b = b if over else jnp.broadcast_to(b, (size, *b.shape))
        return jnp.moveaxis(b, 0, 1).reshape(b.shape[1], -1)

    columns = (B if batched[3] else B[None]).shape[2:]

    def unfold(a: Array) -> Array:
        """(..., size * k) as (size, ..., k), or without the last."""
        return jnp.moveaxis(a.reshape(*a.shape[:-1], size, *columns), a.ndim - 1, 0)

    start = None if x0 is None else fold(x0, batched[4])
    if batched[5]:  # it came with the right-hand sides, and is the same for all
        atol = atol.min()
    x, outcome = _run_with_batches_as_columns(*given, fold(B, batched[3]), start, atol)
    fields = {name: getattr(outcome, name) for name in ("code", "steps", "residual", "history")}
    outcome = outcome._replace(**jax.tree.map(unfold, fields))
    mapped = jax.tree.map(lambda _: False, outcome)._replace(**jax.tree.map(lambda _: True, fields))
    return (unfold(x), outcome), (True, mapped)


def _tell(method: str, transposed: bool, lead: int, steps: Any, left: Any, target: Any) -> None:
    line = watched()
    if line is not None:
        line.step(method, transposed, int(steps.max()), float(left.max()), float(target.max()))


def _inverse(M: Apply, unit: Any) -> Apply:
    """What approximates the inverse of A, for A divided by a unit: half of it before, so that M v does not vanish."""
    half = power_of_two(jnp.sqrt(unit)[None])
    return lambda v: unit / half * M(half * v)


def _identity(v: Array) -> Array:
    return v
