"""A solver of one framework, as a ``solve=`` callable of the other."""

import functools
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import jax
import numpy as np
import torch
from jax import Array
from jax.experimental.sparse import BCOO, BCSR
from torch import Tensor

import tsgu
import tsgu_jax
from tsgu._core import _kinds
from tsgu._core.report import _across, _place, _solver_words, _wording
from tsgu._core.report._log import recording
from tsgu._rule import _method as torch_method
from tsgu._rule._frontend import call as called_alone
from tsgu.precond import Preconditioner as TorchPreconditioner
from tsgu_jax._matrix import _checks
from tsgu_jax._program import _host, _report
from tsgu_jax._program._outcome import Outcome
from tsgu_jax._program._report import Label
from tsgu_jax._rule._method import Configured, Method
from tsgu_jax.interop._convert import coo_tensor, csr_tensor, to_jax, to_torch
from tsgu_jax.precond import Preconditioner as JaxPreconditioner


def jax_solver(f: Callable[..., Any]) -> Callable[..., Any]:
    """A JAX solver for the torch frontend: ``tsgu.sparse_generic_solve(A, B, solve=jax_solver(tsgu_jax.linear_cg))``.

    Also for least squares, as ``lstsq=jax_solver(f)``.

    Parameters
    ----------
    f : callable
        A method of ``tsgu_jax``, whose loop is compiled once for every size and dtype, or any other
        ``f(A, B, **kwargs) -> X`` or ``(X, info)`` that takes a ``BCOO`` or ``BCSR`` (for a SparseMatrix one of
        ``tsgu_jax``) and a JAX array. Compile it by ``jax.jit`` where it is called more than once.

    Returns
    -------
    callable
        A solver for ``solve=`` and ``transpose_solve=``, to be used like the method that it was made of: adjoints,
        preconditioners and reports are the same. ``M`` may be a matrix of torch, or a preconditioner of JAX. Double
        precision is computed in double precision, whether 64-bit types are turned on for the rest of the program or
        not.

    Raises
    ------
    TypeError
        If ``f`` is not callable, or is LSMR, which both packages have; when called, as ``f`` itself.

    Examples
    --------
    >>> import torch, tsgu, tsgu_jax
    >>> from tsgu_jax.interop import jax_solver
    >>> A = torch.tensor([[4.0, 1.0], [1.0, 3.0]], dtype=torch.float64).to_sparse().requires_grad_()
    >>> b = torch.tensor([1.0, 2.0], dtype=torch.float64)
    >>> x = tsgu.sparse_generic_solve(A, b, solve=jax_solver(tsgu_jax.linear_cg), rtol=1e-10)
    >>> x
    tensor([0.0909, 0.6364], dtype=torch.float64, grad_fn=<_SolveBackward>)
    >>> x.sum().backward()
    >>> A.grad.to_dense().round(decimals=4)
    tensor([[-0.0165, -0.1157],
            [-0.0248, -0.1736]], dtype=torch.float64)
    """
    _check(f)
    if not isinstance(f, Method):

        @functools.wraps(f, updated=())
        def solve(A: Any, B: Tensor, **kwargs: Any) -> Tensor:
            with _precision(B.dtype):
                given = {name: _to_jax(value, name, solve.__name__) for name, value in kwargs.items()}
                x = f(to_jax(A), to_jax(B), **given)
                return to_torch(x[0] if isinstance(x, tuple) and x else x, copy=True)

        solve.__name__ = f"jax_solver({_kinds.name_of(f)})"
        return solve

    @functools.wraps(f, updated=())
    def function(A: Any, B: Tensor, **kwargs: Any) -> Tensor:
        return called_alone(method, A, B, **kwargs)

    method: torch_method.Method[Any] = torch_method.Method(
        function, functools.partial(_JaxSystem, f), settings=f.settings, hermitian=f.hermitian
    )
    return method


