"""The checks: they fail on what is wrong (the table, one line, exit status 1), against a reference that is right."""

import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse as sp

from tests.command_line.helpers import nonsymmetric, write
from tsgu._cli import _backend, _heat, _problem, _torch
from tsgu._cli._factored import Factored
from tsgu._cli._reference import Reference


def test_a_solve_that_does_not_converge_is_told_in_one_line(tmp_path, tsgu):
    """Catches: a raw Python warning, a silent failure, and a line for each of the two solves."""
    cycle = sp.csr_array(np.roll(np.eye(80), 1, axis=1))  # restarted GMRES makes no step at all before the last
    np.save(tmp_path / "b.npy", np.eye(80)[0])
    path = write(tmp_path / "a.mtx", cycle)
    run = tsgu(path, "--rhs", tmp_path / "b.npy", "--method", "gmres", "--save", tmp_path / "x.npy")
    assert (run.status, len(run.rows), len(run.err)) == (1, 1, 1)
    assert run.rows[0]["check"] == "FAILED"
    assert run.rows[0]["forward"] > 0.5
    assert run.err[0].startswith("tsgu: not converged: gmres on the forward system: stagnation")
    assert "adjoint solve failed too" in run.err[0]
    assert np.load(tmp_path / "x.npy").shape == (80,)


def test_a_method_for_symmetric_matrices_says_so_on_another(tmp_path, tsgu):
    """Catches: advice to iterate longer where the method cannot work."""
    A = nonsymmetric() - 6 * sp.eye_array(30, format="csr")
    run = tsgu(write(tmp_path / "a.mtx", A), "--method", "minres")
    assert (run.status, len(run.err)) == (1, 1)
    assert "not symmetric" in run.err[0]


def spoiled(change):
    """A backend whose solution is changed after the fact, and whose own reports are all well."""

    def differentiate(A, b, w, method, rtol, precond):
        return change(A.toarray(), b, w, _torch.differentiate(A, b, w, method, rtol))

    return SimpleNamespace(differentiate=differentiate)


def at_entries(dense_gradient, A):
    return dense_gradient[np.nonzero(A)]


