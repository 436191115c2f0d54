"""The line that shows how a solve goes on."""

import sys

import numpy as np
import pytest

from tsgu._core.report import _log, _progress


@pytest.fixture
def clock(monkeypatch):
    """Time that passes when it is told to."""
    now = [100.0]
    monkeypatch.setattr(_progress.time, "monotonic", lambda: now[0])
    return now


def lines(capsys):
    return [line.strip() for line in capsys.readouterr().err.split("\r") if line.strip()]


def test_a_plain_line_appears_after_a_second_and_goes_away(monkeypatch, capsys, clock):
    """Catches: a flash for every small solve, a line in every step, a line that stays."""
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setattr(_progress, "find_spec", lambda name: None)
    line = _progress.Line()
    for steps in range(1, 301):
        clock[0] += 0.01
        line.step("minres", True, steps, 10.0 ** (-steps / 100), 1e-8)
    shown = lines(capsys)
    assert 15 <= len(shown) <= 21
    assert shown[0].startswith("minres, adjoint: 101 steps, residual 9.8e-02, target 1.0e-08 [1 s]")
    line.end()
    assert capsys.readouterr().err == "\r" + " " * len(shown[-1]) + "\r"
    clock[0] += 10
    line.step("minres", True, 1, 1.0, 1e-8)
    assert lines(capsys) == [], "the next solve has a second of its own"


def test_tqdm_draws_it_where_it_is_installed(monkeypatch, capsys, clock):
    """Catches: a bar that shows steps of maxiter, of which nobody knows how many it takes."""
    pytest.importorskip("tqdm", reason="needs tqdm")
    line = _progress.Line()
    for steps in (1, 50):
        line.step("gmres", False, steps, 1e-4, 1e-8)
        clock[0] += 2
    line.end()
    shown = lines(capsys)
    assert any("gmres, forward: 50 steps, residual 1.0e-04, target 1.0e-08 |" in text for text in shown)


def test_the_bar_is_as_long_as_the_share_of_digits():
    """Catches: a bar that is full at a tenth of the residual, or beyond its end."""
    assert _progress._share(1e-4, 1e-8) == pytest.approx(0.5)
    assert _progress._share(1e-9, 1e-8) == 1.0
    assert _progress._share(3.0, 1e-8) == 0.0
    assert _progress._share(0.0, 1e-8) == 0.0


@pytest.mark.parametrize("package", ["torch", "jax"])
def test_a_solve_is_watched_from_start_to_end(package, monkeypatch):
    """Catches: steps that start again for the second column, a residual that is not relative, nobody told of the
    end."""
    told = []

    class Line:
        def step(self, *args):
            told.append(args)

        def end(self):
            told.append("end")

    monkeypatch.setattr(_log, "Line", Line)
    pytest.importorskip(package, reason=f"needs {package}")
    from tests.contract import jax_adapter, torch_adapter
    from tests.contract.systems import System

    n = 400
    i = np.arange(n)
    row, col = np.concatenate([i, i[1:], i[:-1]]), np.concatenate([i, i[:-1], i[1:]])
    system = System("", row, col, np.concatenate([np.full(n, 2.0), -np.ones(2 * n - 2)]), n)
    adapter = {"torch": torch_adapter, "jax": jax_adapter}[package]
    problem = adapter.Problem(system, 1e6 * np.ones(n))
    with _log.record(progress=True), pytest.warns(adapter.ConvergenceWarning):
        problem.solve(adapter.method("gmres"), maxiter=250)
    assert told[-1] == "end"
    steps = [args[2] for args in told if args != "end"]
    assert {args[:2] for args in told if args != "end"} == {("gmres", False)}
    assert steps == (list(range(1, 251)) if package == "torch" else [100, 200])
    assert all(0 < args[3] <= 1 + 1e-6 for args in told if args != "end")
    with _log.record():
        assert _log.watched() is None
