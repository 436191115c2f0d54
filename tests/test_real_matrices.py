"""Real matrices from the SuiteSparse collection: solved, differentiated, and honestly reported where a method fails."""

from contextlib import nullcontext
from importlib import import_module

import numpy as np
import pytest
import scipy.io
import scipy.sparse as sp
import torch

import tsgu
from tests.contract import truth
from tests.contract.compare import assert_close, tolerance
from tests.contract.systems import ITERATIVE, System
from tests.contract.torch_adapter import Problem
from tsgu._core.methods import _registry


@pytest.fixture
def load(real_matrix):
    def load(name):
        A = sp.coo_array(scipy.io.mmread(real_matrix(name)))
        m, n = A.shape
        rows, columns = (index.astype(np.int64) for index in A.coords)
        return System(name, rows, columns, A.data.astype(float) if m != n else A.data, n, m=m if m != n else None)

    return load


def sides(system, scale=1.0):
    rng = np.random.default_rng(0)
    b, w = rng.standard_normal((2, system.n))
    if system.complex:
        b, w = b + 1j * rng.standard_normal(system.n), w + 1j * rng.standard_normal(system.n)
    return b * scale, w


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("bcsstk01.mtx", "direct"),
        ("bcsstk01.mtx", "linear_cg"),
        ("bcsstk01.mtx", "minres"),
        ("west0067.mtx", "direct"),
        ("young1c.mtx", "direct"),
        ("young1c.mtx", "gmres"),
        ("olm1000.mtx", "direct"),
    ],
)
def test_solution_and_both_gradients_equal_the_dense_ones(load, name, method):
    """Catches: duplicates that are lost (west0067), entries of 1e9 (bcsstk01), complex symmetry taken for Hermitian
    (young1c)."""
    system = load(name)
    b, w = sides(system)
    options = {"rtol": 1e-11, "maxiter": 100 * system.n} if _registry.method(method).iterative else {}
    with tsgu.record() as log:
        problem = Problem(system, b, "coo")
        x = problem.solve(getattr(tsgu, method), **options)
        grads = problem.gradients(w, getattr(tsgu, method), **options)
    assert [info.transposed for info in log] == [False, False, True]
    assert all(info.converged for info in log), log
    tol = tolerance(system.condition, np.float64, 1e-11, order=2)
    assert_close(x, truth.solution(system, b), tol, "x")
    for got, expected, what in zip(grads, truth.gradients(system, b, w), ("values", "b"), strict=True):
        assert_close(got, expected, tol, f"gradient of {what}")


def test_duplicate_entries_receive_the_gradient_of_their_sum(load):
    """Catches: repeats that are lost: west0067 stores five positions twice."""
    system = load("west0067.mtx")
    assert system.row.size - np.count_nonzero(system.stored) == 5
    b, w = sides(system)
    got, _ = Problem(system, b, "values").gradients(w, tsgu.direct)
    keys = system.row * system.n + system.col
    _, inverse, counts = np.unique(keys, return_inverse=True, return_counts=True)
    for key in np.flatnonzero(counts == 2):
        one, two = got[inverse == key]
        assert one == two


@pytest.mark.parametrize("method", ITERATIVE)
def test_a_matrix_too_hard_is_reported_with_its_true_residual(load, method):
    """Catches: a solve that pretends, or runs for ever, as of olm1000 without a preconditioner."""
    system = load("olm1000.mtx")
    b, _ = sides(system)
    with tsgu.record() as log, pytest.warns(tsgu.ConvergenceWarning):
        x = Problem(system, b, "csr").solve(getattr(tsgu, method))
    assert not log[0].converged
    assert log[0].iterations <= 10 * system.n
    true = np.linalg.norm(b - sp.csr_array((system.values, (system.row, system.col))) @ x) / np.linalg.norm(b)
    assert_close(log[0].residual, true, 1e-6, "residual")


