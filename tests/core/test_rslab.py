"""rslab beside SuperLU: which factors, analyses and pivots that are kept, what it refuses, threads, forks, memory."""

import gc
import os
import subprocess
import sys
import threading
import weakref
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

from tests.contract.compare import assert_close, tolerance
from tests.contract.systems import BY_NAME, SYSTEMS, right_hand_side
from tests.core.test_pardiso import SINGLE, SINGULAR, laplacian, symbolic_of, without_diagonal
from tsgu._core.factors import _factorisation, _rslab, _superlu
from tsgu._core.factors._factorisation import Factorisation, SingularMatrixError

needs_rslab = pytest.mark.skipif(not _rslab.installed(), reason="needs rslab")
by_both_ways = pytest.mark.parametrize("light", [_rslab._LIGHT, 0], ids=["by columns", "by blocks"])


def factored(A, pattern=None, threads=None):
    A = sp.csr_array(A)
    return Factorisation(pattern or symbolic_of(A), A.data, "rslab", threads=threads)


@pytest.fixture
def made(monkeypatch):
    """The kinds of the factors made by rslab, in turn, and "superlu" for one of SuperLU's."""
    kinds = []
    original, splu = _rslab.RslabFactors.__init__, _superlu.splu

    def rslab(self, handle, *rest):
        kinds.append(type(handle).__name__.lower())
        original(self, handle, *rest)

    monkeypatch.setattr(_rslab.RslabFactors, "__init__", rslab)
    monkeypatch.setattr(_superlu, "splu", lambda A, **options: kinds.append("superlu") or splu(A, **options))
    return kinds


@pytest.fixture
def analysed(monkeypatch):
    """The paths of the analyses made."""
    paths = []
    original = _rslab._analysed
    monkeypatch.setattr(_rslab, "_analysed", lambda path, A: paths.append(path) or original(path, A))
    return paths


def solved(F, A, b, transposed, condition, dtype=np.float64):
    x, columns = F.solve(b, transposed)
    assert x.dtype == b.dtype
    assert_close(x, np.linalg.solve(A.T if transposed else A, b), tolerance(condition, dtype, 0), "x")
    assert {column.status for column in columns} <= {"converged"}


@needs_rslab
@by_both_ways
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("precision", ["double", "single"])
@pytest.mark.parametrize("system", SYSTEMS, ids=str)
def test_both_systems_are_solved_by_the_same_factors(monkeypatch, made, system, precision, transposed, light):
    """Catches: a conjugate transpose where the transpose is meant, rows for columns, other factors for the adjoint."""
    monkeypatch.setattr(_rslab, "_LIGHT", light)
    dtype = system.values.dtype if precision == "double" else SINGLE[system.values.dtype]
    A, b = system.dense.astype(dtype), right_hand_side(system, 3).astype(dtype)
    F = factored(A)
    F.solve(b, not transposed)
    solved(F, A, b, transposed, system.condition, dtype)
    if system.n:
        solved(F, A, b[:, 1], transposed, system.condition, dtype)
        assert F.solve(b[:, :0], transposed)[0].shape == (system.n, 0)
    assert made in ([], ["klu"], ["lu"], ["ldlt"], ["ldlt", "lu"])  # the diagonal of one is zero
    assert F.library == ("rslab" if system.n else None)


@needs_rslab
def test_the_factors_follow_from_size_and_values(monkeypatch, made):
    """Catches: LU of a symmetric matrix, twice the work; L D L^T of a Hermitian one, which is not its own transpose;
    dense blocks in a chain."""
    factored(laplacian(10))
    factored(sp.diags_array([np.ones(4999), 3 * np.ones(5000)], offsets=[1, 0]))
    assert made == ["klu", "klu"]
    made.clear()
    monkeypatch.setattr(_rslab, "_LIGHT", 0)
    names = ["poisson", "indefinite", "complex symmetric", "hermitian definite", "convection", "complex general"]
    for name in names:
        factored(BY_NAME[name].dense)
    assert made == ["ldlt", "ldlt", "ldlt", "lu", "lu", "lu"]


