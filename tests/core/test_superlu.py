"""The factorisation: orderings, the way back from a bad one, scales, several columns."""

import gc
import weakref

import numpy as np
import pytest
import scipy.sparse as sp
import scipy.sparse.linalg

from tsgu._core.factors import _superlu
from tsgu._core.factors._factorisation import Factorisation
from tsgu._core.pattern import _symbolic


def factored(A):
    A = sp.csr_array(A)
    return Factorisation(_symbolic.from_csr(A.indptr, A.indices, A.shape), A.data, "superlu")


@pytest.fixture
def calls(monkeypatch):
    """The options of each factorisation made."""
    made = []
    original = _superlu.splu
    monkeypatch.setattr(_superlu, "splu", lambda A, **options: made.append(options) or original(A, **options))
    return made


def test_the_ordering_follows_the_symmetry_of_the_pattern(calls):
    """Catches: COLAMD on a symmetric pattern: three times the time on a 3-D Laplacian."""
    rng = np.random.default_rng(0)
    A = sp.csr_array(rng.random((30, 30)) * (rng.random((30, 30)) < 0.1)) + 5 * sp.eye_array(30)
    factored(A + A.T + sp.triu(A))
    factored(A)
    assert [options["permc_spec"] for options in calls] == ["MMD_AT_PLUS_A", "COLAMD"]
    assert calls[0]["diag_pivot_thresh"] == 0.01


def test_pivots_on_the_diagonal_that_ruin_the_residual_are_not_believed(calls, monkeypatch):
    """Catches: a threshold of zero accepts a pivot of 1e-17: residual 3e-3, silently. The check must catch what comes
    of it."""
    monkeypatch.setitem(_superlu._SYMMETRIC, "diag_pivot_thresh", 0.0)
    rng = np.random.default_rng(0)
    A = rng.standard_normal((40, 40)) * (rng.random((40, 40)) < 0.3)
    A = A + A.T
    np.fill_diagonal(A, 1e-17)
    b = np.ones(40)
    raw = scipy.sparse.linalg.splu(sp.csc_array(A), **_superlu._SYMMETRIC).solve(b)
    assert np.linalg.norm(b - A @ raw) > 1e-6 * np.linalg.norm(b)
    x, columns = factored(A).solve(b, False)
    np.testing.assert_allclose(A @ x, b, atol=1e-9)
    assert columns[0].status == "converged"


@pytest.mark.parametrize("transposed", [False, True])
def test_factors_that_the_residual_rules_out_do_not_precondition_either(monkeypatch, transposed):
    """Catches: the first and cheapest factors as a preconditioner, before any solve has shown that they are worthless;
    a refinement in each application."""
    monkeypatch.setitem(_superlu._SYMMETRIC, "diag_pivot_thresh", 0.0)
    rng = np.random.default_rng(0)
    A = rng.standard_normal((40, 40)) * (rng.random((40, 40)) < 0.3)
    A = A + A.T
    np.fill_diagonal(A, 1e-17)
    A[0] *= 3  # nonsymmetric
    F, b = factored(A), np.ones((40, 2)) + 1j
    x = F.precondition(b, transposed)
    np.testing.assert_allclose((A.T if transposed else A) @ x, b, atol=1e-9)
    monkeypatch.setattr(F, "_residual", None)
    F.precondition(b, transposed)


def test_a_zero_pivot_on_a_symmetric_pattern_is_looked_at_again():
    """Catches: a nonsingular matrix called singular because its diagonal is zero."""
    A = np.array([[0.0, 1.0], [1.0, 0.0]])
    x, _ = factored(A).solve(np.array([1.0, 2.0]), False)
    np.testing.assert_array_equal(x, [2.0, 1.0])


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex64, np.complex128])
def test_both_systems_are_solved_by_the_same_factors(calls, dtype, transposed):
    """Catches: a second factorisation for the adjoint, or trans="H" where plain transposition is meant."""
    rng = np.random.default_rng(1)
    A = (rng.standard_normal((20, 20)) + 8 * np.eye(20)).astype(dtype)
    if np.iscomplexobj(A):
        A += 1j * rng.standard_normal((20, 20))
    b = rng.standard_normal((20, 3)).astype(dtype)
    F = factored(A)
    F.solve(b, not transposed)
    x, columns = F.solve(b, transposed)
    assert x.dtype == dtype
    exact = np.linalg.solve((A.T if transposed else A).astype(complex), b)
    np.testing.assert_allclose(x, exact, rtol=100 * np.finfo(dtype).eps * np.linalg.cond(A), atol=1e-5)
    assert [column.status for column in columns] == ["converged"] * 3
    assert len(calls) == 1


