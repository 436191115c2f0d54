"""``tsgu_jax`` inside lineax: its methods as a solver, its sparse matrices as operators.

Both are for ``lineax.linear_solve``, and so for what is built on it, such as optimistix and diffrax.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.experimental.sparse import BCOO, BCSR

try:
    import equinox as eqx
    import lineax as lx
except ModuleNotFoundError as error:
    if error.name not in ("lineax", "equinox"):
        raise
    raise ImportError('tsgu_jax.lineax needs lineax: pip install "tsgu[lineax]"') from error

from tsgu._core.report import _wording
from tsgu._core.report._failure import policy_of
from tsgu._core.report._status import Status
from tsgu_jax._matrix._sparse_matrix import SparseMatrix
from tsgu_jax._methods._cg import linear_cg
from tsgu_jax._rule._function import trace
from tsgu_jax._rule._method import Method, Reporting

__all__ = ["Solver", "SparseLinearOperator"]


class SparseLinearOperator(lx.AbstractLinearOperator):
    """A sparse matrix as an operator of lineax.

    Parameters
    ----------
    matrix : SparseMatrix, BCOO or BCSR, shape (m, n)
    tags : object or frozenset of objects
        What is known of the matrix, such as ``lineax.positive_semidefinite_tag``. Not checked.

    Raises
    ------
    TypeError
        If the matrix is in another format.
    ValueError
        If it is a batch; use ``jax.vmap``.

    Examples
    --------
    >>> import jax.numpy as jnp, lineax
    >>> from jax.experimental.sparse import BCOO
    >>> from tsgu_jax.lineax import Solver, SparseLinearOperator
    >>> A = SparseLinearOperator(BCOO.fromdense(jnp.array([[4.0, 1.0], [1.0, 3.0]])))
    >>> lineax.linear_solve(A, jnp.array([1.0, 2.0]), Solver()).value.round(4)
    Array([0.0909, 0.6364], dtype=float32)
    """

    matrix: SparseMatrix
    tags: frozenset[object] = eqx.field(static=True)

    def __init__(self, matrix: SparseMatrix | BCOO | BCSR, tags: object | frozenset[object] = ()) -> None:
        if not isinstance(matrix, SparseMatrix | BCOO | BCSR):
            raise TypeError(_wording.not_a("matrix", "a BCOO, a BCSR or a SparseMatrix", matrix))
        self.matrix = matrix if isinstance(matrix, SparseMatrix) else SparseMatrix.from_bcoo(matrix)
        if len(self.matrix.shape) != 2:
            raise ValueError(f"matrix must be one matrix, not a batch; got shape {self.matrix.shape}. Use jax.vmap.")
        self.tags = tags if isinstance(tags, frozenset) else frozenset(tags if isinstance(tags, tuple) else (tags,))

    def mv(self, vector: Array) -> Array:
        return self.matrix @ vector

    def as_matrix(self) -> Array:
        return self.matrix.to_dense()

    def transpose(self) -> SparseLinearOperator:
        return SparseLinearOperator(self.matrix.T, lx.transpose_tags(self.tags))

    def in_structure(self) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(self.matrix.shape[1:], self.matrix.dtype)

    def out_structure(self) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(self.matrix.shape[:1], self.matrix.dtype)


@lx.conj.register(SparseLinearOperator)
def _(operator: SparseLinearOperator) -> SparseLinearOperator:
    return SparseLinearOperator(operator.matrix.with_values(operator.matrix.values.conj()), operator.tags)


@lx.diagonal.register(SparseLinearOperator)
def _(operator: SparseLinearOperator) -> Array:
    return operator.matrix.diagonal()


@lx.linearise.register(SparseLinearOperator)
@lx.materialise.register(SparseLinearOperator)
def _(operator: SparseLinearOperator) -> SparseLinearOperator:
    return operator


_TAGS = {
    lx.is_symmetric: (lx.symmetric_tag, lx.positive_semidefinite_tag, lx.negative_semidefinite_tag, lx.diagonal_tag),
    lx.is_positive_semidefinite: (lx.positive_semidefinite_tag,),
    lx.is_negative_semidefinite: (lx.negative_semidefinite_tag,),
    lx.is_diagonal: (lx.diagonal_tag,),
    lx.is_tridiagonal: (lx.tridiagonal_tag, lx.diagonal_tag),
    lx.is_lower_triangular: (lx.lower_triangular_tag, lx.diagonal_tag),
    lx.is_upper_triangular: (lx.upper_triangular_tag, lx.diagonal_tag),
    lx.has_unit_diagonal: (lx.unit_diagonal_tag,),
}


def _has_one(tags: tuple[object, ...], operator: SparseLinearOperator) -> bool:
    return not operator.tags.isdisjoint(tags)


for _question, _tags in _TAGS.items():
    _question.register(SparseLinearOperator)(partial(_has_one, _tags))


@dataclass(frozen=True)
class _Vectors:
    """Pytrees of one structure as vectors."""

    tree: Any
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[Any, ...]

    @classmethod
    def of(cls, structure: Any) -> _Vectors:
        leaves, tree = jax.tree.flatten(structure)
        return cls(tree, tuple(leaf.shape for leaf in leaves), tuple(np.dtype(leaf.dtype) for leaf in leaves))

    @property
    def like(self) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((sum(map(math.prod, self.shapes)),), jnp.result_type(*self.dtypes))

    def ravel(self, vector: Any) -> Array:
        return jnp.concatenate([leaf.ravel().astype(self.like.dtype) for leaf in jax.tree.leaves(vector)])

    def unravel(self, v: Array) -> Any:
        ends = list(itertools.accumulate(map(math.prod, self.shapes)))
        parts = zip(jnp.split(v, ends[:-1]), self.shapes, self.dtypes, strict=True)
        return jax.tree.unflatten(self.tree, [part.reshape(shape).astype(dtype) for part, shape, dtype in parts])


class _State(eqx.Module):
    """What is prepared for an operator, and which of its forms is meant."""

    prepared: Any
    vectors: _Vectors = eqx.field(static=True)
    transposed: bool = eqx.field(static=True, default=False)
    conjugated: bool = eqx.field(static=True, default=False)


class Solver(lx.AbstractLinearSolver):
    """A method of ``tsgu_jax`` as a solver of lineax, for square nonsingular operators.

    A :class:`SparseLinearOperator` is prepared as by ``method.prepare``: its factors or its transpose serve the adjoint
    too. Any other operator is a function to the Krylov methods, whatever pytree it maps. What a solve misses is told as
    everywhere in ``tsgu_jax``, the adjoint included, and is in ``solution.result`` beside it: with ``throw=True``, the
    default of ``lineax.linear_solve``, it is an error.

    Parameters
    ----------
    method : method of ``tsgu_jax``
        :data:`tsgu_jax.linear_cg` by default.
    on_failure : {"warn", "nan", "ignore"}, optional
        See :func:`tsgu_jax.on_failure`. ``"ignore"`` leaves it to ``solution.result``.
    **kwargs
        Of the method: ``rtol``, ``maxiter``, ``M``. They take the place of lineax's ``options``.

    Raises
    ------
    TypeError
        If the method is none, or not for square systems, or does not have an argument; if it needs the entries of an
        operator that is not sparse; when solving, if ``options`` are given.
    ValueError
        If there is no such policy, or an argument is out of range; when solving, if the operator is not square.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, lineax, tsgu_jax
    >>> from tsgu_jax.lineax import Solver
    >>> A = lineax.FunctionLinearOperator(lambda x: 2 * x, jax.eval_shape(lambda: jnp.ones(3)))
    >>> solution = lineax.linear_solve(A, jnp.ones(3), Solver(tsgu_jax.gmres, rtol=1e-6))
    >>> solution.value.round(4), bool(solution.result == lineax.RESULTS.successful)
    (Array([0.5, 0.5, 0.5], dtype=float32), True)
    """

    method: Method[Any] = eqx.field(static=True)
    policy: str = eqx.field(static=True)
    arguments: dict[str, Any]

    def __init__(self, method: Method[Any] = linear_cg, *, on_failure: str | None = None, **kwargs: Any) -> None:
        if not isinstance(method, Method) or method.rectangular:
            raise TypeError(_wording.not_a("method", "a method of tsgu_jax for square systems", method))
        method.arguments(kwargs)
        self.method, self.policy, self.arguments = method, policy_of(on_failure), kwargs

    def init(self, operator: lx.AbstractLinearOperator, options: dict[str, Any]) -> _State:
        if options:
            raise TypeError(f"options must be empty: give x0, M and tolerances to Solver; got {sorted(options)}.")
        vectors = _Vectors.of(operator.in_structure())
        if vectors != _Vectors.of(operator.out_structure()):
            raise ValueError(_wording.not_square((operator.out_size(), operator.in_size()), "A"))
        if isinstance(operator, SparseLinearOperator):
            return _State(self.method.prepare(operator.matrix, **self.arguments).prepared, vectors)
        function = trace("A", lambda v: vectors.ravel(operator.mv(vectors.unravel(v))), vectors.like)
        configured = self.method.configure(self.arguments, vectors.like.size, vectors.like.dtype, None)
        return _State(configured.prepare(function), vectors)

    def compute(self, state: _State, vector: Any, options: dict[str, Any]) -> tuple[Any, lx.RESULTS, dict[str, Any]]:
        b = state.vectors.ravel(vector)
        b = b.conj() if state.conjugated else b
        reporting = Reporting(self.method.name, state.prepared, None, self.policy)
        prepared = reporting.prepared
        x, outcome = prepared.solve_transpose(b) if state.transposed else prepared.solve(b, None, prepared.atol)
        x = reporting.reported(state.transposed, x, outcome)
        info = outcome.info(x.dtype)
        stats = {"num_steps": info.iterations, "max_steps": None, "status": info.status, "residual": info.residual}
        return state.vectors.unravel(x.conj() if state.conjugated else x), _result(info.status), stats

    def transpose(self, state: _State, options: dict[str, Any]) -> tuple[_State, dict[str, Any]]:
        return _State(state.prepared, state.vectors, not state.transposed, state.conjugated), options

    def conj(self, state: _State, options: dict[str, Any]) -> tuple[_State, dict[str, Any]]:
        return _State(state.prepared, state.vectors, state.transposed, not state.conjugated), options

    def assume_full_rank(self) -> bool:
        return True


_RESULTS = (
    (lx.RESULTS.max_steps_reached, (Status.ITERATION_LIMIT,)),
    (lx.RESULTS.stagnation, (Status.STAGNATION,)),
    (lx.RESULTS.conlim, (Status.ILL_CONDITIONED,)),
    (lx.RESULTS.nonfinite_input, (Status.NON_FINITE, Status.NON_FINITE_MATRIX)),
    (lx.RESULTS.singular, (Status.SINGULAR, Status.NUMERICALLY_SINGULAR, Status.INCOMPATIBLE)),
)


def _result(status: Array) -> Any:
    """The status in lineax's words; a breakdown where it has none."""
    result = lx.RESULTS.where(status <= Status.NOT_VERIFIED, lx.RESULTS.successful, lx.RESULTS.breakdown)
    for of_lineax, ours in _RESULTS:
        result = lx.RESULTS.where(jnp.isin(status, jnp.array(ours, status.dtype)), of_lineax, result)
    return result
