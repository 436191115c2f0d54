"""Memory asked for before factors are made: refused with both figures where it is not there, and free where it is."""

import re

import numpy as np
import pytest
import scipy.sparse as sp

from tests.core.test_pardiso import laplacian, needs_pardiso, symbolic_of
from tests.core.test_rslab import needs_rslab
from tsgu._core.factors import _memory, _mkl, _superlu
from tsgu._core.factors._factorisation import Factorisation

by_each = pytest.mark.parametrize(
    "library",
    ["superlu", pytest.param("pardiso", marks=needs_pardiso), pytest.param("rslab", marks=needs_rslab)],
)


@pytest.fixture
def free(monkeypatch):
    """A machine with as much memory as a test says, in which nothing is negligible."""
    have = [0]
    monkeypatch.setattr(_memory, "_NEGLIGIBLE", 0)
    monkeypatch.setattr(_memory, "available", lambda: have[0])
    return have


@by_each
def test_factors_that_do_not_fit_are_refused_before_the_work_begins(monkeypatch, free, library):
    """Catches: a process that the system ends without a word, after an hour; a message without the figures."""
    phases, original = [], _mkl.Pardiso.call
    monkeypatch.setattr(
        _mkl.Pardiso, "call", lambda self, phase, *rest: (phases.append(phase), original(self, phase, *rest))
    )
    monkeypatch.setattr(_superlu, "splu", lambda *args, **options: pytest.fail("SuperLU began"))
    free[0] = 300_000
    A = laplacian(100)
    with pytest.raises(MemoryError) as error:
        Factorisation(symbolic_of(A), A.data, library)
    pattern = (
        r"direct by (\w+) would take about (\d+\.\d) GB for the factors of A, with 10000 unknowns, and 0.0 GB are free"
    )
    assert re.match(pattern, str(error.value)).group(1).lower() == library
    assert "precond.amg" in str(error.value)
    assert _mkl.FACTOR not in phases


@by_each
def test_factors_that_fit_are_made(free, library):
    """Catches: an estimate so high that what would have succeeded is refused."""
    A = laplacian(100)
    free[0] = 5 * bytes_of_superlu(A)
    F = Factorisation(symbolic_of(A), A.data, library, threads=1)
    b = np.ones(10_000)
    x, _ = F.solve(b, False)
    assert np.linalg.norm(A @ x - b) < 1e-9 * np.linalg.norm(b)


def bytes_of_superlu(A):
    """What SuperLU takes, by itself."""
    return 12 * sp.linalg.splu(sp.csc_array(A), permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True}).nnz


def test_the_entries_of_the_last_factors_are_the_estimate_for_the_next(free):
    """Catches: a guess where the figure is known."""
    free[0] = 1 << 40
    A = laplacian(40)
    pattern = symbolic_of(A)
    F = Factorisation(pattern, A.data, "superlu")
    needed = F.nbytes
    free[0] = needed - 1
    with pytest.raises(MemoryError, match="direct by SuperLU"):
        Factorisation(pattern, 2 * A.data, "superlu")
    free[0] = needed
    assert Factorisation(pattern, 2 * A.data, "superlu").library == "superlu"


def test_more_entries_than_superlu_can_count_are_refused(monkeypatch, free):
    """Catches: an overflow of 32 bits inside the library, as a lack of memory or worse."""
    free[0] = 1 << 60
    A = laplacian(60)
    monkeypatch.setattr(_memory, "_COUNTABLE", A.nnz)
    with pytest.raises(MemoryError, match=r"SuperLU counts .* in 32 bits; got 3600 unknowns, .* library='rslab'"):
        Factorisation(symbolic_of(A), A.data, "superlu")
    monkeypatch.setattr(_memory, "_COUNTABLE", 1000 * A.nnz)
    assert Factorisation(symbolic_of(A), A.data, "superlu").library == "superlu"


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_the_estimate_is_near_what_superlu_stores(dimensions):
    """Catches: a formula for planes that lets a cube pass, or refuses a chain."""
    side = {1: 3000, 2: 60, 3: 15}[dimensions]
    line = sp.diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(side, side))
    A = line
    for _ in range(dimensions - 1):
        A = sp.kronsum(A, line)
    A = sp.csr_array(A)
    stored = sp.linalg.splu(sp.csc_array(A), permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True}).nnz
    assert stored / 4 < _memory.fill(symbolic_of(A)) < 4 * stored


def test_what_is_free_is_read_from_the_system_and_its_container(monkeypatch, tmp_path):
    """Catches: the memory of the machine, where a container has less; an error where nothing is said."""
    limit, used = tmp_path / "max", tmp_path / "current"
    monkeypatch.setattr(_memory, "_COUNTED", {limit: used})
    machine = _memory.available()
    if machine is None:
        pytest.skip("this system does not say")
    limit.write_text("5000\n")
    used.write_text("2000\n")
    assert _memory.available() == 3000
    limit.write_text("max\n")
    assert _memory.available() > 3000
    used.write_text("9000\n")
    limit.write_text("5000\n")
    assert _memory.available() == 0


def test_small_factors_ask_nobody(monkeypatch):
    """Catches: a file read in each solve of a hundred unknowns."""
    monkeypatch.setattr(_memory, "available", lambda: pytest.fail("asked"))
    A = laplacian(10)
    assert Factorisation(symbolic_of(A), A.data, "superlu").solve(np.ones(100), False)[1][0].status == "converged"
