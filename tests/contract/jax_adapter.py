"""tsgu_jax behind the words of the contract suite: NumPy in, NumPy out, gradients in torch's convention.

JAX's gradient of a real loss with respect to a complex input is the conjugate of torch's.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.sparse import BCOO, BCSR

import tsgu_jax
from tests.contract.systems import System
from tsgu_jax._program import _host

NAME = "jax"
LAYOUTS = ("coo", "csr", "values")


def method(name: str | None) -> Any:
    return None if name is None else getattr(tsgu_jax, name)


def foreign(function: Callable[..., np.ndarray]) -> Callable[..., jax.Array]:
    """A NumPy function (dense A, b, **kwargs) -> x as a solver from outside the package."""

    def solve(A, B, **kwargs):
        dense = A.to_dense() if isinstance(A, tsgu_jax.SparseMatrix) else A.todense()
        given, structure = jax.tree.flatten((dense, B, kwargs))

        def host(*arrays):
            dense, b, kwargs = jax.tree.unflatten(structure, arrays)
            return np.asarray(function(dense, b, **kwargs)).astype(b.dtype)

        m, n = dense.shape
        result = jax.ShapeDtypeStruct((n if B.shape[0] == m else m, *B.shape[1:]), B.dtype)
        return _host.call("foreign", host, result, *given, vmap_method="sequential")

    return solve


def triangular(**arguments: bool) -> Callable[..., jax.Array]:
    """A triangular solve in the place of a general one, whose solvers it has no use for."""
    return lambda A, B, *solvers: tsgu_jax.triangular_solve(A, B, **arguments)


def batch(dense: np.ndarray, layout: str) -> Any:
    """A batch of matrices by their nonzero entries, as sparse arrays of one layout."""
    if layout == "coo":
        return BCOO.fromdense(array(dense))
    return (BCOO if layout == "coo batched" else BCSR).fromdense(array(dense), n_batch=1)


def batch_gradients(dense, b, w, layout, **arguments):
    """Solution of a triangular solve, and gradients of <w, x> with respect to the stored entries, dense, and to b."""
    A = batch(dense, layout)
    leaves, structure = jax.tree.flatten(A)

    def matrix(data):
        return jax.tree.unflatten(structure, [data, *leaves[1:]])

    x, back = jax.vjp(lambda data, b: tsgu_jax.triangular_solve(matrix(data), b, **arguments), A.data, array(b))
    grad_a, grad_b = back(array(w))
    jax.effects_barrier()
    return np.asarray(x), (np.asarray(matrix(grad_a).todense()), np.asarray(grad_b))


def batch_of_values(system: System, values: np.ndarray, b: np.ndarray, given) -> np.ndarray:
    """A triangular solve with a batch of values on one pattern."""
    A = tsgu_jax.SparseMatrix.from_coo(system.row, system.col, array(values), (system.n, system.n))
    return np.asarray(tsgu_jax.triangular_solve(A, array(b), **given.arguments))


BATCHES = ("coo", "coo batched", "csr")
SingularError = np.linalg.LinAlgError
SparseMatrix = tsgu_jax.SparseMatrix
precond = tsgu_jax.precond
lstsq = tsgu_jax.lstsq


FLOAT32, FLOAT64 = jnp.float32, jnp.float64


def array(x: np.ndarray) -> jax.Array:
    return jnp.asarray(np.array(x))


dense_matrix = array
"""A dense matrix as a preconditioner."""


def preconditioner(name: str, matrix: Any, *args: Any, **kwargs: Any) -> Any:
    return getattr(tsgu_jax.precond, name)(matrix, *args, **kwargs)


def applied(M: Any, v: np.ndarray) -> np.ndarray:
    return np.asarray(M(array(v)))


class Problem:
    """A system and a right-hand side as differentiable inputs of the package, in one layout and dtype."""

    function = staticmethod(tsgu_jax.solve)

    def __init__(
        self,
        system: System,
        b: np.ndarray,
        layout: str = "values",
        dtype: Any = None,
        solve: Callable[..., jax.Array] | None = None,
    ) -> None:
        if solve is not None:
            self.function = solve
        dtype = np.result_type(system.values, b) if dtype is None else dtype
        self.system = system
        self.layout = layout
        self.b = array(b.astype(dtype))
        self.values = array(system.values.astype(dtype))
        self._indices = jnp.stack([array(system.row), array(system.col)], axis=1)
        self._indptr = array(np.searchsorted(system.row, np.arange(system.shape[0] + 1)))

    def matrix(self, values: jax.Array | None = None) -> Any:
        values = self.values if values is None else values
        shape = self.system.shape
        if self.layout == "coo":
            return BCOO((values, self._indices), shape=shape)
        if self.layout == "csr":
            return BCSR((values, self._indices[:, 1], self._indptr), shape=shape)
        if self.layout == "function":
            row, col = self.system.row, self.system.col
            return lambda v: jnp.zeros(shape, values.dtype).at[row, col].add(values) @ v
        return tsgu_jax.SparseMatrix.from_coo(self.system.row, self.system.col, values, shape)

    def detached(self) -> Any:
        return self.matrix()

    def _solved(self, values, b, solver, transpose=None, **kwargs):
        return self.function(self.matrix(values), b, solver, transpose, **kwargs)

    def solve(self, solver: Any = None, transpose: Any = None, **kwargs: Any) -> np.ndarray:
        return np.asarray(self._solved(self.values, self.b, solver, transpose, **kwargs))

    def told(self, solver: Any = None, transpose: Any = None, **kwargs: Any) -> tuple[np.ndarray, Any]:
        """The solution, and status, steps and residual as arrays."""
        x, info = self._solved(self.values, self.b, solver, transpose, return_info=True, **kwargs)
        return np.asarray(x), tuple(np.asarray(part) for part in info)

    def gradients(
        self, w: np.ndarray, solver: Any = None, transpose: Any = None, **kwargs: Any
    ) -> tuple[np.ndarray, np.ndarray]:
        """Gradients of Re <w, x> with respect to each given value, and to b."""

        def loss(values, b):
            x = self._solved(values, b, solver, transpose, **kwargs)
            return (array(w).conj().astype(x.dtype) * x).sum().real

        grads = jax.grad(loss, (0, 1))(self.values, self.b)
        jax.effects_barrier()
        return tuple(np.asarray(g).conj() for g in grads)

    def hessian_products(self, w, direction, solver: Any = None, **kwargs: Any) -> tuple[np.ndarray, np.ndarray]:
        """Second derivatives of Re <w, x x> along a direction in (values, b), for the layout "values"."""

        def loss(values, b):
            x = self._solved(values, b, solver, **kwargs)
            return (array(w).conj() * x * x).sum().real

        def along(values, b):
            grads = jax.grad(loss, (0, 1))(values, b)
            return sum((array(d).conj() * g.conj()).sum().real for d, g in zip(direction, grads, strict=True))

        second = jax.grad(along, (0, 1))(self.values, self.b)
        jax.effects_barrier()
        return tuple(np.asarray(g).conj() for g in second)

    def tangent(self, direction, solver: Any = None, **kwargs: Any) -> np.ndarray:
        """Directional derivative of x in forward mode, for the layout "values"."""

        def function(values, b):
            return self._solved(values, b, solver, **kwargs)

        tangents = tuple(array(d) for d in direction)
        return np.asarray(jax.jvp(function, (self.values, self.b), tangents)[1])

    def batched(self, values: np.ndarray | None, b: np.ndarray | None, solver: Any = None, **kwargs: Any) -> np.ndarray:
        """Solutions for a batch of values, of right-hand sides, or of both, by vmap."""
        args = tuple(f if a is None else array(a) for a, f in zip((values, b), (self.values, self.b), strict=True))
        dims = tuple(None if a is None else 0 for a in (values, b))
        return np.asarray(jax.vmap(lambda v, c: self._solved(v, c, solver, **kwargs), dims)(*args))


class LeastSquares(Problem):
    """The same for a rectangular system."""

    function = staticmethod(tsgu_jax.lstsq)


class Operator:
    """A matrix as a function, which says that another is its transpose."""

    def __init__(self, dense: np.ndarray, transpose: np.ndarray) -> None:
        self.dense, self.transpose = dense, transpose

    def __call__(self, v: jax.Array) -> jax.Array:
        return array(self.dense) @ v

    @property
    def T(self) -> Callable[[jax.Array], jax.Array]:  # noqa: N802 - what the packages look for
        return lambda v: array(self.transpose) @ v


def function(dense: np.ndarray) -> Callable[[jax.Array], jax.Array]:
    """A matrix as a function of JAX."""
    return lambda v: array(dense) @ v


def opaque(dense: np.ndarray) -> Callable[[jax.Array], jax.Array]:
    """A matrix as a function whose inside the framework does not see."""
    return lambda v: _host.call("a function of the host", lambda v: dense @ v, v, v, vmap_method="sequential")


def adjoint(method: Any, A: Any, b: np.ndarray, w: np.ndarray, **kwargs: Any) -> np.ndarray:
    """Gradient of Re <w, x> with respect to b."""
    g = jax.grad(lambda b: (array(w).conj() * tsgu_jax.solve(A, b, method, **kwargs)).sum().real)(array(b))
    jax.effects_barrier()
    return np.asarray(g).conj()


record = tsgu_jax.record
on_failure = tsgu_jax.on_failure
forget_factors = tsgu_jax.factor_store.clear
triangular_solve = tsgu_jax.triangular_solve
ConvergenceWarning = tsgu_jax.ConvergenceWarning
WarningAsError = (tsgu_jax.ConvergenceWarning, jax.errors.JaxRuntimeError)
"""What a ConvergenceWarning turned into an error surfaces as: the second from compiled functions and derivatives."""
