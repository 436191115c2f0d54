"""Batches of matrices on one pattern: solved together, judged one by one, alone where anything is to be said."""

import numpy as np
import pytest
import scipy.sparse as sp

from tests.contract.compare import assert_close, tolerance
from tests.contract.systems import BY_NAME
from tests.core.test_pardiso import laplacian, needs_pardiso, symbolic_of, without_diagonal
from tests.core.test_rslab import needs_rslab
from tsgu._core.factors import _batch, _memory, _rslab, _superlu
from tsgu._core.factors._batch import Factorisations

by_each = pytest.mark.parametrize(
    "library",
    ["superlu", pytest.param("pardiso", marks=needs_pardiso), pytest.param("rslab", marks=needs_rslab)],
)


def dense_members(dtype, count=5, n=30):
    """Nonsymmetric, of condition number below 100, on one pattern."""
    rng = np.random.default_rng(0)
    stored = (rng.random((n, n)) < 0.1) | np.eye(n, dtype=bool)
    A = rng.standard_normal((count, n, n)) * stored
    if np.issubdtype(dtype, np.complexfloating):
        A = A + 1j * rng.standard_normal((count, n, n)) * stored
    return ((A + 6 * np.eye(n)) * stored).astype(dtype), stored


def factored(dense, stored, library="superlu", **options):
    pattern = symbolic_of(sp.csr_array(stored.astype(float)))
    return Factorisations(pattern, pattern.blocks(len(dense)), dense[:, pattern.row, pattern.col], library, **options)


def sides(dense, k, seed=1):
    rng = np.random.default_rng(seed)
    b = rng.standard_normal((*dense.shape[:2], k))
    return (b + 1j * rng.standard_normal(b.shape) if np.iscomplexobj(dense) else b).astype(dense.dtype)


@by_each
@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex64, np.complex128])
def test_both_systems_of_each_member_are_solved(library, dtype, first):
    """Catches: the factors of a neighbour, a conjugate transpose, a column of another member."""
    dense, stored = dense_members(dtype)
    F = factored(dense, stored, library)
    for transposed in (first, not first):
        for k in (1, 3):
            b = sides(dense, k)
            x, residual, told = F.solve(b, transposed)
            exact = np.linalg.solve(dense.swapaxes(1, 2) if transposed else dense, b)
            assert x.dtype == dtype
            assert_close(x, exact, tolerance(100, dtype, 0), "x")
            assert told == {}
            assert residual.shape == (5, k)
            assert residual.max() < 1e-5


@by_each
def test_each_member_is_factored_once_for_both_systems(monkeypatch, library):
    """Catches: factors made again for the adjoint, or each member analysed."""
    dense, stored = dense_members(np.float64)
    made, original = [], _batch.attempts
    monkeypatch.setattr(_batch, "attempts", lambda *args: made.append(args[0]) or original(*args))
    F = factored(dense, stored, library)
    for transposed in (False, True, False):
        F.solve(sides(dense, 2), transposed)
    assert len(made) == len(dense)


@by_each
@pytest.mark.parametrize("first", [False, True])
def test_members_that_fail_are_told_by_number_and_the_others_are_right(library, first):
    """Catches: a batch lost with one member; a null vector that no pivot shows; one that a second solve forgets."""
    dense, stored = dense_members(np.float64, count=6)
    weak = dense[2]
    weak[:, 1] = 0
    weak[:4, 1], weak[:4, 0] = 0.3, 0.1  # columns that are multiples, up to rounding
    weak[4:, 0] = 0
    stored[:4, :2] = True
    dense[4, 7] = 0  # stored zeros
    F = factored(dense, stored, library)
    sound = [0, 1, 3, 5]
    b = sides(dense, 2)
    for transposed in (first, not first):
        x, _, told = F.solve(b, transposed)
        assert set(told) == {2, 4}
        assert {column.status for columns in told.values() for column in columns} == {"singular"}
        assert np.isnan(x[[2, 4]]).all()
        exact = np.linalg.solve((dense.swapaxes(1, 2) if transposed else dense)[sound], b[sound])
        assert_close(x[sound], exact, tolerance(100, np.float64, 0), "x")


def test_a_pattern_of_too_small_a_rank_makes_every_member_singular():
    """Catches: SuperLU given a column without any place for a pivot, or an empty row in a sum over rows."""
    stored = np.ones((3, 3), bool)
    stored[1] = False
    dense = np.random.default_rng(0).standard_normal((2, 3, 3)) * stored
    x, _, told = factored(dense, stored).solve(np.ones((2, 3, 1)), True)
    assert np.isnan(x).all()
    assert [columns[0].status for columns in told.values()] == ["singular", "singular"]


@by_each
def test_members_of_any_size_stand_side_by_side(library):
    """Catches: a common scale, in which 1e-200 beside 1e200 vanishes; a norm that overflows."""
    dense, stored = dense_members(np.float64)
    sizes = np.array([1e-200, 1, 1e200, 1e-300, 1e150])[:, None, None]
    b = sides(dense, 2) * np.array([1e200, 1, 1, 1e-100, 1e150])[:, None, None]
    x, _, told = factored(dense * sizes, stored, library).solve(b, False)
    exact = np.linalg.solve(dense[1:], b[1:]) / sizes[1:]
    assert 0 in told, "its solution is beyond the largest number"
    assert told[0][0].status == "overflow"
    for mine, its in zip(x[1:], exact, strict=True):
        assert_close(mine / abs(its).max(), its / abs(its).max(), tolerance(100, np.float64, 0), "x")


