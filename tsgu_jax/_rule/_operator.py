"""What a method sees of A and M: something to apply to a vector or to columns. Pytrees: their arrays are arguments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental.sparse import BCOO, BCSR
from jax.lax import stop_gradient
from jax.tree_util import Partial, register_dataclass

from tsgu._core import _kinds
from tsgu._core.methods._options import ADJOINT, ASYMMETRY
from tsgu._core.report import _solver_words
from tsgu._core.report._status import CODE
from tsgu_jax import precond
from tsgu_jax._matrix import _checks, _products
from tsgu_jax._matrix._columns import norm, power_of_two, relative_to, unit
from tsgu_jax._matrix._sparse_matrix import SparseMatrix
from tsgu_jax._program._outcome import Outcome
from tsgu_jax._rule._function import Derived, Function, adjoint_deviation, derive
from tsgu_jax._rule._method import PreparedSolver
from tsgu_jax.precond import _base

Apply = Callable[[Array], Array]


@partial(register_dataclass, data_fields=["values", "entries", "unit"], meta_fields=["transposed"])
@dataclass(frozen=True, eq=False)
class MatrixOperator:
    """A stored matrix, or its transpose, which has a layout of its own.

    ``unit`` is what the user's matrix was divided by.
    """

    values: Array
    entries: _products.Entries
    transposed: bool = False
    unit: Any = 1.0

    @classmethod
    def scaled(cls, values: Array, entries: _products.Entries) -> MatrixOperator:
        """The matrix divided by a power of two, so that squares of A r neither overflow nor vanish; that is exact."""
        divisor = unit(values)
        return cls(values / divisor, entries, unit=divisor)

    def products(self) -> tuple[Apply, Apply]:
        """A x, and |A| |x|, which bounds what rounding does to it: of one operand, made here."""
        operand = _products.operand(self.values, self.entries, self.transposed)
        return partial(_products.apply, operand), partial(_products.magnitude, operand)

    @property
    def apply(self) -> Apply:
        return self.products()[0]

    def magnitude(self, x: Array) -> Array:
        """|A| |x|."""
        return self.products()[1](x)

    @property
    def transpose(self) -> MatrixOperator:
        return MatrixOperator(self.values, self.entries, not self.transposed, self.unit)

    @property
    def is_hermitian(self) -> Array:
        """Whether A u = A^H u for one vector u without structure: two products, and no work on the pattern."""
        if self.entries.shape[0] != self.entries.shape[1]:
            return jnp.bool_(False)
        u = jnp.cos(1.0 + jnp.arange(self.entries.shape[0]) ** 2 % 9973).astype(self.values.dtype)
        apply, magnitude = self.products()
        difference = apply(u) - self.transpose.apply(u).conj()
        return jnp.all(jnp.abs(difference) <= ASYMMETRY * jnp.finfo(self.values.dtype).eps * magnitude(u))


@partial(register_dataclass, data_fields=["matrix"], meta_fields=[])
@dataclass(frozen=True, eq=False)
class DenseOperator:
    """A preconditioner given as a dense matrix."""

    matrix: Array

    @property
    def apply(self) -> Apply:
        return lambda v: self.matrix @ v

    @property
    def transpose(self) -> DenseOperator:
        return DenseOperator(self.matrix.T)


@partial(register_dataclass, data_fields=["function"], meta_fields=["hermitian", "likes"])
@dataclass(frozen=True, eq=False)
class CallableOperator:
    """An operator known by its products alone.

    ``function`` is a pytree: a traced one, or the user's own in a Partial. ``likes`` are arrays that it may be given.
    """

    function: Any
    hermitian: bool
    likes: tuple[jax.ShapeDtypeStruct, ...]

    transposed = False
    unit = 1.0  # what its products are like is not known before they are made

    @property
    def apply(self) -> Apply:
        function: Apply = self.function
        return function

    def magnitude(self, x: Array) -> Array:
        """|A x|: all that can be said of |A| |x| from products, and never more than it."""
        return jnp.abs(self.apply(x))

    @cached_property
    def derived(self) -> Derived | str:
        """The transpose that JAX derives, or why it does not."""
        return derive(self.function, *self.likes)

    @cached_property
    def transpose(self) -> TransposedCallable | None:
        """None where it cannot be known. What the user says of the function is taken, and judged by what is derived."""
        given, derived = self._given, self.derived
        truth = None if isinstance(derived, str) else derived.transpose
        if given is not None:
            return TransposedCallable(given, truth, self.apply, "wrong transpose")
        if self.hermitian:
            conjugate: Apply = lambda v: self.apply(v.conj()).conj()  # noqa: E731
            return TransposedCallable(conjugate, truth, self.apply, "not symmetric")
        return None if truth is None else TransposedCallable(truth, truth, self.apply, "")

    @property
    def _given(self) -> Apply | None:
        function = self.function.func if isinstance(self.function, Partial) else self.function
        given: Apply | None = getattr(function, "T", None)
        return given


@dataclass(frozen=True, eq=False)
class TransposedCallable:
    """The transpose of such an operator."""

    apply: Apply
    truth: Apply | None
    """The transpose as JAX derives it; None where it does not."""
    forward: Apply
    fault: str
    """What is wrong where it is not the transpose; empty where it is for certain."""

    transposed = True
    unit = 1.0

    def magnitude(self, x: Array) -> Array:
        return jnp.abs(self.apply(x))

    def judged(self, x: Array, g: Array, outcome: Outcome) -> Outcome:
        """The outcome of a solve of A^T x = g, by its true residual: a solve with another matrix would not know.

        Where the true transpose is not known, one product of two pairs of vectors tells whether this is it.
        """
        if not self.fault:
            return outcome
        eps = float(jnp.finfo(g.dtype).eps)
        target, residual = jnp.asarray(outcome.target), jnp.asarray(outcome.residual)
        if self.truth is None:
            wrong = adjoint_deviation(self.forward, self.apply, g) > jnp.maximum(target, ADJOINT * eps)
            return outcome._replace(code=jnp.where(wrong, CODE[self.fault], outcome.code).astype(outcome.code.dtype))
        scale = power_of_two(g)
        size, image = norm(g / scale), self.truth(x)
        relative = relative_to(norm((g - image) / scale), size)
        rounding = ADJOINT * eps * relative_to(norm((jnp.abs(image) + jnp.abs(g)) / scale), size)
        # By how much the two residuals differ is by how much the two matrices do, on x.
        wrong = relative > residual + jnp.maximum(target, rounding)
        return outcome._replace(
            code=jnp.where(wrong, CODE[self.fault], outcome.code).astype(outcome.code.dtype),
            residual=jnp.where(wrong, relative, residual),
        )


Operator = MatrixOperator | CallableOperator | TransposedCallable
Preconditioner = MatrixOperator | DenseOperator | CallableOperator | _base.Preconditioner


def transposed(M: Any, like: jax.ShapeDtypeStruct) -> Any | str:
    """The transpose of a preconditioner given as a matrix or callable, for vectors like this; or why there is none."""
    if isinstance(M, BCSR):
        return SparseMatrix.from_bcoo(M).T.to_bcsr()
    if hasattr(M, "T"):
        return M.T
    derived = derive(M, like)
    return derived if isinstance(derived, str) else derived.transpose


def refuse_recipe(M: Any) -> None:
    """Refuse a function of ``precond``, or a partial of one, in the place of what it builds."""
    function = M.func if isinstance(M, partial) else M
    recipes = precond.amg, precond.block_jacobi, precond.ilu, precond.jacobi
    if any(function is recipe for recipe in recipes):
        raise TypeError(_solver_words.recipe_in_jax(function.__name__))


def preconditioner(M: Any, n: int, dtype: Any, hermitian: bool) -> Preconditioner | None:
    """M as something to apply; None for the identity.

    Raises
    ------
    TypeError
        If ``M`` is neither a matrix nor a callable.
    ValueError
        If a matrix has the wrong shape.
    """
    if M is None:
        return None
    refuse_recipe(M)
    if isinstance(M, PreparedSolver):
        M = M.preconditioner
    if isinstance(M, _base.Preconditioner):
        return M.fitted(n, dtype)
    if isinstance(M, BCOO | BCSR | SparseMatrix) or _checks.is_array(M):
        if tuple(M.shape) != (n, n):
            raise ValueError(_solver_words.shape_of_m(n, tuple(M.shape)))
        if _checks.is_array(M):
            return DenseOperator(stop_gradient(_checks.as_array("M", M).astype(dtype)))
        sparse = M if isinstance(M, SparseMatrix) else SparseMatrix.from_bcoo(M)
        return MatrixOperator(stop_gradient(sparse.values.astype(dtype)), sparse.pattern.entries)
    if isinstance(M, Function):
        return CallableOperator(M.held, hermitian, (M.like,))
    if callable(M) and not _kinds.prepares(M):
        likes = tuple(jax.ShapeDtypeStruct(shape, dtype) for shape in ((n,), (n, 1)))
        return CallableOperator(Partial(M), hermitian, likes)
    raise TypeError(_solver_words.not_m(M))
