"""What a compiled program calls on the host: NumPy alone, however many calls are under way."""

import ast
import functools
import threading
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tsgu_jax
from tests.jax.child import run
from tsgu_jax import precond
from tsgu_jax._methods import _loop as _driver
from tsgu_jax._program import _ffi, _host

CALLS, THREADS = 1000, 4
N = 400
"""Unknowns: enough that a call returns before its program has run. A smaller one is run at once, and hides a hang."""


def line(shift=2.5):
    """A symmetric positive definite tridiagonal matrix, in single precision as JAX has it by default."""
    i = np.arange(N)
    row, col = np.concatenate([i, i[1:], i[:-1]]), np.concatenate([i, i[:-1], i[1:]])
    values = np.concatenate([np.full(N, shift), np.full(2 * N - 2, -1.0)]).astype(np.float32)
    return tsgu_jax.SparseMatrix.from_coo(row, col, values, (N, N))


def with_torch(A, b):
    import torch

    from tsgu_jax.interop import torch_solver

    torch.set_num_threads(1)
    return tsgu_jax.solve(A, b, torch_solver(lambda A, B: torch.linalg.solve(A.to_dense(), B)), verify=None)


def triangle(A, b):
    i = np.arange(N)
    return tsgu_jax.triangular_solve(tsgu_jax.SparseMatrix.from_coo(i, i, A.values[:N] * 0, (N, N)), b)


SOLVES = {
    "a report": lambda A, b: tsgu_jax.linear_cg(A, b, maxiter=1),
    "a report of an adjoint": lambda A, b: jax.grad(lambda b: tsgu_jax.minres(A, b, maxiter=1).sum())(b),
    "a report of members": lambda A, b: jax.vmap(lambda b: tsgu_jax.gmres(A, b, maxiter=1))(jnp.stack([b, 2 * b])),
    "a record": lambda A, b: tsgu_jax.linear_cg(A, b),
    "progress": lambda A, b: tsgu_jax.bicgstab(A, b),
    "direct": lambda A, b: tsgu_jax.direct(A, b),
    "ilu": lambda A, b: tsgu_jax.bicgstab(A, b, M=precond.ilu(A)),
    "auto": lambda A, b: tsgu_jax.auto(A, b),
    "triangular": triangle,
    "lsmr": lambda A, b: tsgu_jax.lstsq(A, b, maxiter=1),
    "verify": lambda A, b: tsgu_jax.solve(A, b, lambda A, b: 0 * b),
    "torch_solver": with_torch,
}
"""Each reaches the host in another way, or with another outcome."""


def _surroundings(name):
    """What the caller has to do for it."""
    if name == "progress":
        _driver.EVERY = 1
    return tsgu_jax.record(progress=name == "progress") if name in ("a record", "progress", "auto") else None


def busy(name):
    """Thousands of calls without waiting for any, in one thread and in several. For a process of its own."""
    warnings.simplefilter("ignore")
    A, b = line(), jnp.ones(N, jnp.float32)
    block = _surroundings(name)
    if block is not None:
        block.__enter__()
    solve = jax.jit(lambda values, b: SOLVES[name](A.with_values(values), b))

    def work(calls):
        x = None
        for call in range(calls):
            x = solve(A.values * (1.0 + call % 7), b)
        jax.block_until_ready(x)

    work(CALLS)
    threads = [threading.Thread(target=work, args=(CALLS // THREADS,)) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    jax.effects_barrier()
    if block is not None:
        block.__exit__(None, None, None)
    print("done")


@pytest.mark.parametrize("name", SOLVES)
def test_thousands_of_calls_under_way_come_to_an_end(name):
    """Catches: an operation of JAX in a callback, which waits for the program that waits for it: a loop hangs for
    ever."""
    if name == "torch_solver":
        pytest.importorskip("torch")
    assert run(busy, name).splitlines()[-1] == "done"


@pytest.fixture
def guarded(monkeypatch):
    """Callbacks that are told where they come from, and fail where they are given, or make, an array of JAX."""
    called = []
    of_numpy, named = _host._of_numpy, _ffi._function

    def checked(function):
        def on_host(*args):
            leaves = jax.tree.leaves(args)
            called.append([type(leaf).__name__ for leaf in leaves if not isinstance(leaf, np.ndarray | np.generic)])
            with monkeypatch.context() as patch:
                patch.setattr("jax.extend.core.Primitive.bind", _refused)
                with jax.transfer_guard("disallow_explicit"):
                    return function(*args)

        return on_host

    monkeypatch.setattr(_host, "_of_numpy", lambda function: of_numpy(checked(function)))
    monkeypatch.setattr(_ffi, "_function", lambda text: checked(named(text)))
    jax.clear_caches()  # of programs with callbacks that are not watched
    yield called
    jax.clear_caches()


def _refused(self, *args, **params):
    raise AssertionError(f"{self} was dispatched from a callback")


@pytest.mark.parametrize("name", SOLVES)
def test_a_callback_sees_numpy_arrays_and_dispatches_nothing(guarded, monkeypatch, name):
    """Catches: the comparison of two arrays of JAX, which looks like one of two numbers."""
    if name == "torch_solver":
        pytest.importorskip("torch")
    monkeypatch.setattr(_driver, "EVERY", 1)
    A, b = line(), jnp.ones(N, jnp.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", tsgu_jax.ConvergenceWarning)
        with tsgu_jax.record(progress=name == "progress"):
            jax.block_until_ready(jax.jit(functools.partial(SOLVES[name], A))(b))
            jax.effects_barrier()
    assert guarded
    assert not any(guarded)


def test_every_callback_goes_through_the_files_that_make_it_safe():
    """Catches: a callback that is written beside the one place that makes callbacks safe."""
    root = Path(tsgu_jax.__file__).parent
    makers = {"pure_callback", "io_callback", "callback", "emit_python_callback", "ffi_call", "ffi_lowering"}
    found = {
        path.name
        for path in root.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute | ast.Name) and getattr(node, "attr", getattr(node, "id", "")) in makers
    }
    assert found == {"_host.py", "_ffi.py", "_internals.py"}  # the last one traces one, and makes none