@by_each
def test_a_member_with_poor_pivots_is_solved_alone_and_well(library):
    """Catches: factors of the batch believed where a factorisation of its own would try others."""
    poor = without_diagonal(1e-17, seed=1)
    stored = poor != 0
    dense = np.stack([poor + 9 * np.eye(40), poor, poor + 12 * np.eye(40)])
    F = factored(dense, stored, library)
    for transposed in (False, True):
        b = sides(dense, 1)
        x, _, told = F.solve(b, transposed)
        assert {column.status for columns in told.values() for column in columns} <= {"converged"}
        exact = np.linalg.solve(dense.swapaxes(1, 2) if transposed else dense, b)
        assert_close(x, exact, tolerance(np.linalg.cond(poor), np.float64, 0), "x")


def test_zero_columns_are_zero_and_others_are_told_apart():
    """Catches: 0 / 0 in a column of zeros, or NaN of one column in its neighbour."""
    dense, stored = dense_members(np.float64)
    b = sides(dense, 3)
    b[1, :, 0], b[3, 4, 1] = 0, np.inf
    x, residual, told = factored(dense, stored).solve(b, False)
    assert not x[1, :, 0].any()
    assert residual[1, 0] == 0
    assert list(told) == [3]
    assert [column.status for column in told[3]] == ["converged", "non-finite", "converged"]
    assert np.isnan(x[3, :, 1]).all()
    rest = np.isfinite(b).all(axis=1)[:, None, :] & np.ones(x.shape, bool)
    exact = np.linalg.solve(dense, np.where(np.isfinite(b).all(axis=1, keepdims=True), b, 0))
    assert_close(x[rest], exact[rest], tolerance(100, np.float64, 0), "x")


@pytest.mark.parametrize("library", ["superlu", pytest.param("rslab", marks=needs_rslab)])
def test_threads_change_no_bit_and_keep_the_order(monkeypatch, library):
    """Catches: members exchanged between threads, or factors shared by two."""
    A = laplacian(32)
    assert A.nnz >= _batch._LONG
    scale = np.arange(1.0, 8.0)[:, None]
    b = np.random.default_rng(0).standard_normal((7, 1024, 2))
    monkeypatch.setattr(_batch, "threads_for", lambda asked: asked)
    alone, shared = (
        Factorisations(pattern, pattern.blocks(7), A.data * scale, library, threads=threads)
        for threads, pattern in ((1, symbolic_of(A)), (3, symbolic_of(A)))
    )
    for transposed in (False, True):
        np.testing.assert_array_equal(alone.solve(b, transposed)[0], shared.solve(b, transposed)[0])
    exact = np.linalg.solve(A.toarray(), b) / scale[:, None]
    assert_close(shared.solve(b, False)[0], exact, tolerance(1000, np.float64, 0), "x")


def test_small_matrices_start_no_thread(monkeypatch):
    """Catches: threads that wait for each other in a batch that takes a millisecond."""
    monkeypatch.setattr(_batch, "ThreadPoolExecutor", lambda *args: pytest.fail("a thread was started"))
    dense, stored = dense_members(np.float64)
    F = factored(dense, stored, threads=8)
    assert F.solve(sides(dense, 1), False)[2] == {}


def test_memory_is_asked_for_the_whole_batch(monkeypatch):
    """Catches: members that fit one by one, and take all memory together."""
    dense, stored = dense_members(np.float64, count=50)
    one = factored(dense[:1], stored)._factors[0].nbytes
    monkeypatch.setattr(_memory, "_NEGLIGIBLE", 0)
    monkeypatch.setattr(_memory, "available", lambda: 20 * one)
    with pytest.raises(MemoryError, match="direct by superlu"):
        factored(dense, stored)
    assert factored(dense[:10], stored).solve(sides(dense[:10], 1), False)[2] == {}


@needs_rslab
def test_the_next_batch_fills_the_factors_of_the_last(monkeypatch):
    """Catches: a search for pivots in each member of each step of a training loop."""
    A = laplacian(12)
    pattern, scale = symbolic_of(A), np.arange(1.0, 6.0)[:, None]
    given, original = [], _rslab.Analysis.take
    monkeypatch.setattr(_rslab.Analysis, "take", lambda *args: given.append(original(*args)) or given[-1])
    b = np.ones((5, 144, 1))
    for step in (1, 2):
        F = Factorisations(pattern, pattern.blocks(5), A.data * scale * step, "rslab")
        x = F.solve(b, False)[0]
        assert_close(x, np.linalg.solve(A.toarray(), b) / scale[:, None] / step, tolerance(100, np.float64, 0), "x")
        del F
    assert [handle is None for handle in given] == [True] * 5 + [False] * 5


def test_a_symmetric_pattern_is_ordered_as_a_single_matrix_is(monkeypatch):
    """Catches: COLAMD for a batch where minimum degree is three times as fast, or an order sought for each member."""
    asked, original = [], _superlu.splu
    monkeypatch.setattr(
        _superlu, "splu", lambda A, **options: asked.append(options["permc_spec"]) or original(A, **options)
    )
    A = BY_NAME["poisson"].dense
    factored(np.stack([A, 2 * A, 3 * A]), A != 0)
    assert asked == ["MMD_AT_PLUS_A", "NATURAL", "NATURAL"]
