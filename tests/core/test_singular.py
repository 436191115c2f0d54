"""What is singular, and what is only badly scaled or ill-conditioned."""

import subprocess
import sys
import warnings
from contextlib import suppress

import numpy as np
import pytest
import scipy.sparse as sp

from tsgu._core.factors._factorisation import Factorisation, SingularMatrixError
from tsgu._core.factors._ilu import IncompleteFactors
from tsgu._core.pattern import _symbolic


def pattern_and_values(A):
    A = sp.csr_array(A)
    A.sort_indices()
    return _symbolic.from_csr(A.indptr, A.indices, A.shape), A.data


def statuses(A, b, transposed=False):
    return [column.status for column in Factorisation(*pattern_and_values(A), "superlu").solve(b, transposed)[1]]


def laplacian(side, dimensions=2):
    line = sp.diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(side, side))
    A = line
    for _ in range(dimensions - 1):
        A = sp.kronsum(A, line)
    return sp.csr_array(A)


def neumann(side, dimensions=2, seed=0):
    """A weighted graph Laplacian of a grid: constants are in its null space, up to rounding."""
    edges = sp.coo_array(-laplacian(side, dimensions))
    off = edges.row < edges.col
    weights = np.exp(np.random.default_rng(seed).standard_normal(off.sum()))
    W = sp.csr_array((weights, (edges.row[off], edges.col[off])), shape=edges.shape)
    W = W + W.T
    return sp.csr_array(sp.diags_array(W.sum(axis=0)) - W)


FUZZ = """
import sys
import numpy as np, scipy.sparse as sp
from scipy.sparse.csgraph import structural_rank
from tests.core.test_singular import pattern_and_values
from tsgu._core.factors._factorisation import Factorisation, SingularMatrixError
from tsgu._core.factors._ilu import IncompleteFactors

def noise(rng, n, degree):
    return sp.csr_array(rng.random((n, n)) * (rng.random((n, n)) < degree / max(n, 4)))

def structurally(rng, n):
    A = noise(rng, n, rng.uniform(1, 4))
    A = sp.csr_array(A + A.T) if rng.random() < 0.5 else A
    return A if structural_rank(A) < n else structurally(rng, int(rng.integers(2, 60)))

def numerically(rng, n):
    A = sp.lil_array(noise(rng, n, rng.uniform(2, 4)) + sp.eye_array(n))
    i, j = rng.choice(n, 2, replace=False)
    kind = rng.integers(4)
    if kind == 0:  # zeros that are stored
        A = sp.csr_array(A)
        A.data[A.indptr[i] : A.indptr[i + 1]] = 0
    elif kind == 1:
        A[[i], :] = 0.3 * A[[j], :]
    elif kind == 2:
        A[:, [i]] = 0.7 * A[:, [j]]
    else:
        W = abs(sp.csr_array(A) - sp.diags_array(A.diagonal()))
        A = sp.diags_array((W + W.T).sum(axis=0)) - (W + W.T)
    return sp.csr_array(A)

rng, missed = np.random.default_rng(0), 0
for make in (structurally, numerically):
    for _ in range(1000):
        A = make(rng, int(rng.integers(2, 60)))
        symbolic, values = pattern_and_values(A)
        try:
            Factorisation(symbolic, values, "superlu").solve(rng.standard_normal(A.shape[0]), bool(rng.integers(2)))
            missed += 1
        except SingularMatrixError as error:
            assert ".c" not in str(error), error
        try:
            IncompleteFactors(values, symbolic, 1e-4, 10.0)
            assert make is numerically, "incomplete factors of a matrix that has none"
        except ValueError as error:
            assert "A must have nonsingular incomplete factors" in str(error)
sys.exit(missed > 0)
"""


