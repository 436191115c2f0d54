"""tsgu behind the words of the contract suite: NumPy in, NumPy out, gradients in torch's convention."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import tsgu
from tests.contract.systems import System

NAME = "torch"
LAYOUTS = ("coo", "csr", "csr32", "values")


def method(name: str | None) -> Any:
    return None if name is None else getattr(tsgu, name)


def foreign(function: Callable[..., np.ndarray]) -> Callable[..., torch.Tensor]:
    """A NumPy function (dense A, b, **kwargs) -> x as a solver from outside the package."""

    def solve(A, B, **kwargs):
        dense = A.to_dense().numpy()
        return torch.from_numpy(np.asarray(function(dense, B.numpy(), **kwargs)))

    return solve


def triangular(**arguments: bool) -> Callable[..., torch.Tensor]:
    """A triangular solve in the place of a general one, whose solvers it has no use for."""
    return lambda A, B, *solvers: tsgu.sparse_triangular_solve(A, B, **arguments)


def batch(dense: np.ndarray, layout: str) -> torch.Tensor:
    """A batch of matrices by their nonzero entries, as sparse tensors of one layout."""
    stack = array(dense)
    return stack.to_sparse_coo() if layout == "coo" else stack.to_sparse_csr()


def batch_gradients(dense, b, w, layout, **arguments):
    """Solution of a triangular solve, and gradients of <w, x> with respect to the stored entries, dense, and to b."""
    A, B = batch(dense, layout).requires_grad_(), array(b).requires_grad_()
    x = tsgu.sparse_triangular_solve(A, B, **arguments)
    grad_a, grad_b = torch.autograd.grad(x, (A, B), array(w))
    assert grad_a.layout == A.layout
    assert grad_a._nnz() == A._nnz()
    return x.detach().numpy(), (grad_a.to_dense().numpy(), grad_b.numpy())


def batch_of_values(system: System, values: np.ndarray, b: np.ndarray, given) -> np.ndarray:
    """A triangular solve with a batch of values on one pattern."""
    row, col = torch.from_numpy(system.row), torch.from_numpy(system.col)
    A = tsgu.SparseMatrix.from_coo(row, col, array(values), (system.n, system.n))
    return tsgu.sparse_triangular_solve(A, array(b), **given.arguments).numpy()


BATCHES = ("coo", "csr")
SingularError = torch.linalg.LinAlgError
SparseMatrix = tsgu.SparseMatrix
precond = tsgu.precond
lstsq = tsgu.sparse_generic_lstsq


FLOAT32, FLOAT64 = torch.float32, torch.float64


def array(x: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.array(x))


def dense_matrix(x: np.ndarray) -> torch.Tensor:
    """A dense matrix as a preconditioner."""
    return array(x)


def preconditioner(name: str, matrix: Any, *args: Any, **kwargs: Any) -> Any:
    return getattr(tsgu.precond, name)(matrix, *args, **kwargs)


def applied(M: Any, v: np.ndarray) -> np.ndarray:
    return M(array(v)).numpy()


class Problem:
    """A system and a right-hand side as differentiable inputs of the package, in one layout and dtype."""

    function = staticmethod(tsgu.sparse_generic_solve)

    def __init__(
        self,
        system: System,
        b: np.ndarray,
        layout: str = "values",
        dtype: Any = None,
        solve: Callable[..., torch.Tensor] | None = None,
    ) -> None:
        if solve is not None:
            self.function = solve
        dtype = np.result_type(system.values, b) if dtype is None else dtype
        self.system = system
        self.layout = layout
        self.b = array(b.astype(dtype)).requires_grad_()
        self.values = array(system.values.astype(dtype))
        if layout in ("values", "function"):
            self.values.requires_grad_()
            self.A = None
        else:
            place = torch.from_numpy(np.stack([system.row, system.col]))
            coo = torch.sparse_coo_tensor(place, self.values, system.shape, check_invariants=False)
            self.A = coo if layout == "coo" else _csr(coo, torch.int32 if layout == "csr32" else torch.int64)
            self.A.requires_grad_()

    def matrix(self, values: torch.Tensor | None = None) -> Any:
        if self.A is not None:
            return self.A
        row, col = torch.from_numpy(self.system.row), torch.from_numpy(self.system.col)
        values = self.values if values is None else values
        if self.layout == "function":
            return lambda v: torch.zeros(self.system.shape, dtype=v.dtype).index_put((row, col), values, True) @ v
        return tsgu.SparseMatrix.from_coo(row, col, values, self.system.shape)

    def detached(self) -> Any:
        return self.matrix().detach()

    def solve(self, solver: Any = None, transpose: Any = None, **kwargs: Any) -> np.ndarray:
        with torch.no_grad():
            return self.function(self.matrix(), self.b, solver, transpose, **kwargs).numpy()

    def told(self, solver: Any = None, transpose: Any = None, **kwargs: Any) -> tuple[np.ndarray, Any]:
        """The solution, and status, steps and residual as arrays."""
        x, info = self.function(self.matrix(), self.b, solver, transpose, return_info=True, **kwargs)
        return x.detach().numpy(), tuple(part.numpy() for part in info)

    def gradients(
        self, w: np.ndarray, solver: Any = None, transpose: Any = None, **kwargs: Any
    ) -> tuple[np.ndarray, np.ndarray]:
        """Gradients of Re <w, x> with respect to each given value, and to b."""
        x = self.function(self.matrix(), self.b, solver, transpose, **kwargs)
        leaf = self.values if self.A is None else self.A
        grad_a, grad_b = torch.autograd.grad(x, (leaf, self.b), array(w).to(x.dtype))
        if self.A is not None:
            assert grad_a.layout == self.A.layout
            if self.layout == "coo":
                assert grad_a.is_coalesced()
            else:
                assert grad_a.col_indices().dtype == self.A.col_indices().dtype
            assert grad_a._nnz() == np.count_nonzero(self.system.stored)
            grad_a = grad_a.to_dense()[self.system.row, self.system.col]
        return grad_a.numpy(), grad_b.numpy()

    def hessian_products(self, w, direction, solver: Any = None, **kwargs: Any) -> tuple[np.ndarray, np.ndarray]:
        """Second derivatives of Re <w, x x> along a direction in (values, b), for the layout "values"."""
        x = self.function(self.matrix(), self.b, solver, **kwargs)
        loss = (array(w).conj() * x * x).sum().real
        leaves = (self.values, self.b)
        grads = torch.autograd.grad(loss, leaves, create_graph=True)
        along = sum((array(d).conj() * g).sum().real for d, g in zip(direction, grads, strict=True))
        second = torch.autograd.grad(along, leaves)
        return second[0].numpy(), second[1].numpy()

    def tangent(self, direction, solver: Any = None, **kwargs: Any) -> np.ndarray:
        """Directional derivative of x in forward mode, for the layout "values"."""

        def function(values, b):
            return self.function(self.matrix(values), b, solver, **kwargs)

        primals = self.values.detach(), self.b.detach()
        return torch.func.jvp(function, primals, tuple(array(d) for d in direction))[1].numpy()

    def batched(self, values: np.ndarray | None, b: np.ndarray | None, solver: Any = None, **kwargs: Any) -> np.ndarray:
        """Solutions for a batch of values, of right-hand sides, or of both, by vmap."""
        fixed = self.values.detach(), self.b.detach()
        args = tuple(f if a is None else array(a) for a, f in zip((values, b), fixed, strict=True))
        dims = tuple(None if a is None else 0 for a in (values, b))
        function = lambda v, c: self.function(self.matrix(v), c, solver, **kwargs)  # noqa: E731
        return torch.func.vmap(function, dims)(*args).numpy()


class LeastSquares(Problem):
    """The same for a rectangular system."""

    function = staticmethod(tsgu.sparse_generic_lstsq)


class Operator:
    """A matrix as a function, which says that another is its transpose."""

    def __init__(self, dense: np.ndarray, transpose: np.ndarray) -> None:
        self.dense, self.transpose = dense, transpose

    def __call__(self, v: torch.Tensor) -> torch.Tensor:
        return array(self.dense) @ v

    @property
    def T(self) -> Callable[[torch.Tensor], torch.Tensor]:  # noqa: N802 - what the packages look for
        return lambda v: array(self.transpose) @ v


def function(dense: np.ndarray) -> Callable[[torch.Tensor], torch.Tensor]:
    """A matrix as a function of torch."""
    return lambda v: array(dense) @ v


def opaque(dense: np.ndarray) -> Callable[[torch.Tensor], torch.Tensor]:
    """A matrix as a function whose inside the framework does not see."""
    return lambda v: torch.from_numpy(dense @ v.numpy())


def adjoint(method: Any, A: Any, b: np.ndarray, w: np.ndarray, **kwargs: Any) -> np.ndarray:
    """Gradient of Re <w, x> with respect to b."""
    leaf = array(b).requires_grad_()
    (g,) = torch.autograd.grad(tsgu.sparse_generic_solve(A, leaf, method, **kwargs), leaf, array(w))
    return g.numpy()


record = tsgu.record
on_failure = tsgu.on_failure


def forget_factors() -> None:
    """There are none beyond a solve and its adjoint."""


triangular_solve = tsgu.sparse_triangular_solve
ConvergenceWarning = tsgu.ConvergenceWarning
WarningAsError = tsgu.ConvergenceWarning
"""What a ConvergenceWarning turned into an error surfaces as."""


def _csr(coo: torch.Tensor, index: torch.dtype) -> torch.Tensor:
    csr = coo.coalesce().to_sparse_csr()
    return torch.sparse_csr_tensor(
        csr.crow_indices().to(index), csr.col_indices().to(index), csr.values(), csr.shape, check_invariants=False
    )
