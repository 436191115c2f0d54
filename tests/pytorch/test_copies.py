"""Objects that outlive the values they were made of: copies, pickles, and values that change in place."""

import copy
import io
import pickle
import subprocess
import sys

import numpy as np
import pytest
import scipy.sparse as sp
import torch

import tsgu

N = 64
LINE = sp.diags_array([-1.0, 2.5, -1.2], offsets=[-1, 0, 1], shape=(N, N))
A = tsgu.SparseMatrix.from_scipy(LINE)
DENSE = A.to_dense()
B = torch.from_numpy(np.random.default_rng(0).standard_normal((N, 2)))
SYMMETRIC = tsgu.SparseMatrix.from_scipy(sp.diags_array([-1.0, 2.5, -1.0], offsets=[-1, 0, 1], shape=(N, N)))

PREPARED = {
    "direct": lambda A: tsgu.direct.prepare(A),
    "auto": lambda A: tsgu.auto.prepare(A),
    "linear_cg": lambda A: tsgu.linear_cg.prepare(A),
    "minres": lambda A: tsgu.minres.prepare(A),
    "bicgstab": lambda A: tsgu.bicgstab.prepare(A, rtol=1e-10),
    "gmres with ilu": lambda A: tsgu.gmres.prepare(A, M=tsgu.precond.ilu(A)),
    "gmres with a matrix": lambda A: tsgu.gmres.prepare(A, M=A),
    "gmres with a dense matrix": lambda A: tsgu.gmres.prepare(A, M=A.values.new_ones(N).mul_(A.values[0]).diag()),
}

PRECONDITIONERS = {
    "jacobi": lambda A: tsgu.precond.jacobi(A),
    "block_jacobi": lambda A: tsgu.precond.block_jacobi(A, 2),
    "ilu": lambda A: tsgu.precond.ilu(A),
    "amg": lambda A: tsgu.precond.amg(A),
    "amg of the transpose": lambda A: tsgu.precond.amg(A).T,
}


def pickled(thing):
    return pickle.loads(pickle.dumps(thing))


def saved(thing):
    buffer = io.BytesIO()
    torch.save(thing, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


WAYS = {"deepcopy": copy.deepcopy, "copy": copy.copy, "pickle": pickled, "torch.save": saved}


def matrix_for(name):
    return SYMMETRIC if name in ("linear_cg", "minres") else A


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", PREPARED)
def test_what_is_prepared_can_be_copied_and_solves_the_same(name, way):
    """Catches: a TypeError about a lock; a copy without its tolerance; one of the transpose."""
    prepared = PREPARED[name](matrix_for(name))
    other = WAYS[way](prepared)
    assert repr(other) == repr(prepared)
    for solve in ("solve", "solve_transpose"):
        assert torch.equal(getattr(other, solve)(B), getattr(prepared, solve)(B))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", PRECONDITIONERS)
def test_preconditioners_can_be_copied(name, way):
    """Catches: a TypeError about SuperLU; factors with other tolerances."""
    M = PRECONDITIONERS[name](A)
    other = WAYS[way](M)
    assert repr(other) == repr(M)
    assert torch.equal(other(B), M(B))
    assert torch.equal(other.T(B), M.T(B))


def test_an_ilu_is_copied_with_its_options():
    """Catches: factors made again with the defaults."""
    K = tsgu.SparseMatrix.from_scipy(sp.kronsum(LINE, LINE))
    M = tsgu.precond.ilu(K, drop_tol=0.1, fill_factor=2.0)
    assert M._factors.nnz < tsgu.precond.ilu(K)._factors.nnz
    assert pickled(M)._factors.nnz == M._factors.nnz


@pytest.mark.parametrize("way", WAYS)
def test_matrices_patterns_and_records_can_be_copied(way):
    """Catches: an object of the package in a module, an experiment's results, that cannot be saved."""
    tsgu.direct(A, B)  # what is kept with the pattern must not get in the way
    assert A.T.pattern.T is A.pattern
    other = WAYS[way](A)
    assert torch.equal(other.to_dense(), DENSE)
    assert torch.equal(other.T.to_dense(), DENSE.T)
    torch.testing.assert_close(tsgu.direct(other, B), torch.linalg.solve(DENSE, B))
    with tsgu.record() as log:
        tsgu.linear_cg(SYMMETRIC, B)
    assert str(WAYS[way](log)) == str(log)
    assert WAYS[way](log[0]) == log[0]
    settings = tsgu.LinearCGSettings(max_cg_iterations=3)
    assert WAYS[way](settings) == settings


def test_what_is_found_out_about_a_pattern_is_not_pickled():
    """Catches: a file ten times as large as the matrix: transposes, orders of elimination, tensors of indices."""
    pattern = tsgu.Pattern(A.pattern.row, A.pattern.col, (N, N))
    before = len(pickle.dumps(pattern))
    tsgu.direct(tsgu.SparseMatrix(A.values, pattern), B)
    assert pattern.T.row.numel() == pattern.nnz
    assert len(pickle.dumps(pattern)) == before


def test_a_pickle_opens_in_another_process(tmp_path):
    """Catches: something that refers to the process that wrote it."""
    path = tmp_path / "kept"
    things = [tsgu.direct.prepare(A), tsgu.precond.ilu(A), tsgu.precond.amg(A)]
    path.write_bytes(pickle.dumps((things, B, torch.linalg.solve(DENSE, B))))
    code = """
import pickle, sys, warnings
warnings.simplefilter("error")
import torch
(factors, ilu, amg), B, x = pickle.loads(open(sys.argv[1], "rb").read())
torch.testing.assert_close(factors.solve(B), x)
torch.testing.assert_close(ilu(B), x)
assert torch.isfinite(amg(B)).all()
"""
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)


