"""Triangular solves with torch's own sparse tensors, and with a build of PyTorch that lacks MKL."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

import tsgu

N = 5


def dense(upper, unit, members=None, dtype=torch.float64):
    generator = torch.Generator().manual_seed(3)
    shape = (N, N) if members is None else (members, N, N)
    D = torch.randn(shape, dtype=dtype, generator=generator) * (torch.rand(shape, generator=generator) < 0.6)
    D = torch.triu(D, 1) if upper else torch.tril(D, -1)
    return D if unit else D + 3 * torch.eye(N, dtype=dtype)


def rhs(*shape, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(4)).requires_grad_()


def full(members):
    """Members with as many entries each, as batched CSR wants."""
    return torch.tril(1 + torch.rand(members, N, N, dtype=torch.float64)).to_sparse_csr()


CASES = {
    "coo": (lambda: dense(False, False).to_sparse_coo(), (N, 2), (False, False, False)),
    "coo unit transposed": (lambda: dense(True, True).to_sparse_coo(), (N, 2), (True, True, True)),
    "csr complex": (lambda: dense(True, False, dtype=torch.complex128).to_sparse_csr(), (N,), (True, False, True)),
    "coo batch": (lambda: dense(False, False, 3).to_sparse_coo(), (3, N, 2), (False, False, True)),
}


@pytest.mark.parametrize("case", CASES)
def test_the_solve_and_the_values_of_its_gradient_pass_gradcheck(case):
    """Catches: a gradient in the wrong order of entries or members, a second derivative lost on the way to a sparse
    gradient."""
    build, shape, flags = CASES[case]
    A = build()
    b = rhs(*shape, dtype=A.dtype)
    A = A.requires_grad_()

    def solve(A, b):
        return tsgu.sparse_triangular_solve(A, b, *flags)

    def gradient_values(A, b):
        x = solve(A, b)
        (grad,) = torch.autograd.grad((x * x * x).sum().real, A, create_graph=True)
        return 1 * (grad.coalesce().values() if grad.layout == torch.sparse_coo else grad.values())

    assert gradcheck(solve, (A, b), masked=True)
    assert gradcheck(gradient_values, (A, b), masked=True, check_undefined_grad=False)


@pytest.mark.parametrize("flags", [(False, False, True), (True, True, False)])
def test_values_on_a_pattern_pass_gradgradcheck_in_both_modes(flags):
    """Catches: a tangent of the adjoint with the triangle turned once too often."""
    matrix = tsgu.SparseMatrix.from_tensor(dense(*flags[:2]))
    values, b = matrix.values.clone().requires_grad_(), rhs(N, 2)

    def solve(values, b):
        return tsgu.sparse_triangular_solve(matrix.with_values(values), b, *flags)

    assert gradcheck(solve, (values, b), check_forward_ad=True, check_batched_grad=True)
    assert gradgradcheck(solve, (values, b), check_fwd_over_rev=True)


def test_the_gradient_of_a_batch_keeps_layout_and_index_dtype():
    """Catches: a gradient that an optimiser cannot add to its parameter."""
    A = full(2)
    A = torch.sparse_csr_tensor(A.crow_indices().int(), A.col_indices().int(), A.values(), A.shape).requires_grad_()
    tsgu.sparse_triangular_solve(A, torch.ones(2, N, dtype=torch.float64), upper=False).sum().backward()
    assert A.grad.layout == torch.sparse_csr
    assert A.grad.col_indices().dtype == torch.int32
    assert A.grad.shape == A.shape


def test_second_derivatives_of_a_batch_in_csr_equal_the_dense_ones():
    """Catches: members mixed where a gradient in CSR is differentiated; gradcheck does not know such tensors."""
    A, b = full(2).requires_grad_(), rhs(2, N, 1)

    def second(x, matrix, values):
        (g,) = torch.autograd.grad(x.square().sum(), matrix, create_graph=True)
        return torch.autograd.grad(values(g).pow(3).sum(), (matrix, b))

    got = second(tsgu.sparse_triangular_solve(A, b, upper=False), A, lambda g: 1 * g.values())
    D = A.detach().to_dense().requires_grad_()
    expected = second(torch.linalg.solve_triangular(D, b, upper=False), D, torch.tril)
    torch.testing.assert_close(got[0].to_dense(), expected[0].tril())
    torch.testing.assert_close(got[1], expected[1])


def test_a_second_derivative_lost_in_the_constructor_of_a_batch_is_warned_of():
    """Catches: a Hessian of zeros, without a word."""
    D = dense(False, False, 2)
    indices = D.nonzero().T
    values = D[tuple(indices)].requires_grad_()
    A = torch.sparse_coo_tensor(indices, values, D.shape)
    x = tsgu.sparse_triangular_solve(A, torch.ones(2, N, dtype=torch.float64), upper=False)
    with pytest.warns(UserWarning, match=r"second derivative .* is lost"):
        torch.autograd.grad(x.sum(), values, create_graph=True)


def test_repeats_in_a_batch_are_added_in_coo_and_refused_in_csr():
    """Catches: a member of a CSR batch with fewer entries than the others, once its repeats are added."""
    member = torch.tensor([[0, 0, 1, 1, 0], [0, 0, 0, 1, 1], [0, 0, 0, 1, 1]])
    A = torch.sparse_coo_tensor(member, torch.tensor([1.0, 1.0, 4.0, 2.0, 5.0]), (2, 2, 2))
    got = tsgu.sparse_triangular_solve(A, torch.ones(2, 2))
    torch.testing.assert_close(got, torch.tensor([[0.5, 0.2], [0.25, 0.5]]))
    crow, col = torch.tensor([[0, 2, 3], [0, 1, 3]]), torch.tensor([[0, 0, 1], [0, 1, 1]])
    B = torch.sparse_csr_tensor(crow, col, torch.ones(2, 3), (2, 2, 2), check_invariants=False)
    with pytest.raises(
        ValueError, match=r"A must store each position once in a batch in layout torch\.sparse_csr; got 2"
    ):
        tsgu.sparse_triangular_solve(B, torch.ones(2, 2))


def test_without_mkl_the_results_are_the_same(monkeypatch):
    """Catches: a fallback that nobody has run."""
    D, b = dense(True, False), torch.ones(N, 2, dtype=torch.float64)
    expected = torch.linalg.solve_triangular(D.T, b, upper=False)
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: False)
    got = tsgu.sparse_triangular_solve(D.to_sparse_csr(), b, transpose=True)
    torch.testing.assert_close(got, expected)


def test_other_shapes_are_value_errors():
    """Catches: a batch of batches, or entries that are matrices."""
    with pytest.raises(
        ValueError, match=r"two dimensions, \(m, m\), or three for a batch, \(batch, m, m\); got \(1, 1"
    ):
        tsgu.sparse_triangular_solve(torch.ones(1, 1, 2, 2).to_sparse(), torch.ones(2))
    with pytest.raises(ValueError, match=r"whose entries have shape \(2,\)"):
        tsgu.sparse_triangular_solve(torch.ones(2, 2, 2).to_sparse(2), torch.ones(2))