class _JaxSystem:
    """A method of tsgu_jax, prepared for a matrix of tsgu."""

    def __init__(self, method: Method[Any], A: Any, arguments: Mapping[str, Any]) -> None:
        if not isinstance(A, tsgu.SparseMatrix):
            raise TypeError(_wording.not_a("A", f"a sparse tensor or a SparseMatrix for jax_solver({method.name})", A))
        self._name, self._dtype = method.name, A.dtype
        with _precision(A.dtype):
            self._matrix = to_jax(A)
            solver = f"jax_solver({method.name})"
            given = {name: _to_jax(value, name, solver) for name, value in arguments.items()}
            self._configured = method.configure(given, A.shape[-1], self._matrix.dtype, self._matrix)

    def solve(self, B: Tensor, x0: Tensor | None = None, primal: bool = True) -> Tensor:
        return self._solve(B, x0, transposed=False, primal=primal)

    def solve_transpose(self, G: Tensor) -> Tensor:
        return self._solve(G, None, transposed=True, primal=False)

    def _solve(self, B: Tensor, x0: Tensor | None, *, transposed: bool, primal: bool) -> Tensor:
        began = time.perf_counter()
        with _precision(self._dtype):
            start = None if x0 is None else to_jax(x0)
            x, outcome = jax.block_until_ready(
                _run(self._configured, self._matrix, to_jax(B), start, transposed, primal)
            )
            outcome = jax.device_get(outcome)
            _report.tell(Label(self._name, transposed, recording()), outcome, None, seconds=time.perf_counter() - began)
            return to_torch(x, copy=True)


@functools.partial(jax.jit, static_argnames=("transposed", "primal"))
def _run(
    configured: Configured, matrix: tsgu_jax.SparseMatrix, B: Array, x0: Array | None, transposed: bool, primal: bool
) -> tuple[Array, Outcome]:
    prepared = configured.prepare(matrix)
    return prepared.solve_transpose(B) if transposed else prepared.solve(B, x0, prepared.atol if primal else None)


def torch_solver(f: Callable[..., Any]) -> Callable[..., Any]:
    """A torch solver for the JAX backend: ``tsgu_jax.solve(A, B, solve=torch_solver(f))``, also under ``jit``.

    Also for least squares, as ``lstsq=torch_solver(f)``.

    Compiled programs call it back on the host, with copies: torch may write to what it is given.

    Parameters
    ----------
    f : callable
        A method of ``tsgu``, or any other ``f(A, B, **kwargs) -> X`` or ``(X, info)`` that takes a sparse COO or CSR
        tensor (for a SparseMatrix one of ``tsgu``) and a dense tensor. It runs without a graph.

    Returns
    -------
    callable
        A solver for ``solve=`` and ``transpose_solve=``, under ``jit``, ``grad`` and ``vmap`` (member by member).
        Arrays among the keyword arguments reach ``f`` as tensors, and anything else as it is.

    Raises
    ------
    TypeError
        If ``f`` is not callable, or is LSMR; if it returns something else than a tensor; when called, as ``f`` itself;
        for ``atol`` with a method of ``tsgu``, which could not be kept from the solves that derivatives take. What
        ``f`` raises surfaces from compiled functions as a ``JaxRuntimeError`` with the same text.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, torch, tsgu_jax
    >>> from jax.experimental.sparse import BCOO
    >>> from tsgu_jax.interop import torch_solver
    >>> A = BCOO.fromdense(jnp.array([[2.0, 1.0], [0.0, 4.0]]))
    >>> solver = torch_solver(lambda A, B: torch.linalg.solve(A.to_dense(), B))
    >>> jax.jit(lambda b: tsgu_jax.solve(A, b, solve=solver))(jnp.array([4.0, 8.0]))
    Array([1., 2.], dtype=float32)
    """
    _check(f)
    name = f"torch_solver({_kinds.name_of(f)})"

    def solve(A: Any, B: Array, **kwargs: Any) -> Array:
        if any(isinstance(x, Tensor | tsgu.SparseMatrix) for x in (A, B)):
            got = f"{type(A).__name__} and {type(B).__name__} of torch"
            raise TypeError(_across.solver_in_the_wrong_place(name, "JAX", got))
        if isinstance(f, torch_method.Method) and f.arguments(kwargs).get("atol"):
            raise TypeError(_solver_words.atol_across(name, f.name))
        result = jax.ShapeDtypeStruct((A.shape[1], *B.shape[1:]), B.dtype)
        dtype = np.dtype(B.dtype)
        leaves, structure = jax.tree.flatten((_entries(A), B, {k: _to_host(v, k, name) for k, v in kwargs.items()}))
        places = [place for place, leaf in enumerate(leaves) if _checks.is_array(leaf)]
        line = _place.caller()
        others = [None if _checks.is_array(leaf) else leaf for leaf in leaves]  # arrays come with the call

        def on_host(*arrays: Any) -> np.ndarray[Any, Any]:
            filled = list(others)
            for place, array in zip(places, arrays, strict=True):
                filled[place] = np.array(array)
            given, b, arguments = jax.tree.map(_filled, jax.tree.unflatten(structure, filled), is_leaf=_is_stored)
            with torch.no_grad(), _place.on_behalf_of(line):
                x = f(given, b, **arguments)
            x = x[0] if isinstance(x, tuple) and x else x
            if not isinstance(x, Tensor):
                raise TypeError(_solver_words.result(name, f"a tensor of shape {result.shape}", type(x).__name__))
            return x.detach().resolve_conj().resolve_neg().cpu().numpy().astype(dtype)

        x: Array = _host.call(
            name,
            on_host,
            result,
            *(leaves[place] for place in places),
            vmap_method="sequential",
        )
        return x

    solve.__name__ = name
    return solve