def test_a_prepared_solver_keeps_no_graph():
    """Catches: the history of a parameter in a pickle, or in memory for as long as the factors."""
    root = torch.ones(A.nnz, dtype=torch.float64, requires_grad=True)
    for made_of in (A.with_values(A.values * root), A.with_values(torch.nn.Parameter(A.values.clone()))):
        other = pickled(tsgu.gmres.prepare(made_of, M=made_of))
        for matrix in (other._made_of[1], other._made_of[2]["M"]):
            assert not matrix.values.requires_grad
            assert not isinstance(matrix.values, torch.nn.Parameter)


@pytest.mark.parametrize("name", PREPARED)
def test_what_is_prepared_does_not_follow_values_that_change_in_place(name):
    """Catches: the solution of another system after each step of an optimiser; of none, where half of it has
    followed."""
    matrix = matrix_for(name)
    values = torch.nn.Parameter(matrix.values.clone())
    prepared = PREPARED[name](matrix.with_values(values))
    before = prepared.solve(B), prepared.solve_transpose(B)
    for _ in range(2):
        with torch.no_grad():
            values.mul_(1.5)
        assert torch.equal(prepared.solve(B), before[0])
        assert torch.equal(prepared.solve_transpose(B), before[1])
    torch.testing.assert_close(before[0], torch.linalg.solve(matrix.to_dense(), B), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ["direct", "bicgstab", "auto"])
@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr])
def test_nor_the_values_of_a_sparse_tensor(name, layout):
    """Catches: the memory of a tensor shared on the way to a SparseMatrix."""
    given = A.to_tensor(layout)
    prepared = PREPARED[name](given)
    before = prepared.solve(B)
    (given._values() if layout == torch.sparse_coo else given.values()).mul_(1.5)
    assert torch.equal(prepared.solve(B), before)


@pytest.mark.parametrize("name", PRECONDITIONERS)
def test_preconditioners_do_not_follow_values_that_change_in_place(name):
    """Catches: an M that changes during a solve, or half of one."""
    values = A.values.clone()
    M = PRECONDITIONERS[name](A.with_values(values))
    before = M(B), M.T(B)
    values.mul_(1.5)
    assert torch.equal(M(B), before[0])
    assert torch.equal(M.T(B), before[1])


def test_least_squares_prepared_by_hand_do_not_follow_either():
    """Catches: a scaled copy that one day is a view."""
    values = A.values.clone()
    prepared = tsgu.lsmr.prepare(A.with_values(values))
    before = prepared.least_squares(B, None)[0]
    values.mul_(1.5)
    assert torch.equal(prepared.least_squares(B, None)[0], before)
