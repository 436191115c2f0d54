"""Preconditioners on the command line."""

import sys

import numpy as np
import pytest
import scipy.sparse as sp

from tests.command_line.helpers import nonsymmetric, write
from tsgu._cli import _heat, _problem
from tsgu._core.methods import _registry

KRYLOV = tuple(method.name for method in _registry.krylov())


@pytest.mark.parametrize(
    ("arguments", "methods"),
    [
        (["jacobi"], KRYLOV),
        (["block_jacobi", "--block", "5"], KRYLOV),
        (["ilu"], ("bicgstab", "gmres")),
        (["amg"], KRYLOV),
    ],
)
def test_a_preconditioner_serves_every_method_that_can_use_it(arguments, methods, monkeypatch, tsgu):
    """Catches: one that is parsed and forgotten, or not transposed in the adjoint; a check that no longer passes."""
    pytest.importorskip("pyamg", reason="needs pyamg")
    A, b = _heat.heat_conduction(20)
    monkeypatch.setattr(_problem, "heat_conduction", lambda: (A, b))
    plain = {row["method"]: row["iterations"] for row in tsgu().rows}
    run = tsgu("--precond", *arguments)
    assert (run.status, run.err) == (0, [])
    assert [row["method"] for row in run.rows] == list(methods)
    for row in run.rows:
        assert row["check"] == "ok"
        assert max(row["iterations"]) < min(plain[row["method"]])
    assert f"preconditioner {arguments[0]}{' of 5 rows' if len(arguments) > 1 else ''}" in run.out[0]


def test_a_file_with_a_preconditioner_is_solved_by_gmres(tmp_path, tsgu):
    """Catches: the default method, which takes none; and a complex matrix that the default kind of amg refuses."""
    pytest.importorskip("pyamg", reason="needs pyamg")
    path = write(tmp_path / "a.mtx", nonsymmetric(field="complex"))
    for name in ("jacobi", "amg", "ilu"):
        run = tsgu(path, "--precond", name)
        assert (run.status, run.err, [row["method"] for row in run.rows]) == (0, [], ["gmres"])


def test_jax_takes_the_same_preconditioner(tmp_path, tsgu):
    """Catches: a backend that ignores it."""
    path = write(tmp_path / "a.mtx", nonsymmetric())
    run = tsgu(path, "--precond", "ilu", "--backend", "both")
    assert (run.status, run.err) == (0, [])
    first, second = run.rows
    assert abs(first["iterations"][0] - second["iterations"][0]) <= 1
    assert float(second["difference"]) < 1e-6


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (["--precond", "cholesky"], ["unknown preconditioner 'cholesky'", "block_jacobi"]),
        (["--precond", "amg", "--method", "direct"], ["direct takes no preconditioner"]),
        (["--precond", "ilu", "--method", "minres"], ["ilu is not symmetric", "bicgstab or gmres"]),
        (["--block", "3"], ["--block", "block_jacobi"]),
        (["--precond", "block_jacobi", "--block", "0"], ["--block", "integer >= 1", "'0'"]),
        (["--precond", "jacobi"], ["--precond", "zero on its diagonal", "row 4"]),
        (["--precond", "block_jacobi"], ["--precond", "the first is block 1"]),
        (["--precond", "amg"], ["--precond", 'pip install "tsgu[amg]"']),
    ],
)
def test_a_preconditioner_that_cannot_be_had_is_one_line(arguments, fragments, tmp_path, tsgu, monkeypatch):
    """Catches: a traceback, an option that is quietly dropped, and a solve without what was asked for."""
    A = np.random.default_rng(0).standard_normal((12, 12))
    if "amg" in arguments:
        monkeypatch.setitem(sys.modules, "pyamg", None)
    else:
        A[4:8, 4:8] = 0  # the second block
    run = tsgu(write(tmp_path / "a.mtx", sp.csr_array(A)), *arguments)
    assert run.status == 2
    assert len(run.err) == 1
    assert all(fragment in run.err[0] for fragment in fragments), run.err