@needs_rslab
@by_both_ways
def test_the_analysis_is_kept_with_the_pattern_and_for_each_dtype(monkeypatch, analysed, light):
    """Catches: the search for an order in each step of a training loop, or factors of one dtype filled by another."""
    monkeypatch.setattr(_rslab, "_LIGHT", light)
    A = laplacian(12)
    pattern = symbolic_of(A)
    for dtype in (np.float64, np.float32, np.complex128, np.complex64, np.float64):
        for shift in (0, 3):
            one = sp.csr_array(A + sp.diags_array(np.linspace(0, shift, 144))).astype(dtype)
            solved(factored(one, pattern), one.toarray(), np.arange(1.0, 145.0).astype(dtype), True, 100, dtype)
    assert analysed == (["ldlt", "klu"] if light else ["ldlt"])
    factored(A)
    assert len(analysed) == (4 if light else 2), "another pattern has another analysis"


@needs_rslab
def test_factors_that_are_free_are_filled_with_new_values(made):
    """Catches: a search for pivots in each step; or factors filled anew that somebody still solves with."""
    A = laplacian(12)
    pattern, b = symbolic_of(A), np.arange(1.0, 145.0)
    first = factored(A, pattern)
    handle = first._factors._handle
    second = factored(2 * A, pattern)
    assert second._factors._handle is not handle
    for F, matrix in ((first, A), (second, 2 * A)):
        solved(F, matrix.toarray(), b, False, 100)
    del F, first
    third = factored(3 * A, pattern)
    assert third._factors._handle is handle
    for F, matrix in ((third, 3 * A), (second, 2 * A)):
        solved(F, matrix.toarray(), b, True, 100)
    assert made == ["klu"] * 3


@needs_rslab
def test_pivots_of_other_values_that_ruin_the_residual_are_searched_for_anew_and_not_kept(made):
    """Catches: a zero on the diagonal where the last matrix had its pivot, believed, or tried again for ever."""
    B, b = without_diagonal(1e-17, seed=1), np.ones(40)
    pattern = symbolic_of(sp.csr_array(B))
    factored(B + 9 * np.eye(40), pattern)
    made.clear()
    F = factored(B, pattern)
    solved(F, B, b, False, np.linalg.cond(B))
    assert made == ["klu", "klu"]
    assert F.library == "rslab"
    del F
    made.clear()
    solved(factored(B, pattern), B, b, False, np.linalg.cond(B))
    assert made == ["klu"]


@needs_rslab
@pytest.mark.parametrize("transposed", [False, True])
def test_poor_pivots_are_not_believed_and_the_rows_are_matched_anew(monkeypatch, made, analysed, transposed):
    """Catches: a residual of thousands from pivots inside a block, of which the library says nothing."""
    monkeypatch.setattr(_rslab, "_LIGHT", 0)
    A, b = without_diagonal(1e-17, seed=1), np.ones(40)
    pattern = symbolic_of(sp.csr_array(A))
    values = sp.csr_array(A).data
    raw = next(_rslab.attempts(values, pattern, 1))
    assert np.linalg.norm(b - A @ raw.solve(b, transposed)) > 1e-6 * np.linalg.norm(b)
    made.clear()
    analysed.clear()
    F = factored(A, pattern)
    solved(F, A, b, transposed, np.linalg.cond(A))
    assert made[:2] == ["ldlt", "lu"]
    assert analysed == ["lu"]
    F.solve(b, not transposed)
    kept = len(made)
    solved(factored(A, pattern), A, b, transposed, np.linalg.cond(A))
    assert made[kept] == "lu", "what failed for the pattern is not tried again"