WRONG = {
    "sign": lambda A, b, w, s: s._replace(gradient=-s.gradient),
    "transposed": lambda A, b, w, s: s._replace(gradient=at_entries(-np.outer(s.x.conj(), s.adjoint), A)),
    "without conjugate": lambda A, b, w, s: s._replace(gradient=at_entries(-np.outer(s.adjoint, s.x), A)),
    "scaled": lambda A, b, w, s: s._replace(gradient=s.gradient * (1 + 1e-5)),
    "one entry lost": lambda A, b, w, s: s._replace(gradient=np.where(np.arange(s.gradient.size) == 7, 0, s.gradient)),
    "adjoint with A": lambda A, b, w, s: s._replace(adjoint=np.linalg.solve(A, w)),
    "adjoint with A^T": lambda A, b, w, s: s._replace(adjoint=np.linalg.solve(A.T, w)),
    "solution": lambda A, b, w, s: s._replace(x=s.x * (1 + 1e-6)),
    "not finite": lambda A, b, w, s: s._replace(gradient=np.full_like(s.gradient, np.nan)),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_the_checks_fail_on_a_wrong_solution_or_gradient(mistake, tmp_path, tsgu, monkeypatch):
    """Catches: checks that cannot fail: every backend here reports success and is wrong."""
    monkeypatch.setattr(_backend, "load", lambda name: spoiled(WRONG[mistake]))
    run = tsgu(write(tmp_path / "a.mtx", nonsymmetric(field="complex")))
    assert (run.status, len(run.err)) == (1, 1)
    assert run.rows[0]["check"] == "FAILED"
    assert run.err[0].startswith("tsgu: check failed: ")
    part = {"solution": "forward system", "adjoint with A": "adjoint system", "adjoint with A^T": "adjoint system"}
    assert part.get(mistake, "gradient by direct") in run.err[0]


def test_the_backend_unspoiled_passes_the_same_checks(tmp_path, tsgu, monkeypatch):
    """Catches: a harness for the test above that fails whatever the backend does."""
    monkeypatch.setattr(_backend, "load", lambda name: spoiled(lambda A, b, w, s: s))
    assert tsgu(write(tmp_path / "a.mtx", nonsymmetric(field="complex"))).status == 0


def test_a_gradient_check_that_tells_little_is_said_to(tmp_path, tsgu):
    """Catches: a check so loose that it would pass on anything, without a word about it."""
    path = write(tmp_path / "a.mtx", _heat.heat_conduction(6)[0])
    run = tsgu(path, "--method", "linear_cg", "--rtol", "0.5")
    assert run.status == 0
    assert run.rows[0]["allowed"] > 0.1
    assert len(run.err) == 1
    assert "the gradient check of linear_cg tells little" in run.err[0]


def test_other_warnings_of_the_solve_are_lines_of_the_command(tmp_path, tsgu, monkeypatch):
    """Catches: a warning that is swallowed, or printed with a file name and a line of source."""

    def differentiate(*arguments):
        warnings.warn("something to know", UserWarning, stacklevel=1)
        return _torch.differentiate(*arguments)

    monkeypatch.setattr(_backend, "load", lambda name: SimpleNamespace(differentiate=differentiate))
    run = tsgu(write(tmp_path / "a.mtx", nonsymmetric()))
    assert (run.status, run.err) == (0, ["tsgu: something to know"])


@pytest.mark.parametrize("field", ["real", "complex"])
@pytest.mark.parametrize("exponent", [0, 3, 6])
def test_the_finite_difference_is_as_near_to_the_derivative_as_it_says(field, exponent):
    """Catches: a step that is a guess: too long or too short for an ill-conditioned matrix, by the exact tangent."""
    random = np.random.default_rng(exponent)
    dtype = np.dtype(np.complex128 if field == "complex" else np.float64)
    left, right = (np.linalg.qr(_problem.gaussian(random, (20, 20), dtype))[0] for _ in range(2))
    A = sp.csr_array(left * np.logspace(0, -exponent, 20) @ right)
    b, w = (_problem.gaussian(random, (20,), dtype) for _ in range(2))
    reference = Reference(_problem.Problem("", A, b, w, 1e-8))
    dense, E = A.toarray(), reference.E.toarray()
    exact = np.vdot(w, np.linalg.solve(dense, reference.e - E @ np.linalg.solve(dense, b))).real
    bound = reference._difference_error
    rounding = 24 * np.finfo(np.float64).eps * 10**exponent  # rows of 20 entries, times the condition number
    assert abs(reference.derivative - exact) <= bound + rounding * abs(exact)
    assert bound <= 10 * rounding ** (2 / 3) * abs(exact)  # what a central difference can reach


@pytest.mark.parametrize("adjoint", [False, True])
def test_condition_number_is_that_of_the_dense_formula(adjoint):
    """Catches: an estimate of A in place of its inverse, or of the wrong system. An estimate is below, and rarely by
    much."""
    A = nonsymmetric(field="complex")
    A = sp.csr_array(sp.diags_array(np.logspace(0, 8, 30)) @ A)
    dense = A.toarray().conj().T if adjoint else A.toarray()
    b = np.ones(30, dtype=complex)
    x = np.linalg.solve(dense, b)
    exact = (abs(np.linalg.inv(dense)) @ (abs(dense) @ abs(x) + 1)).max() / abs(x).max()
    estimate = Factored(A).condition(x, b, adjoint)
    assert exact / 3 <= estimate <= exact * (1 + 1e-6)


def test_reference_solves_where_pivots_on_the_diagonal_fail():
    """Catches: an ordering for symmetric patterns that is trusted on a zero or tiny diagonal."""
    random = np.random.default_rng(0)
    for diagonal in (0.0, 1e-14):
        A = sp.csr_array(np.diag(np.full(40, diagonal)) + np.kron(np.eye(20), [[0, 1], [2, 0]]))
        b = random.standard_normal(40)
        factored = Factored(A)
        np.testing.assert_allclose(factored.solve(b), np.linalg.solve(A.toarray(), b), rtol=1e-12)
        np.testing.assert_allclose(factored.solve(b, True), np.linalg.solve(A.toarray().T, b), rtol=1e-12)
        assert factored.unit < 1e-13
