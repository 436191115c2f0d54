"""The job: the built-in problem and others are solved and differentiated, by every method and in every dtype."""

import numpy as np
import pytest
import scipy.sparse as sp

from tests.command_line.helpers import DEADLINE, nonsymmetric, process, rows, write
from tsgu._cli import _heat, _problem
from tsgu._cli._arguments import METHODS
from tsgu._core.methods import _choice, _registry


def test_without_arguments_every_method_solves_and_differentiates_the_heat_problem():
    """Catches: a method or backend left out, a check that does not pass, output on stderr, and a wrong exit status."""
    with process() as command:
        out, err = command.communicate(timeout=DEADLINE)
    table = rows(out)
    assert (command.returncode, err) == (0, "")
    assert [(row["method"], row["backend"]) for row in table] == [(m, b) for m in METHODS for b in ("torch", "jax")]
    for row in table:
        assert row["difference"] == "-" if row["backend"] == "torch" else float(row["difference"]) < 1e-5
        assert (row["n"], row["nnz"], row["check"]) == ("10000", "49600", "ok")
        assert max(row["forward"], row["adjoint"]) <= 1.05e-8  # as printed, with two digits
        assert row["error"] <= row["allowed"] < 1e-5
        assert (row["iterations"] is not None) == _registry.method(row["method"]).iterative
        assert row["iterations"] is None or min(row["iterations"]) > 100


def test_heat_problem_is_the_five_point_laplacian_where_the_conductivity_is_constant(monkeypatch):
    """Catches: a boundary that is left open and a row that does not balance, by the textbook matrix for k = 1."""
    monkeypatch.setattr(np, "sin", np.zeros_like)
    A, b = _heat.heat_conduction(7)
    line = sp.diags_array([-np.ones(6), 2 * np.ones(7), -np.ones(6)], offsets=[-1, 0, 1])
    expected = sp.kron(line, sp.eye_array(7)) + sp.kron(sp.eye_array(7), line)
    np.testing.assert_allclose(A.toarray(), expected.toarray(), atol=1e-14)
    assert np.count_nonzero(b) > 0


def test_heat_problem_has_variable_conductivity_and_is_positive_definite():
    """Catches: a conductivity that is not applied, and one that spoils symmetry."""
    A, _ = _heat.heat_conduction(8)
    dense = A.toarray()
    np.testing.assert_allclose(dense, dense.T)
    assert np.linalg.eigvalsh(dense).min() > 0
    assert np.ptp(np.diag(dense)) > 1


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
def test_every_method_passes_in_every_dtype(method, dtype, tmp_path, tsgu):
    """Catches: a dtype that is not honoured, a default rtol for the wrong precision, and checks that only hold in
    double precision."""
    A, _ = _heat.heat_conduction(6)
    sp.save_npz(tmp_path / "a.npz", A)
    run = tsgu(tmp_path / "a.npz", "--method", method, "--dtype", dtype, "--save", tmp_path / "x.npy")
    assert (run.status, run.err) == (0, [])
    single = dtype in ("float32", "complex64")
    assert dtype in run.out[0]
    assert f"rtol {1e-5 if single else 1e-8:.1e}" in run.out[0]
    x = np.load(tmp_path / "x.npy")
    assert x.dtype == dtype
    condition = np.linalg.cond(A.toarray())
    reference = np.linalg.solve(A.toarray(), np.ones(36))
    assert np.linalg.norm(x - reference) <= condition * (1e-5 if single else 1e-8) * np.linalg.norm(reference)


@pytest.mark.parametrize("method", ["direct", "bicgstab", "gmres"])
@pytest.mark.parametrize("field", ["real", "complex"])
def test_gradients_of_a_nonsymmetric_matrix_pass_for_the_methods_that_solve_it(method, field, tmp_path, tsgu):
    """Catches: a reference or a backend that is right for symmetric or real matrices only."""
    run = tsgu(write(tmp_path / "a.mtx", nonsymmetric(field=field)), "--method", method)
    assert (run.status, run.err) == (0, [])
    assert run.rows[0]["allowed"] < 1e-6


def test_rtol_reaches_the_method(tmp_path, tsgu):
    """Catches: an --rtol that is parsed and forgotten."""
    path = write(tmp_path / "a.mtx", nonsymmetric())
    loose, tight = (tsgu(path, "--method", "gmres", "--rtol", rtol).rows[0] for rtol in ("1e-2", "1e-12"))
    assert 1e-12 < loose["forward"] <= 1e-2
    assert tight["forward"] <= 1e-12
    assert loose["iterations"] < tight["iterations"]


def test_save_keeps_the_first_method_where_several_run(tmp_path, monkeypatch, tsgu):
    """Catches: a solution of another method than --help says."""
    A, b = _heat.heat_conduction(10)
    monkeypatch.setattr(_problem, "heat_conduction", lambda: (A, b))
    run = tsgu("--save", tmp_path / "x.npy")
    assert [row["method"] for row in run.rows] == list(METHODS)
    np.testing.assert_allclose(np.load(tmp_path / "x.npy"), np.linalg.solve(A.toarray(), b), rtol=1e-12)


@pytest.mark.parametrize("method", ["direct", "gmres"])
def test_plot_writes_a_picture(method, tmp_path, tsgu):
    """Catches: a picture that needs a display, and one that is not written where there is no history."""
    target = tmp_path / "history.png"
    run = tsgu(write(tmp_path / "a.mtx", nonsymmetric()), "--method", method, "--plot", target)
    assert (run.status, run.err) == (0, [])
    assert target.read_bytes().startswith(b"\x89PNG")


def test_auto_solves_and_says_what_it_chose(tmp_path, tsgu, monkeypatch):
    """Catches: a choice that nobody hears of, one told once for each solve, an attempt that failed taken for the
    end."""
    A, _ = _heat.heat_conduction(6)
    sp.save_npz(tmp_path / "a.npz", A)
    run = tsgu(tmp_path / "a.npz", "--method", "auto")
    assert (run.status, [row["check"] for row in run.rows]) == (0, ["ok"])
    assert [line.split(" for ")[0] for line in run.err] == ["tsgu: note: in torch, auto: direct"]
    monkeypatch.setattr(_choice, "_cost_of_direct", lambda traits, library: 1e6)
    monkeypatch.setattr(_choice, "_FEWEST", 3)
    monkeypatch.setattr(_choice, "_PATIENCE", 0)
    run = tsgu(tmp_path / "a.npz", "--method", "auto")
    assert (run.status, [row["check"] for row in run.rows]) == (0, ["ok"])
    assert "linear_cg + jacobi ended with iteration limit" in run.err[0]
    assert tsgu("--method", "auto", "--precond", "amg").err == [
        "tsgu: error: argument --precond: auto chooses its own preconditioner; choose a Krylov method"
    ]