@pytest.mark.parametrize("scale", [1e-300, 1e-30, 1e30, 1e300])
def test_scales_of_the_right_hand_side_do_not_matter(scale):
    """Catches: a norm that overflows or vanishes, and a residual of NaN or 0 / 0."""
    A, b = np.diag([1.0, 3.0, 7.0]), np.array([1.0, 3.0, 7.0])
    x, columns = factored(A).solve(b * scale, False)
    np.testing.assert_allclose(x / scale, 1.0)
    assert columns[0].residual < 1e-15


def test_a_factorisation_that_stays_inaccurate_says_so(monkeypatch):
    """Catches: a wrong solution passed on because nothing better was found."""
    F = factored(np.eye(4) + 0.1)
    monkeypatch.setattr(F, "_raw", lambda b, transposed: 0.5 * b)
    monkeypatch.setattr(F, "_attempts", iter(()))
    _, columns = F.solve(np.ones(4), False)
    assert columns[0].status == "inaccurate"
    # rows of A sum to 1.4: x = 0.5 b leaves 1 - 0.7 of b, and one step of refinement that much of it again
    assert columns[0].residual == pytest.approx(0.3**2)


def test_a_solution_that_overflows_is_reported():
    """Catches: infinity with the status of a solution."""
    A = sp.csr_array(np.diag([1e-3, 1.0]).astype(np.float32))
    b = np.array([[3e38, 1.0], [1.0, 1.0]], np.float32)
    x, columns = factored(A).solve(b, False)
    assert [column.status for column in columns] == ["overflow", "converged"]
    assert np.isinf(x[0, 0])
    np.testing.assert_allclose(x[:, 1], [1000.0, 1.0], rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
@pytest.mark.parametrize("symmetric", [True, False])
def test_the_order_of_elimination_is_found_once_for_a_pattern(calls, symmetric, dtype):
    """Catches: an order found anew in every step of a training loop; one applied to the rows where it is for the
    columns."""
    rng = np.random.default_rng(3)
    noise = sp.csr_array(rng.random((60, 60)) * (rng.random((60, 60)) < 0.05))
    A = sp.csr_array(noise + (noise.T if symmetric else 0) + 5 * sp.eye_array(60)).astype(dtype)
    symbolic = _symbolic.from_csr(A.indptr, A.indices, A.shape)
    b, fill = rng.standard_normal((60, 2)).astype(dtype), []
    for _ in range(3):
        values = A.data * (1 + 0.3 * rng.random(A.nnz))
        if dtype is np.complex128:
            values = values * np.exp(0.3j * rng.random(A.nnz))
        F = Factorisation(symbolic, values, "superlu")
        fill.append(F.nbytes)
        dense = sp.csr_array((values, A.indices, A.indptr), shape=A.shape).toarray()
        for transposed, matrix in ((False, dense), (True, dense.T)):
            for side in (b, b[:, 0]):
                x, columns = F.solve(side, transposed)
                np.testing.assert_allclose(x, np.linalg.solve(matrix, side), rtol=1e-9, atol=1e-11)
                assert {column.status for column in columns} == {"converged"}
    rule = "MMD_AT_PLUS_A" if symmetric else "COLAMD"
    assert [options["permc_spec"] for options in calls] == [rule, "NATURAL", "NATURAL"]
    assert fill[1] == fill[2] <= 1.1 * fill[0]


@pytest.mark.parametrize("symmetric", [True, False])
def test_a_pattern_is_gone_with_its_last_user(symmetric):
    """Catches: a pattern in a cycle of references: meshes that change fill memory until garbage is collected."""
    A = sp.csr_array(np.eye(5) + (0 if symmetric else np.eye(5, k=1)))
    symbolic = _symbolic.from_csr(A.indptr, A.indices, A.shape)
    gone = weakref.ref(symbolic)
    gc.disable()
    try:
        for _ in range(2):
            Factorisation(symbolic, A.data, "superlu").solve(np.ones(5), False)
        del symbolic
        assert gone() is None
    finally:
        gc.enable()
