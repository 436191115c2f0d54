"""Errors in our words where one from inside PyTorch, NumPy or Python would come; and what may well be given."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch

import tsgu

EYE = sp.csr_array(np.eye(3))
A = tsgu.SparseMatrix.from_coo([0, 1, 2, 0], [0, 1, 2, 1], torch.tensor([2.0, 3.0, 4.0, 1.0]).double(), (3, 3))
B = torch.ones(3, dtype=torch.float64)
LINEAR = sp.linalg.aslinearoperator(EYE)


@pytest.mark.parametrize(
    "call",
    [
        lambda M: tsgu.sparse_generic_solve(M, B),
        lambda M: tsgu.sparse_generic_lstsq(M, B),
        lambda M: tsgu.sparse_triangular_solve(M, B),
        lambda M: tsgu.gmres(M, B),
        lambda M: tsgu.gmres.prepare(M),
        lambda M: tsgu.direct.prepare(M),
        lambda M: tsgu.precond.amg(M),
        tsgu.SparseMatrix.from_tensor,
    ],
)
@pytest.mark.parametrize("make", [sp.csr_array, sp.csc_matrix])
def test_a_matrix_of_scipy_is_sent_to_from_scipy(call, make):
    """Catches: AttributeError, or a matrix that is taken for a function and fails later."""
    with pytest.raises(
        (ValueError, TypeError), match=r"A must be .*; got cs._\w+\. Convert it by SparseMatrix\.from_scipy\(A\)"
    ):
        call(make(EYE))


def test_arrays_and_matrices_of_other_libraries_are_named_with_the_way_here():
    """Catches: TypeError that leaves a reader with a matrix and nowhere to go."""
    cases = [
        (lambda: tsgu.gmres(np.eye(3), B), r"got ndarray\. Convert it by torch\.from_numpy\(A\)\.to_sparse_csr\(\)"),
        (
            lambda: tsgu.gmres(A, B.numpy()),
            r"B must be a dense .*; got ndarray\. Convert it by torch\.from_numpy\(B\)\.",
        ),
        (lambda: tsgu.gmres(A, EYE), r"B must be a dense .*; got csr_array\. Convert it by B\.toarray\(\)"),
        (lambda: tsgu.gmres(A, B, M=EYE), r"M must be .*; got csr_array\. Convert it by SparseMatrix\.from_scipy\(M\)"),
    ]
    for call, message in cases:
        with pytest.raises((ValueError, TypeError), match=message):
            call()


SOLVES = {
    "gmres": lambda A, b: tsgu.gmres(A, b),
    "direct": lambda A, b: tsgu.direct(A, b),
    "least squares": lambda A, b: tsgu.sparse_generic_lstsq(A, b),
    "triangular": lambda A, b: tsgu.sparse_triangular_solve(A, b),
    "product": lambda A, b: A @ b,
    "product of products": lambda A, b: (A @ A + A) @ b,
}


@pytest.mark.parametrize("name", SOLVES)
@pytest.mark.parametrize("shape", [(0, 3), (0, 3, 2)])
def test_a_batch_of_nothing_has_an_empty_solution_with_empty_gradients(name, shape):
    """Catches: RuntimeError: stack expects a non-empty TensorList."""
    values = torch.ones(0, 4, dtype=torch.float64, requires_grad=True)
    b = torch.ones(shape, dtype=torch.float64, requires_grad=True)
    x = SOLVES[name](A.with_values(values), b)
    assert x.shape == shape
    grads = torch.autograd.grad(x.sum(), (values, b), create_graph=True)
    assert [g.shape for g in grads] == [values.shape, b.shape]
    plain = values.detach(), b.detach()
    tangent = torch.func.jvp(lambda v, b: SOLVES[name](A.with_values(v), b), plain, plain)[1]
    assert tangent.shape == shape


@pytest.mark.parametrize("name", SOLVES)
def test_vmap_over_no_right_hand_sides_has_a_gradient_of_zero(name):
    """Catches: an error, or a result that has lost its place in the graph."""
    values = A.values.clone().requires_grad_()
    x = torch.func.vmap(lambda b: SOLVES[name](A.with_values(values), b))(torch.ones(0, 3, dtype=torch.float64))
    assert x.shape == (0, 3)
    assert torch.equal(torch.autograd.grad(x.sum(), values)[0], torch.zeros(4, dtype=torch.float64))


def test_vmap_takes_a_batched_matrix_and_grad_one_as_an_argument():
    """Catches: ValueError: We cannot vmap over non-Tensor arguments."""
    batch = A.with_values(torch.stack([A.values, 2 * A.values]))
    D = batch.to_dense()
    expected = torch.linalg.solve(D, B.expand(2, 3))
    torch.testing.assert_close(torch.func.vmap(lambda A: tsgu.direct(A, B))(batch), expected)
    torch.testing.assert_close(torch.func.vmap(lambda A, b: A @ b, in_dims=(0, None))(batch, B), D @ B)
    doubled = torch.func.vmap(lambda s: s * A)(torch.tensor([1.0, 2.0], dtype=torch.float64))
    torch.testing.assert_close(doubled.to_dense(), D)
    gradient = torch.func.grad(lambda A: tsgu.direct(A, B).sum())(A)
    x = torch.linalg.solve(D[0], B)
    full = -torch.outer(torch.linalg.solve(D[0].T, torch.ones_like(B)), x)
    assert gradient.pattern is A.pattern
    torch.testing.assert_close(gradient.values, full[A.pattern.row.long(), A.pattern.col.long()])


def test_entries_that_vmap_would_have_to_find_are_refused():
    """Catches: RuntimeError: Batching rule not implemented for aten::nonzero."""
    D = torch.eye(3, dtype=torch.float64).expand(2, 3, 3)
    with pytest.raises(
        NotImplementedError, match=r"A must be the same for all members .* pattern\.matrix\(A\[row, col\]\)"
    ):
        torch.func.vmap(lambda D: tsgu.gmres(tsgu.SparseMatrix.from_tensor(D), B))(D)
    pattern = tsgu.Pattern([0, 1, 2], [0, 1, 2], (3, 3))
    x = torch.func.vmap(lambda D: tsgu.gmres(pattern.matrix(D[[0, 1, 2], [0, 1, 2]]), B))(2 * D)
    torch.testing.assert_close(x, torch.full((2, 3), 0.5, dtype=torch.float64))