class _Stored:
    """A sparse matrix on its way to the host: its arrays, and how a torch matrix is made of them."""

    def __init__(self, make: Callable[..., Any], arrays: tuple[Any, ...], shape: tuple[int, ...]) -> None:
        self.make, self.arrays, self.shape = make, arrays, shape


jax.tree_util.register_pytree_node(
    _Stored, lambda s: (s.arrays, (s.make, s.shape)), lambda aux, arrays: _Stored(aux[0], tuple(arrays), aux[1])
)


def _entries(x: Any) -> Any:
    """A sparse matrix by its arrays alone; anything else as it is."""
    if isinstance(x, tsgu_jax.SparseMatrix):
        return _Stored(_matrix, (x.values, x.pattern.row, x.pattern.col), x.pattern.shape)
    if isinstance(x, BCOO):
        return _Stored(_coo, (x.data, x.indices), x.shape)
    if isinstance(x, BCSR):
        return _Stored(_csr, (x.data, x.indices, x.indptr), x.shape)
    return x


def _is_stored(x: Any) -> bool:
    return isinstance(x, _Stored)


def _filled(x: Any) -> Any:
    """What came to the host, for torch; the arrays are copies, and its own to write to."""
    if isinstance(x, _Stored):
        return x.make(*x.arrays, x.shape)
    return torch.from_numpy(x) if isinstance(x, np.ndarray) else x


def _matrix(values: Any, row: Any, col: Any, shape: tuple[int, int]) -> tsgu.SparseMatrix:
    counts = (row < shape[0]) & (col < shape[1])
    values, row, col = (torch.from_numpy(a if counts.all() else a[counts]) for a in (values, row, col))
    return tsgu.SparseMatrix.from_coo(row, col, values, shape)


def _coo(data: Any, indices: Any, shape: tuple[int, int]) -> Tensor:
    return coo_tensor(torch.from_numpy(data), indices, shape, canonical=False)


def _csr(data: Any, indices: Any, indptr: Any, shape: tuple[int, int]) -> Tensor:
    return csr_tensor(torch.from_numpy(data), torch.from_numpy(indices), torch.from_numpy(indptr), shape)


def _precision(dtype: torch.dtype) -> AbstractContextManager[Any]:
    """64-bit types of JAX, in this thread and for these lines, where the numbers need them."""
    return jax.enable_x64(True) if dtype in (torch.float64, torch.complex128) else nullcontext()


def _to_jax(value: Any, name: str, solver: str) -> Any:
    """An argument of a JAX solver: matrices and vectors converted, anything else as it is."""
    if isinstance(value, TorchPreconditioner | torch_method.PreparedSolver):
        raise TypeError(_across.of_the_other_framework(name, solver, "JAX", "torch", value))
    return to_jax(value) if isinstance(value, Tensor | tsgu.SparseMatrix) else value


def _to_host(value: Any, name: str, solver: str) -> Any:
    """An argument of a torch solver, on its way to the host."""
    if isinstance(value, JaxPreconditioner):
        raise TypeError(_across.of_the_other_framework(name, solver, "torch", "JAX", value))
    return _entries(value)


def _check(f: Any) -> None:
    if not callable(f):
        raise TypeError(_wording.not_a("f", "a callable (A, B, **kwargs) -> X", f))
    if getattr(f, "rectangular", False):
        raise TypeError("f must be a method for square systems; got lsmr, which both packages have: use it directly.")
