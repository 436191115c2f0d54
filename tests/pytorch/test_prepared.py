"""A method prepared for one matrix, used by hand."""

import pytest
import torch
from torch.autograd import forward_ad

import tsgu

A = torch.tensor([[2.0, 1.0], [0.0, 4.0]], dtype=torch.float64)


@pytest.fixture(params=[torch.sparse_coo, torch.sparse_csr], ids=["coo", "csr"])
def factors(request):
    return tsgu.direct.prepare(A.to_sparse(layout=request.param).requires_grad_())


def test_it_solves_with_the_matrix_and_its_transpose(factors):
    """Catches: a transpose that is that of the transpose; columns read as rows."""
    B = torch.tensor([[4.0, 1.0, 0.0], [8.0, 0.0, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(factors.solve(B), torch.linalg.solve(A, B))
    torch.testing.assert_close(factors.solve_transpose(B[:, 0]), torch.linalg.solve(A.T, B[:, 0]))
    assert repr(factors) == "<direct prepared for a matrix of shape (2, 2), dtype torch.float64>"


def test_single_precision_is_promoted(factors):
    """Catches: factors in double precision handed a vector of floats."""
    assert factors.solve(torch.ones(2)).dtype == torch.float64


@pytest.mark.parametrize(
    ("B", "error", "message"),
    [
        ([1.0, 2.0], ValueError, "B must be a dense torch.Tensor; got list"),
        (torch.ones(3), ValueError, r"B must have shape \(2,\) or \(2, k\) to match A; got \(3,\)"),
        (torch.ones(2).to_sparse(), TypeError, r"B must be dense \(strided\); got layout torch.sparse_coo"),
        (torch.ones(2, dtype=torch.int64), TypeError, "B must have dtype float32, .*; got torch.int64"),
    ],
    ids=["list", "shape", "layout", "dtype"],
)
def test_a_wrong_right_hand_side_is_named(factors, B, error, message):
    """Catches: an error in the words of SuperLU, or of Python."""
    with pytest.raises(error, match=message):
        factors.solve(B)


def test_a_right_hand_side_that_requires_grad_is_refused_with_the_remedy(factors):
    """Catches: a gradient that is silently cut."""
    b = torch.ones(2, dtype=torch.float64, requires_grad=True)
    with pytest.raises(TypeError, match=r"G must not require grad .* Pass the prepared object as solve="):
        factors.solve_transpose(b)
    with torch.no_grad():
        assert not factors.solve(b).requires_grad
    x = tsgu.sparse_generic_solve(A.to_sparse(), b, solve=factors)
    (gradient,) = torch.autograd.grad(x.sum(), b)
    torch.testing.assert_close(gradient, torch.linalg.solve(A.T, torch.ones(2, dtype=torch.float64)))


@pytest.mark.parametrize("method", ["direct", "auto", "gmres"])
def test_the_conjugate_transpose_is_prepared_like_any_other_matrix(method):
    """Catches: values that are conjugated lazily, which NumPy does not read."""
    dense = torch.tensor([[2.0, 1.0j], [0.0, 4.0 + 1.0j]], dtype=torch.complex128)
    b = torch.tensor([4.0, 8.0j], dtype=torch.complex128)
    prepared = getattr(tsgu, method).prepare(tsgu.SparseMatrix.from_tensor(dense.to_sparse()).mH)
    torch.testing.assert_close(prepared.solve(b), torch.linalg.solve(dense.mH, b))


def test_a_tangent_is_refused_like_a_graph(factors):
    """Catches: a derivative in forward mode that is silently cut."""
    b = torch.ones(2, dtype=torch.float64)
    with forward_ad.dual_level(), pytest.raises(TypeError, match=r"B must not require grad .* or that has a tangent"):
        factors.solve(forward_ad.make_dual(b, b))


def test_the_time_of_the_factorisation_counts_once(monkeypatch):
    """Catches: a log in which factoring costs nothing, or is paid for in every solve."""
    import tsgu._methods._direct as module

    clock = iter([0.0, 5.0, 10.0, 11.0, 20.0, 21.0])
    monkeypatch.setattr(module.time, "perf_counter", lambda: next(clock))
    factors = tsgu.direct.prepare(A.to_sparse())
    with tsgu.record() as log:
        factors.solve(torch.ones(2, dtype=torch.float64))
        factors.solve(torch.ones(2, dtype=torch.float64))
    assert [info.seconds for info in log] == [6.0, 1.0]
