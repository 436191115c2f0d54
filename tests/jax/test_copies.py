"""Copies of everything that the package hands out, in this process and in another; and trees with other leaves."""

import copy
import pickle
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tsgu_jax
from tests.jax.child import run
from tsgu_jax import precond

N = 12


def dense(shift=2.5):
    return np.diag(np.full(N, shift)) - np.diag(np.ones(N - 1), 1) - np.diag(np.ones(N - 1), -1)


def sparse(full):
    row, col = np.nonzero(full)
    return tsgu_jax.SparseMatrix.from_coo(row, col, jnp.asarray(full[row, col]), full.shape)


def solved(prepared):
    """By something prepared or a preconditioner: what it makes of a vector, and its transpose."""
    b = jnp.arange(1.0, N + 1)
    if hasattr(prepared, "solve"):
        return prepared.solve(b), prepared.solve_transpose(b)
    return prepared(b), prepared.T(b)


def exact_ilu(A):
    return precond.ilu(A, drop_tol=0, fill_factor=50)


SOLVERS = {
    "direct": lambda A: tsgu_jax.direct.prepare(A),
    "auto": lambda A: tsgu_jax.auto.prepare(A),
    "linear_cg": lambda A: tsgu_jax.linear_cg.prepare(A, M=precond.jacobi(A)),
    "minres": lambda A: tsgu_jax.minres.prepare(A, rtol=1e-10),
    "bicgstab": lambda A: tsgu_jax.bicgstab.prepare(A, M=exact_ilu(A)),
    "gmres": lambda A: tsgu_jax.gmres.prepare(A),
    "jacobi": precond.jacobi,
    "block_jacobi": lambda A: precond.block_jacobi(A, 5),
    "ilu": exact_ilu,
    "ilu.T": lambda A: exact_ilu(A).T,
    "amg": lambda A: precond.amg(A, max_coarse=3),
}
DATA = {
    "Pattern": lambda A: A.pattern,
    "Pattern of the transpose": lambda A: A.pattern.T,
    "SparseMatrix": lambda A: A,
    "batch": lambda A: A.with_values(jnp.stack([A.values, 2 * A.values])),
    "method": lambda A: tsgu_jax.gmres,
    "settings": lambda A: tsgu_jax.LinearCGSettings(max_cg_iterations=7),
    "lsmr prepared": lambda A: tsgu_jax.lsmr.prepare(A),
    "log": lambda A: _log(A),
    "information": lambda A: _log(A)[0],
}
WAYS = {"copy": copy.copy, "deepcopy": copy.deepcopy, "pickle": lambda kept: pickle.loads(pickle.dumps(kept))}

every_way = pytest.mark.parametrize("way", WAYS)


def _log(A):
    with tsgu_jax.record() as log:
        tsgu_jax.linear_cg(A, jnp.ones(N))
    return log


@every_way
@pytest.mark.parametrize("name", SOLVERS)
def test_a_copy_of_what_solves_solves_the_same(name, way):
    """Catches: an error about a function that pickle does not find, a copy with the factors of something else."""
    if name == "amg":
        pytest.importorskip("pyamg")
    kept = SOLVERS[name](sparse(dense()))
    again = WAYS[way](kept)
    assert repr(again) == repr(kept)
    for one, other in zip(solved(again), solved(kept), strict=True):
        np.testing.assert_array_equal(one, other)


@every_way
@pytest.mark.parametrize("name", DATA)
def test_what_is_data_can_be_copied(name, way):
    """Catches: a lock or a compiled program inside of something that a user saves."""
    kept = DATA[name](sparse(dense()))
    again = WAYS[way](kept)
    assert repr(again) == repr(kept)
    for one, other in zip(jax.tree.leaves(again), jax.tree.leaves(kept), strict=True):
        if isinstance(kept, tsgu_jax.Pattern | tsgu_jax.SparseMatrix):
            np.testing.assert_array_equal(one, other)


def pickled(path):
    """The first factors of a process."""
    A = sparse(dense())
    kept = [prepare(A) for _ in range(4) for prepare in (tsgu_jax.direct.prepare, exact_ilu)]
    Path(path).write_bytes(pickle.dumps(kept))


def in_another_process(path):
    """Here the first factors are those of other matrices."""
    for shift in range(3, 9):
        others = sparse(dense(shift))
        tsgu_jax.direct.prepare(others), exact_ilu(others)
    kept = pickle.loads(Path(path).read_bytes())
    b = np.arange(1.0, N + 1)
    expected = np.linalg.solve(dense(), b)
    for prepared in kept:
        for x in solved(prepared):
            np.testing.assert_allclose(x, expected, rtol=1e-10)
    x = tsgu_jax.solve(sparse(dense()), jnp.asarray(b), kept[0])
    np.testing.assert_allclose(x, expected, rtol=1e-10)


def test_factors_that_were_pickled_are_not_taken_for_those_of_another_matrix(tmp_path):
    """Catches: a number of factors that means another matrix in another process: a wrong solution without a word."""
    path = tmp_path / "kept"
    run(pickled, str(path))
    run(in_another_process, str(path))


LEAVES = {
    "none": lambda leaf: None,
    "object": lambda leaf: object(),
    "text": lambda leaf: "leaf",
    "double": lambda leaf: 2 * leaf,
}


@pytest.mark.parametrize("name", [*SOLVERS, "Pattern", "SparseMatrix", "batch"])
def test_a_tree_prints_whatever_its_leaves_are(name):
    """Catches: a debugger, or a printed gradient, that raises: transformations put anything in the place of an
    array."""
    if name == "amg":
        pytest.importorskip("pyamg")
    kept = (SOLVERS | DATA)[name](sparse(dense()))
    kind = repr(kept).strip("<").split("(")[0].split(" ")[0].split(":")[0]
    for leaves, change in LEAVES.items():
        assert repr(jax.tree.map(change, kept)).strip("<").startswith(kind), leaves


def test_a_matrix_whose_indices_were_averaged_is_refused():
    """Catches: an exponential average of a whole model, after which an index is a float: an error from deep inside
    JAX."""
    A = sparse(dense())
    mean = jax.tree.map(lambda a, b: 0.9 * a + 0.1 * b, A, A)
    for use in (
        lambda: tsgu_jax.linear_cg(mean, jnp.ones(N)),
        lambda: mean @ jnp.ones(N),
        lambda: mean.to_dense(),
    ):
        with pytest.raises(TypeError, match=r"must be integers; got float64.*A\.with_values"):
            use()
    zeros = A.with_values(jax.tree.map(jnp.zeros_like, A.values))
    np.testing.assert_array_equal(zeros.to_dense(), np.zeros((N, N)))