def test_thousands_of_singular_patterns_are_reported_and_end_no_process():
    """Catches: a segmentation fault inside SuperLU, which takes the interpreter along, or an error that names a C
    file."""
    done = subprocess.run([sys.executable, "-c", FUZZ], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("row", "col", "n", "rank"),
    [([0, 0, 0], [0, 1, 2], 3, 1), ([0, 1, 2, 2], [0, 0, 0, 1], 3, 2), ([], [], 2, 0), ([0, 1, 1], [1, 0, 1], 2, 2)],
    ids=["two empty rows", "three rows in two columns", "nothing", "full"],
)
def test_the_structural_rank_is_known_and_found_once(monkeypatch, row, col, n, rank):
    """Catches: a matching for every matrix of a training loop, or one that counts nonempty rows."""
    calls, matching = [], _symbolic.structural_rank
    monkeypatch.setattr(_symbolic, "structural_rank", lambda graph: calls.append(graph) or matching(graph))
    symbolic = _symbolic.from_coo(np.array(row, int), np.array(col, int), (n, n))
    for _ in range(2):
        if rank < n:
            with pytest.raises(SingularMatrixError, match=f"a pattern of structural rank {rank} for {n} unknowns"):
                Factorisation(symbolic, np.ones(len(row)), "superlu")
        else:
            Factorisation(symbolic, np.ones(len(row)), "superlu")
    assert symbolic.structural_rank == rank
    assert len(calls) == (1 if row else 0)


SINGULAR = {
    "a path": neumann(300, 1),
    "a plane": neumann(30),
    "a cube": neumann(9, 3),
    "a large plane": neumann(100, seed=2),
    "scaled columns": neumann(30) @ sp.diags_array(10.0 ** np.random.default_rng(1).uniform(-9, 9, 900)),
    "huge": 1e300 * neumann(30),
    "tiny": 1e-200 * neumann(30),
    "complex": (1 + 0.3j) * neumann(30),
    "single": neumann(30).astype(np.float32),
    "a part that floats": sp.block_diag([neumann(20), laplacian(20)]),
    "a part that floats and drives another": sp.block_array([[neumann(20), None], [sp.eye_array(400), laplacian(20)]]),
    "low rank": np.random.default_rng(0).standard_normal((40, 36)) @ np.random.default_rng(1).standard_normal((36, 40)),
}


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("name", SINGULAR)
def test_a_singular_matrix_is_found_out_with_a_right_hand_side_in_its_range(name, transposed):
    """Catches: an arbitrary multiple of the null vector, with a residual at rounding level and the status of a
    solution."""
    A = sp.csr_array(SINGULAR[name])
    x = np.random.default_rng(5).standard_normal(A.shape[0]).astype(A.dtype)
    factors = Factorisation(*pattern_and_values(A), "superlu")
    for _ in range(2):
        with pytest.raises(
            SingularMatrixError, match=r"a pivot of exactly zero|z = 0, to working precision, for a z that"
        ):
            factors.solve((A.T if transposed else A) @ x, transposed)


def test_the_null_vector_is_described():
    """Catches: nothing but "singular", of a matrix with a million rows."""
    for A, words in (
        (neumann(20), "A z = 0, to working precision, for a z that is one number in all unknowns"),
        (sp.block_diag([laplacian(10), neumann(20)]), "one number in 400 of the 500 unknowns, and zero in the others"),
    ):
        with pytest.raises(SingularMatrixError, match=words):
            statuses(A, np.ones(A.shape[0]))


def scaled(A, size, which):
    D = sp.diags_array(10.0 ** np.random.default_rng(7).uniform(-size, size, A.shape[0]))
    return {"rows": D @ A, "columns": A @ D, "both": D @ A @ D}[which]


def penalised(size):
    where = np.arange(900) % 11 == 7
    return laplacian(30) + sp.diags_array(np.where(where, size, 0.0))


def biharmonic(n):
    return laplacian(n, 1) @ laplacian(n, 1)