@needs_rslab
@by_both_ways
def test_factors_of_superlu_are_the_last_to_try(monkeypatch, made, light):
    """Catches: columns reported as inaccurate that exchanges of any rows would solve."""
    monkeypatch.setattr(_rslab, "_LIGHT", light)
    monkeypatch.setattr(_rslab.RslabFactors, "solve", lambda self, b, transposed: 0.5 * b)
    A, b = BY_NAME["indefinite"].dense, np.ones(24)
    F = factored(A)
    solved(F, A, b, False, np.linalg.cond(A))
    assert made == (["klu", "superlu"] if light else ["ldlt", "lu", "superlu"])
    assert F.library == "superlu"


@needs_rslab
def test_a_poor_solution_is_refined_each_time_where_pivots_are_poor(monkeypatch):
    """Catches: eight digits lost, since the residual is below its target all the same."""
    original = _rslab.RslabFactors.solve
    monkeypatch.setattr(_rslab.RslabFactors, "solve", lambda *args: original(*args) * (1 + 1e-9))
    A = BY_NAME["general"].dense
    F, b = factored(A), right_hand_side(BY_NAME["general"], 2)
    for transposed in (False, True, False):
        x, _ = F.solve(b, transposed)
        residual = b - (A.T if transposed else A) @ x
        assert np.linalg.norm(residual) < 1e-14 * np.linalg.norm(b)
    assert F.library == "rslab"


@needs_rslab
@by_both_ways
@pytest.mark.parametrize("name", SINGULAR)
def test_a_singular_matrix_is_an_error_each_time_it_is_asked(monkeypatch, capfd, name, light):
    """Catches: a solution of 1e13, without a word; the library's own words on the terminal; an error that the second
    solve has forgotten."""
    monkeypatch.setattr(_rslab, "_LIGHT", light)
    b = np.ones(len(SINGULAR[name]), SINGULAR[name].dtype)
    try:
        F = factored(SINGULAR[name])
    except SingularMatrixError:
        F = None
    for transposed in (False, True) if F is not None else ():
        with pytest.raises(SingularMatrixError):
            F.solve(b, transposed)
    assert capfd.readouterr() == ("", "")


@needs_rslab
@by_both_ways
@pytest.mark.parametrize("A", [np.zeros((2, 2)), np.array([[1.0, 1.0], [0.0, 0.0]])], ids=["all", "a row"])
def test_stored_zeros_make_a_matrix_singular_too(monkeypatch, capfd, A, light):
    """Catches: a warning on the terminal that rows do not match."""
    monkeypatch.setattr(_rslab, "_LIGHT", light)
    stored = sp.csr_array((A.ravel(), ([0, 0, 1, 1], [0, 1, 0, 1])), shape=(2, 2))
    with pytest.raises(SingularMatrixError):
        factored(stored)
    assert capfd.readouterr() == ("", "")


@needs_rslab
@by_both_ways
def test_a_pure_neumann_problem_is_reported_as_singular(monkeypatch, light):
    """Catches: a last pivot of 1e-16, and a right-hand side inside of the range."""
    monkeypatch.setattr(_rslab, "_LIGHT", light)
    weights = np.random.default_rng(0).random(29)
    A = -np.diag(weights, 1) - np.diag(weights, -1)
    A -= np.diag(A.sum(1))
    b = A @ np.arange(30.0)
    with pytest.raises(SingularMatrixError, match="for a z that is one number in all unknowns"):
        factored(A).solve(b, False)


@needs_rslab
@by_both_ways
@pytest.mark.parametrize("scale", [1e-300, 1e-30, 1e30, 1e300])
@pytest.mark.parametrize("name", ["poisson", "indefinite", "general", "complex general"])
def test_the_scale_of_the_matrix_does_not_matter(monkeypatch, name, scale, light):
    """Catches: a threshold for pivots that is absolute."""
    monkeypatch.setattr(_rslab, "_LIGHT", light)
    A, b = BY_NAME[name].dense, right_hand_side(BY_NAME[name], None)
    x, columns = factored(A * scale).solve(b, False)
    assert_close(x * scale, np.linalg.solve(A, b), tolerance(BY_NAME[name].condition, np.float64, 0), "x")
    assert columns[0].status == "converged"


