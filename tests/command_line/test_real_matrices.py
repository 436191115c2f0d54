"""Real matrices from the SuiteSparse collection, from the file to the checks."""

import numpy as np
import pytest
import scipy.io

from tests.contract.systems import ITERATIVE


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("bcsstk01.mtx", "direct"),
        ("bcsstk01.mtx", "linear_cg"),
        ("west0067.mtx", "direct"),
        ("young1c.mtx", "direct"),
        ("young1c.mtx", "gmres"),
        ("olm1000.mtx", "direct"),
    ],
)
def test_real_matrices_are_solved_and_differentiated(name, method, real_matrix, tmp_path, tsgu):
    """Catches: what only real data show: scaling by 1e9, repeated entries, zero diagonals, complex symmetry."""
    path = real_matrix(name)
    run = tsgu(path, "--method", method, "--save", tmp_path / "x.npy")
    assert (run.status, run.err) == (0, [])
    A, x = scipy.io.mmread(path).tocsr(), np.load(tmp_path / "x.npy")
    assert run.rows[0]["nnz"] == str(A.nnz)
    assert np.linalg.norm(1 - A @ x) <= 1e-8 * np.sqrt(x.size)
    assert run.rows[0]["error"] <= run.rows[0]["allowed"] < 1e-6


@pytest.mark.parametrize("method", ITERATIVE)
def test_a_matrix_too_hard_for_krylov_methods_is_reported_so(method, real_matrix, tsgu):
    """Catches: a method that gives up quietly, or claims a residual that it has not reached."""
    run = tsgu(real_matrix("olm1000.mtx"), "--method", method)
    assert (run.status, len(run.err), run.rows[0]["check"]) == (1, 1, "FAILED")
    assert run.err[0].startswith(f"tsgu: not converged: {method} on the ")
    assert max(run.rows[0]["forward"], run.rows[0]["adjoint"]) > 1e-8