NONSINGULAR = {
    **{f"penalties of {size:g}": penalised(size) for size in (1e-200, 1e12, 1e16, 1e200)},
    **{f"a row times {size:g}": sp.diags_array(np.where(np.arange(900) == 7, size, 1.0)) @ laplacian(30)
       for size in (1e-100, 1e12, 1e100)},
    **{f"{which} scaled by 1e+-{size}": scaled(laplacian(30), size, which)
       for size, which in ((3, "rows"), (3, "both"), (70, "columns"))},
    "a diagonal from 1e-200 to 1e200": sp.diags_array(10.0 ** np.linspace(-200, 200, 401)),
    "a long chain": laplacian(100_000, 1),
    "a plane": laplacian(100),
    "a plane in single precision": laplacian(100).astype(np.float32),
    "a shifted Laplacian of a graph": neumann(30) + 1e-8 * sp.eye_array(900),
    "a biharmonic beam": biharmonic(1000),  # condition number 1e12
    "a Hilbert matrix": 1 / (np.arange(8)[:, None] + np.arange(8) + 1),
    "no small entry, and a condition number of 1e17": np.eye(60) - np.triu(np.ones((60, 60)), 1),
    "growth of 2^49": np.eye(50) - np.tril(np.ones((50, 50)), -1) + np.outer(np.ones(50), np.eye(50)[-1]),
}  # fmt: skip


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("name", NONSINGULAR)
def test_a_badly_scaled_matrix_is_not_singular(name, transposed):
    """Catches: a threshold for pivots, or for the condition number in a norm, that calls penalties and units
    singular."""
    A = sp.csr_array(NONSINGULAR[name])
    b = (A.T if transposed else A) @ np.ones(A.shape[0], A.dtype)
    assert statuses(A, b, transposed)[0] in ("converged", "accuracy limit")


def test_what_is_nearly_singular_is_said_to_be_so():
    """Catches: two kinds of answer where there are three: this matrix has a solution, of which no digit is sure."""
    for distance, status in ((1e-12, "converged"), (1e-14, "ill-conditioned")):
        A = np.array([[1.0, 1.0], [1.0, 1.0 + distance]])
        assert statuses(A, A @ np.ones(2)) == [status]


def test_the_look_at_the_matrix_is_one_more_column_of_the_first_solve(monkeypatch):
    """Catches: a solve of its own, which reads the factors again; or one with every right-hand side."""
    from tsgu._core.factors._superlu import SuperLUFactors

    widths, solve = [], SuperLUFactors.solve
    monkeypatch.setattr(SuperLUFactors, "solve", lambda self, b, t: widths.append((b[:1].size, t)) or solve(self, b, t))
    factors = Factorisation(*pattern_and_values(laplacian(20)), "superlu")
    for b in (np.ones(400), np.ones((400, 3)), np.ones(400)):
        factors.solve(b, False)
    assert widths == [(2, False), (3, False), (1, False)]


def test_values_that_change_afterwards_do_not_reach_the_factors():
    """Catches: residuals of another matrix, to which refinement then leads."""
    symbolic, values = pattern_and_values(laplacian(20))
    A, b = laplacian(20).toarray(), np.ones(400)
    values = values.copy()
    factors = Factorisation(symbolic, values, "superlu")
    values *= 1.5
    x, (column,) = factors.solve(b, False)
    np.testing.assert_allclose(x, np.linalg.solve(A, b), rtol=1e-10)
    assert column.status == "converged"


def test_an_error_of_superlu_is_told_in_our_words(monkeypatch):
    """Catches: the line of a C file; an empty memory called singular."""
    from tsgu._core.factors import _ilu, _superlu

    for message, kind in (
        ("failed to factorize matrix at line 110 in file x.c", None),
        ("SUPERLU_MALLOC fails", MemoryError),
    ):

        def fail(*args, message=message, **kwargs):
            raise RuntimeError(message)

        monkeypatch.setattr(_superlu, "splu", fail)
        monkeypatch.setattr(_ilu, "spilu", fail)
        symbolic, values = pattern_and_values(np.eye(2))
        with pytest.raises(
            kind or SingularMatrixError, match="SuperLU has no memory" if kind else "pivot of exactly zero"
        ):
            Factorisation(symbolic, values, "superlu")
        with pytest.raises(kind or ValueError, match="SuperLU has no memory" if kind else "pivot of exactly zero"):
            IncompleteFactors(values, symbolic, 1e-4, 10.0)


def test_looking_at_a_matrix_warns_of_nothing():
    """Catches: overflow or a division by zero in the words of NumPy."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for A in (sp.diags_array([1e308, 1e-308]), 1e-300 * neumann(5), np.array([[1.0, 1.0], [1.0, 1.0 + 1e-16]])):
            with suppress(SingularMatrixError):
                statuses(A, np.ones(A.shape[0]))
