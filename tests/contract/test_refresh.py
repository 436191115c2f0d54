"""Preconditioners for other values on their pattern: right as dense matrices, transposed, and what is refused."""

import dataclasses

import numpy as np
import pytest

from tests.contract import truth
from tests.contract.compare import assert_close, tolerance
from tests.contract.multigrid import cycle, eigenvalue, levels_of, with_values
from tests.contract.systems import BY_NAME, System, right_hand_side
from tests.contract.test_preconditioners import SMALL, assert_is, built, magnetic, poisson

pytest.importorskip("pyamg", reason="needs pyamg")

BLOCK = 4


def drifted(system, size=0.5, seed=1):
    """Other values on the same pattern: times exp(size z), and as Hermitian and definite as before."""
    z = np.random.default_rng(seed).standard_normal((system.n, system.n))
    z = np.diag(z) + np.diag(z)[:, None] if system.hermitian else z
    return dataclasses.replace(system, values=system.values * np.exp(size * z[system.row, system.col]))


def diffusion(m, z):
    """-div(c grad) on m x m unknowns, a row of zeros around: harmonic means of c = exp(z), (m, m), between unknowns."""
    c, index = np.exp(z), np.arange(m * m).reshape(m, m)
    row, col, values = [], [], []
    diagonal = np.zeros((m, m))
    for a, b in (((slice(1, None), slice(None)), (slice(None, -1), slice(None))), (np.s_[:, 1:], np.s_[:, :-1])):
        mean = 2 / (1 / c[a] + 1 / c[b])
        diagonal[a] += mean
        diagonal[b] += mean
        row += [index[a].ravel(), index[b].ravel()]
        col += [index[b].ravel(), index[a].ravel()]
        values += [-mean.ravel(), -mean.ravel()]
    for edge in (np.s_[0], np.s_[-1], np.s_[:, 0], np.s_[:, -1]):
        diagonal[edge] += c[edge]
    row, col, values = [*row, index.ravel()], [*col, index.ravel()], [*values, diagonal.ravel()]
    return System("", *map(np.concatenate, (row, col, values)), m * m, hermitian=True, definite=True)


def matrix(package, system, layout="values"):
    return package.Problem(system, np.zeros(system.n, system.values.dtype), layout).matrix()


DENSE = {
    "jacobi": ((), {}, lambda A: np.diag(1 / np.diag(A))),
    "block_jacobi": ((BLOCK,), {}, lambda A: np.linalg.inv(np.where(same_block(len(A)), A, 0))),
    "ilu": ((), {"drop_tol": 0, "fill_factor": 50}, np.linalg.inv),
}


def same_block(n):
    block = np.arange(n) // BLOCK
    return block[:, None] == block


@pytest.mark.parametrize(
    ("name", "example", "layout"),
    [
        ("jacobi", "complex general", "coo"),
        ("jacobi", "duplicates", "coo"),
        ("block_jacobi", "complex general", "csr"),
        ("block_jacobi", "unsorted", "values"),
        ("ilu", "complex general", "coo"),
        ("ilu", "duplicates", "coo"),
        ("ilu", "no unknowns", "values"),
    ],
)
def test_a_refreshed_one_is_that_of_the_new_values_and_the_old_one_is_left(package, name, example, layout):
    """Catches: an array of the old one kept or written to; entries in the order of another matrix; a transpose that
    is refreshed as if it were not one."""
    old = BY_NAME[example]
    new = drifted(old)
    args, kwargs, inverse = DENSE[name]
    M = built(package, name, old, *args, layout=layout, **kwargs)
    A = matrix(package, new, layout)
    assert_is(package, M.refresh(A), inverse(new.dense))
    assert_is(package, M.refresh(matrix(package, new)), inverse(new.dense))
    flipped = dataclasses.replace(new, row=new.col, col=new.row)
    assert_is(package, M.T.refresh(matrix(package, flipped)), inverse(new.dense).T)
    assert_is(package, M.refresh(A).refresh(matrix(package, old, layout)), inverse(old.dense))
    assert_is(package, M, inverse(old.dense))


