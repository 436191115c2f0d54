"""Level schedules and host substitution, on whatever triangles hypothesis thinks of."""

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from tsgu._core.factors._substitution import Substitution, ZeroDiagonalError
from tsgu._core.pattern import _levels, _symbolic
from tsgu._core.pattern._triangle import Triangle


@st.composite
def triangles(draw):
    """A dense triangle with a stored diagonal, or none of it; perhaps of no rows at all."""
    n, upper, unit = draw(st.integers(0, 12)), draw(st.booleans()), draw(st.booleans())
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dense = rng.uniform(1, 2, (n, n)) * (rng.random((n, n)) < draw(st.sampled_from([0.0, 0.2, 0.9])))
    dense = np.triu(dense, 1) if upper else np.tril(dense, -1)
    return dense + (0 if unit else np.diag(rng.uniform(n + 1, n + 2, n))), upper, unit


def made(dense, upper, unit):
    row, col = np.nonzero(dense)
    return Triangle(_symbolic.from_coo(row, col, dense.shape), upper, unit), dense[row, col]


@given(triangles())
@settings(deadline=None)
def test_levels_respect_dependencies_and_are_the_lowest_that_do(given):
    """Catches: rows solved before those that they refer to, or needlessly late."""
    dense, upper, unit = given
    level = _levels.levels(made(dense, upper, unit)[0])
    for row in range(len(dense)):
        needed = [level[col] for col in np.flatnonzero(dense[row]) if col != row]
        assert level[row] == 1 + max(needed, default=-1)


@given(triangles())
@settings(deadline=None)
def test_a_schedule_holds_every_row_and_entry_once_and_solves_in_its_order(given):
    """Catches: a row in two steps, an entry lost between them, a step that reads what it is about to write."""
    dense, upper, unit = given
    triangle, values = made(dense, upper, unit)
    n, nnz = len(dense), values.size
    steps = _levels.schedule(triangle, _levels.levels(triangle), np.arange(nnz, dtype=np.int32))
    rows = steps.rows.ravel()
    assert sorted(rows[rows < n]) == list(range(n))
    places = steps.places.ravel()
    assert sorted(places[places < nnz]) == list(np.flatnonzero(triangle.symbolic.row != triangle.symbolic.col))
    b = np.arange(1.0, n + 1)
    x = np.full(n + 1, np.nan)
    for step, lanes in enumerate(steps.rows):
        left = np.append(b, 0.0)[lanes]
        for slot in range(steps.pointers[step], steps.pointers[step + 1]):
            used = steps.places[slot] < nnz
            left[used] -= values[steps.places[slot][used]] * x[steps.columns[slot][used]]
        real = lanes < n
        x[lanes[real]] = left[real] / (1.0 if unit else dense.diagonal()[lanes[real]])
    np.testing.assert_allclose((dense + (np.eye(n) if unit else 0)) @ x[:n], b, rtol=1e-9)


@pytest.mark.parametrize("kind", ["bidiagonal", "diagonal", "wide and deep"])
def test_padding_stays_within_a_small_factor(kind):
    """Catches: steps as wide as the widest level for a matrix whose levels are single rows."""
    n = 2000
    matrix = sp.eye_array(n, format="lil")
    if kind == "bidiagonal":
        matrix.setdiag(1.0, -1)
    if kind == "wide and deep":  # a thousand rows on one level, then a chain whose last rows are long
        for row in range(n // 2, n):
            matrix[row, row - 1] = 1.0
        matrix[n - 1, : n - 1] = 1.0
    matrix = sp.csr_array(matrix)
    triangle = Triangle(_symbolic.from_csr(matrix.indptr, matrix.indices, matrix.shape), False, False)
    steps = _levels.schedule(triangle, _levels.levels(triangle), np.arange(matrix.nnz, dtype=np.int32))
    assert steps.places.size + steps.rows.size <= 4 * (matrix.nnz + n)
    assert len(steps.rows) == {"bidiagonal": n, "diagonal": 1, "wide and deep": len(steps.rows)}[kind]


@given(triangles(), st.booleans())
@settings(deadline=None)
def test_substitution_with_scipy_solves_both_ways(given, transposed):
    """Catches: the kernel for builds of PyTorch without MKL, with the diagonal of ones filled in at the wrong
    places."""
    dense, upper, unit = given
    if not len(dense):
        return
    triangle, values = made(dense, upper, unit)
    T = dense + (np.eye(len(dense)) if unit else 0)
    b = np.cos(np.arange(2.0 * len(dense))).reshape(-1, 2)
    x, ((first, second),) = Substitution(triangle, values).solve(b, transposed)
    np.testing.assert_allclose((T.T if transposed else T) @ x, b, rtol=1e-9, atol=1e-9 * np.abs(x).max())
    assert first.status == second.status == "converged"


def test_a_zero_on_the_diagonal_names_its_row():
    """Catches: a division by zero, or another row named."""
    triangle = Triangle(_symbolic.from_coo(np.arange(3), np.arange(3), (3, 3)), True, False)
    with pytest.raises(ZeroDiagonalError) as caught:
        Substitution(triangle, np.array([1.0, 0.0, 0.0]))
    assert (caught.value.row, caught.value.count) == (1, 2)
