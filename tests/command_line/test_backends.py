"""PyTorch, JAX, and both side by side."""

import sys

import numpy as np
import pytest

from tests.command_line.helpers import nonsymmetric, write
from tsgu._cli import _backend


def test_both_backends_agree_on_a_complex_nonsymmetric_matrix(tmp_path, tsgu):
    """Catches: JAX's convention for complex gradients, the conjugate of PyTorch's, taken for the same."""
    ran = tsgu(write(tmp_path / "a.mtx", nonsymmetric(field="complex")), "--backend", "both", "--save", tmp_path / "x")
    assert (ran.status, ran.err) == (0, [])
    assert [(row["backend"], row["check"]) for row in ran.rows] == [("torch", "ok"), ("jax", "ok")]
    assert ran.rows[0]["difference"] == "-"
    assert float(ran.rows[1]["difference"]) < 1e-13
    assert np.load(tmp_path / "x").dtype == np.complex128


def test_jax_alone_solves_in_the_precision_of_the_problem(tmp_path, tsgu):
    """Catches: a solve in single precision because 64-bit types are off, and a setting that outlives the command."""
    import jax

    before = jax.config.jax_enable_x64
    ran = tsgu(write(tmp_path / "a.mtx", nonsymmetric()), "--backend", "jax", "--method", "gmres", "--rtol", "1e-11")
    assert (ran.status, ran.err) == (0, [])
    assert "backend" not in ran.rows[0]
    assert ran.rows[0]["forward"] < 1e-10
    assert jax.config.jax_enable_x64 == before


def test_a_failed_solve_of_jax_is_told_in_one_line(tmp_path, tsgu):
    """Catches: a warning from a callback that gets lost, or is printed raw."""
    ran = tsgu(write(tmp_path / "a.mtx", nonsymmetric()), "--backend", "jax", "--method", "minres")
    assert ran.status == 1
    assert len(ran.err) == 1
    assert ran.err[0].startswith("tsgu: not converged: minres on the forward system")
    assert "A is not symmetric" in ran.err[0]


def test_a_difference_between_backends_is_shown(tmp_path, tsgu, monkeypatch):
    """Catches: a difference computed from one backend alone."""
    original = _backend.load

    class Spoiled:
        def differentiate(self, A, b, w, method, rtol, precond):
            solution = original("jax").differentiate(A, b, w, method, rtol)
            return solution._replace(gradient=solution.gradient + 1e-3 * np.abs(solution.gradient).max())

    monkeypatch.setattr(_backend, "load", lambda name: Spoiled() if name == "jax" else original(name))
    ran = tsgu(write(tmp_path / "a.mtx", nonsymmetric()), "--backend", "both")
    assert ran.status == 1
    assert float(ran.rows[1]["difference"]) == pytest.approx(1e-3, rel=0.01)


def test_the_default_is_both_where_jax_is_installed(monkeypatch):
    """Catches: an error on a machine without JAX, for a user who never asked for it."""
    assert _backend.names(None) == ("torch", "jax")
    assert _backend.names("torch") == ("torch",)
    assert _backend.names("both") == ("torch", "jax")
    monkeypatch.setattr(_backend, "find_spec", lambda name: None)
    assert _backend.names(None) == ("torch",)
    assert _backend.names("both") == ("torch", "jax")


def test_a_missing_jax_is_one_line_with_the_remedy(tmp_path, tsgu, monkeypatch):
    """Catches: a traceback where JAX was asked for and is not there."""
    monkeypatch.setitem(sys.modules, "jax", None)
    for name in [name for name in sys.modules if name.startswith(("tsgu_jax", "tsgu._cli._jax"))]:
        monkeypatch.delitem(sys.modules, name)
    ran = tsgu(write(tmp_path / "a.mtx", nonsymmetric()), "--backend", "jax")
    assert ran.status == 2
    assert len(ran.err) == 1
    assert 'pip install "tsgu[jax]"' in ran.err[0]


def test_an_unknown_backend_is_one_line(tsgu):
    """Catches: a KeyError."""
    ran = tsgu("--backend", "tensorflow")
    assert ran.status == 2
    assert len(ran.err) == 1
    assert "unknown backend 'tensorflow'; the backends are torch, jax, both" in ran.err[0]