@needs_rslab
@by_both_ways
def test_threads_change_no_bit_and_may_work_side_by_side(monkeypatch, light):
    """Catches: factors shared by two, or a sum in the order in which threads happen to end."""
    monkeypatch.setattr(_rslab, "_LIGHT", light)
    A = laplacian(30) + 0.1 * sp.triu(laplacian(30))
    pattern, b = symbolic_of(sp.csr_array(A)), np.random.default_rng(0).standard_normal((900, 2))
    expected = {k: np.linalg.solve(k * A.toarray(), b) for k in (1, 2, 3, 4)}
    alone = factored(A, pattern, threads=1).solve(b, False)[0]
    np.testing.assert_array_equal(factored(A, pattern, threads=2).solve(b, False)[0], alone)
    wrong = []

    def work(k):
        for _ in range(10):
            x, _ = factored(k * A, pattern, threads=1).solve(b, False)
            if not np.allclose(x, expected[k], rtol=1e-9, atol=1e-12):
                wrong.append(k)

    threads = [threading.Thread(target=work, args=(k,)) for k in expected]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


FORK = """
import os
import numpy as np
from tests.core.test_pardiso import laplacian, symbolic_of
from tsgu._core.factors import _rslab
from tsgu._core.factors._factorisation import Factorisation

_rslab._LIGHT = int(os.environ["LIGHT"])
A = laplacian(30)
pattern, other, b = symbolic_of(A), laplacian(29), np.ones(900)
F = Factorisation(pattern, A.data, "rslab", threads=2)
x, _ = F.solve(b, False)
child = os.fork()
again = F.solve(b, False)[0], Factorisation(pattern, A.data, "rslab").solve(b, True)[0]
assert all(np.allclose(y, x, rtol=1e-10) for y in again)
expected = "rslab" if child else "superlu"
assert F.library == Factorisation(symbolic_of(other), other.data, "rslab").library == expected
if not child:
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""


@needs_rslab
@by_both_ways
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_after_a_fork_superlu_takes_over(light):
    """Catches: a data loader that waits for ever, for threads that the fork has left behind."""
    root = Path(__file__).parents[2]
    environment = os.environ | {"LIGHT": str(light), "PYTHONPATH": os.pathsep.join([str(root), *sys.path])}
    subprocess.run([sys.executable, "-c", FORK], check=True, timeout=60, cwd=root, env=environment)


@needs_rslab
def test_memory_of_factors_is_known_and_ends_with_them_and_their_pattern():
    """Catches: a cycle of references that holds hundreds of megabytes, or spare factors that outlive the pattern."""
    A = laplacian(100)
    pattern = symbolic_of(A)
    F = factored(A, pattern)
    assert 8 * 3 * 10_000 < F.nbytes < 8 * 3_000_000
    gone = [weakref.ref(F), weakref.ref(pattern)]
    gc.disable()
    try:
        del F
        assert gone[0]() is None
        del pattern
        assert gone[1]() is None
    finally:
        gc.enable()


def test_superlu_alone_does_not_load_rslab(monkeypatch):
    """Catches: a library loaded, and its threads begun, by who does not use it."""
    monkeypatch.setitem(sys.modules, "rslab", None)
    A = laplacian(3)
    assert Factorisation(symbolic_of(A), A.data, "superlu").library == "superlu"


@pytest.mark.parametrize(("asked", "expected"), [("1", 1), ("100000", None), ("", None), ("2,1", None)])
def test_threads_follow_the_variable_of_openmp_and_the_cores(monkeypatch, asked, expected):
    """Catches: more threads than cores, on a machine that others use too."""
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert _factorisation.threads_for(None) == (expected or cores)
    assert _factorisation.threads_for(1) == 1
    assert _factorisation.threads_for(10**6) == cores