EXAMPLES = {
    "classical": (poisson(8), "ruge_stuben", 1),
    "nonsymmetric": (poisson(8, 0.5), "ruge_stuben", 2),
    "aggregation": (poisson(8, 0.5), "smoothed_aggregation", 1),  # R is not the transpose of P
    "many coarse eigenvalues": (poisson(10), "smoothed_aggregation", 3),
    "Hermitian": (magnetic(6), "root_node", 1),
    "complex symmetric": (BY_NAME["complex symmetric"], "smoothed_aggregation", 1),
    "one unknown": (BY_NAME["one unknown"], "ruge_stuben", 1),
    "no unknowns": (BY_NAME["no unknowns"], "ruge_stuben", 1),
}


@pytest.mark.parametrize("example", EXAMPLES)
def test_a_refreshed_hierarchy_is_the_v_cycle_with_old_transfers_and_new_products(package, example):
    """Catches: a coarse matrix, a scale or the coarse inverse of the old values; an entry that had cancelled and is
    missing; a transpose that is that of the old one.

    The products, the inverse and the cycle are those of dense matrices, the transfers those of the old hierarchy.
    """
    old, kind, degree = EXAMPLES[example]
    M = built(package, "amg", old, kind, degree=degree, **SMALL)
    levels = levels_of(old, kind, SMALL["max_coarse"])
    unchanged = cycle(levels, degree)
    assert_is(package, M.refresh(matrix(package, old)), unchanged)
    new = drifted(old)
    fresh = with_values(levels, new.dense, degree)
    expected = cycle(fresh, degree)
    refreshed = M.refresh(matrix(package, new))
    assert_is(package, refreshed, expected)
    flipped = dataclasses.replace(new, row=new.col, col=new.row)
    assert_is(package, M.T.refresh(matrix(package, flipped)), expected.T)
    assert_is(package, refreshed.refresh(matrix(package, old)), unchanged)
    assert_is(package, M, unchanged)
    if levels.levels:
        assert np.abs(expected - unchanged).max() > 0.05 * np.abs(unchanged).max()
    for level in fresh.levels:  # with less, the polynomial of this degree would amplify
        exact = np.abs(np.linalg.eigvals(level.A.toarray() / level.A.diagonal()[:, None])).max()
        assert (
            {1: 0.75, 2: 0.91, 3: 0.95}[degree] * exact
            <= eigenvalue(level)
            <= (1.5 if levels.hermitian else 10) * exact
        )


@pytest.mark.parametrize("size", [3.0, 1e21, 1e-30])
def test_the_scale_of_a_refreshed_hierarchy_is_that_of_its_matrix(package, size):
    """Catches: a smoother with the eigenvalue of the old matrix: a cycle that is none in other units."""
    system = poisson(12)
    M = built(package, "amg", system, max_coarse=10)
    refreshed = M.refresh(matrix(package, dataclasses.replace(system, values=size * system.values)))
    v = right_hand_side(system, None)
    expected = package.applied(M, v)
    assert np.linalg.norm(v - system.dense @ expected) < 0.9 * np.linalg.norm(v)
    np.testing.assert_allclose(size * package.applied(refreshed, v), expected, rtol=0, atol=1e-11 * abs(expected).max())


@pytest.mark.parametrize("kind", ["ruge_stuben", "smoothed_aggregation"])
def test_a_refreshed_hierarchy_takes_the_steps_of_a_new_one_and_stays_definite(package, kind):
    """Catches: levels that are stale, for which the steps here are many times as many; a smoother that amplifies."""
    z = np.random.default_rng(0).standard_normal((2, 24, 24))
    old, new = diffusion(24, z[0]), diffusion(24, z[0] + 1.5 * z[1])
    M = built(package, "amg", old, kind, max_coarse=20)
    fresh, refreshed = built(package, "amg", new, kind, max_coarse=20), M.refresh(matrix(package, new))
    b = right_hand_side(new, None)
    with package.record() as log:
        for own in (fresh, refreshed, M):
            package.Problem(new, b).solve(package.method("linear_cg"), M=own, rtol=1e-8)
    steps = [info.iterations for info in log]
    assert steps[1] <= 1.5 * steps[0] + 1, steps
    assert steps[2] > 2 * steps[1], steps
    dense = package.applied(refreshed, np.eye(new.n))
    assert_close(dense.T, dense, 1e-13, "M^T")
    assert np.linalg.eigvalsh(dense).min() > 0