def test_single_precision_on_a_stiff_matrix_ends_honestly(load):
    """Catches: condition number 8.8e5 in single precision: converged by decree, or an endless loop."""
    system = load("bcsstk01.mtx")
    b, _ = sides(system)
    A = Problem(system, b, "csr", np.float32).matrix().detach()
    with tsgu.record() as log:
        tsgu.direct(A, torch.from_numpy(b).float())
    assert log[0].status in ("converged", "accuracy limit")


def test_matrices_of_pyamg_are_solved_by_the_methods_meant_for_them():
    """Catches: a rule that holds for drawn matrices alone: these come from finite elements and convection."""
    gallery = pytest.importorskip("pyamg.gallery", reason="needs pyamg")
    rng = np.random.default_rng(0)
    symmetric = (tsgu.linear_cg, tsgu.minres, tsgu.direct)
    for name, methods in {
        "airfoil": symmetric,
        "bar": symmetric,
        "knot": symmetric,
        "unit_cube": symmetric,
        "local_disc_galerkin_diffusion": symmetric,
        "recirc_flow": (tsgu.direct, tsgu.gmres),
        "helmholtz_2D": (tsgu.direct,),
    }.items():
        A = sp.csr_array(gallery.load_example(name)["A"])
        b = rng.standard_normal(A.shape[0]).astype(A.dtype)
        matrix = torch.sparse_csr_tensor(*map(torch.from_numpy, (A.indptr, A.indices, A.data)), A.shape)
        truth_known = A.shape[0] < 1000  # a dense solution and condition number
        if truth_known:
            expected, condition = np.linalg.solve(A.toarray(), b), np.linalg.cond(A.toarray())
        for method in methods:
            x = method(matrix, torch.from_numpy(b)).numpy()
            assert np.linalg.norm(b - A @ x) <= 1.1e-8 * np.linalg.norm(b), (name, method)
            if truth_known:
                error = np.linalg.norm(x - expected)
                assert error <= 2e-8 * condition * np.linalg.norm(expected), (name, method)


@pytest.mark.parametrize("package", ["torch", "jax"])
def test_a_survey_is_adjusted_and_differentiated(load, package):
    """Catches: a rule that holds for drawn matrices alone: ash219 is a pattern of ones from a geodetic survey."""
    pytest.importorskip(package)
    system = load("ash219.mtx")
    assert system.shape == (219, 85)
    rng = np.random.default_rng(0)
    b, w = rng.standard_normal(219), rng.standard_normal(85)
    with import_module(f"{package}").enable_x64(True) if package == "jax" else nullcontext():
        adapter = import_module(f"tests.contract.{package}_adapter")
        problem = adapter.LeastSquares(system, b, "coo")
        with adapter.record() as log:
            if package == "torch":
                x = problem.solve(atol=1e-12, btol=1e-12)
            grads = problem.gradients(w, atol=1e-12, btol=1e-12)
    assert {info.transposed for info in log} == {False, True}
    assert all(info.converged for info in log), log
    tol = tolerance(np.linalg.cond(system.dense) ** 2, np.float64, 1e-12, order=2)
    if package == "torch":
        assert_close(x, truth.solution(system, b), tol, "x")
    for got, expected, what in zip(grads, truth.gradients(system, b, w), ("values", "b"), strict=True):
        assert_close(got, expected, tol, f"gradient of {what}")


def test_a_pure_neumann_problem_is_called_singular():
    """Catches: the finite-element Laplacian "unit_square" of pyamg: constants are in its null space, up to rounding."""
    gallery = pytest.importorskip("pyamg.gallery", reason="needs pyamg")
    A = sp.csr_array(gallery.load_example("unit_square")["A"])
    matrix = torch.sparse_csr_tensor(*map(torch.from_numpy, (A.indptr, A.indices, A.data)), A.shape)
    b = torch.ones(A.shape[0], dtype=torch.float64)
    with pytest.raises(
        torch.linalg.LinAlgError, match="A z = 0, to working precision, for a z that is one number in all"
    ):
        tsgu.direct(matrix, b)
    for method in (tsgu.linear_cg, tsgu.minres):
        with pytest.warns(tsgu.ConvergenceWarning):
            method(matrix, b)