def test_a_refreshed_one_serves_forward_and_adjoint_of_a_nonsymmetric_matrix(package):
    """Catches: a transpose of the old values in the adjoint, which gets there in many steps or not at all."""
    old = poisson(7, 0.4)
    new = drifted(old, 0.3)
    b, w = right_hand_side(new, None), right_hand_side(new, None, seed=4)
    M = built(package, "amg", old, "smoothed_aggregation", **SMALL).refresh(matrix(package, new))
    with package.record() as log:
        grads = package.Problem(new, b).gradients(w, package.method("gmres"), M=M, rtol=1e-10)
    assert [info.transposed for info in log] == [False, True]
    assert max(info.iterations for info in log) <= 30, log
    for got, expected in zip(grads, truth.gradients(new, b, w), strict=True):
        assert_close(got, expected, tolerance(new.condition, np.float64, 1e-10, 2), "gradient")


def refusals():
    old = poisson(5)
    moved = dataclasses.replace(old, row=np.append(old.row[:-1], 0), col=np.append(old.col[:-1], 24))
    more = dataclasses.replace(
        old, row=np.append(old.row, 0), col=np.append(old.col, 24), values=np.append(old.values, 1.0)
    )
    bad = dataclasses.replace(old, values=np.where(old.row == 2, np.inf, old.values))
    zero = dataclasses.replace(old, values=old.values * ((old.row != 3) | (old.col != 3)))
    return {
        "another size": (poisson(4), ValueError, r"must have the shape \(25, 25\) of the matrix that .*got \(16, 16\)"),
        "more entries": (
            more,
            ValueError,
            f"must have the pattern .*, with {old.row.size} entries; got {more.row.size}",
        ),
        "other places": (moved, ValueError, "entries; got as many in other places. Store the zeros that may become"),
        "not finite": (bad, ValueError, "A must be finite; got 10 non-finite"),
        "zero diagonal": (zero, ValueError, "A must have no zero on its diagonal for .*; got 1, the first in row 3"),
        "complex": (
            dataclasses.replace(old, values=old.values + 1j),
            TypeError,
            "must be real, like the matrix that .* was built for in .*float64; got .*complex128",
        ),
    }


NAMES = ("jacobi", "block_jacobi", "ilu", "amg")
UNFIT = [(name, what) for name in NAMES for what in refusals() if what != "zero diagonal" or name in ("jacobi", "amg")]


@pytest.mark.parametrize(("name", "what"), UNFIT)
def test_what_does_not_fit_is_refused_and_the_old_one_is_left(package, name, what):
    """Catches: values of another mesh laid on this pattern; NaN in every step; an old object half changed."""
    system, error, message = refusals()[what]
    old, args = poisson(5), (BLOCK,) if name == "block_jacobi" else ()
    M = built(package, name, old, *args)
    v = right_hand_side(old, None)
    before = package.applied(M, v)
    with pytest.raises(error, match=message):
        M.refresh(matrix(package, system))
    np.testing.assert_array_equal(package.applied(M, v), before)


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_and_a_dense_matrix_are_refused(package, name):
    """Catches: the first member for all; a dense matrix for its nonzero entries."""
    old = poisson(5)
    M = built(package, name, old, *((BLOCK,) if name == "block_jacobi" else ()))
    values = package.array(np.stack([old.values, old.values]))
    with pytest.raises(ValueError, match=r"A must be one matrix.*got a batch"):
        M.refresh(matrix(package, old).with_values(values))
    with pytest.raises(TypeError, match="A must be"):
        M.refresh(package.array(old.dense))


def test_a_hierarchy_that_is_its_own_adjoint_takes_hermitian_matrices_alone(package):
    """Catches: a nonsymmetric matrix on a symmetric hierarchy, whose transpose would be wrong without a word."""
    M = built(package, "amg", poisson(5), **SMALL)
    with pytest.raises(ValueError, match="A must be Hermitian, like the matrix that amg was built for"):
        M.refresh(matrix(package, poisson(5, 0.5)))
    both = poisson(5, 0.5)
    levels = with_values(levels_of(both, "ruge_stuben", 3), poisson(5).dense, 1)
    refreshed = built(package, "amg", both, **SMALL).refresh(matrix(package, poisson(5)))  # the other way is sound
    assert_is(package, refreshed, cycle(levels, 1))
