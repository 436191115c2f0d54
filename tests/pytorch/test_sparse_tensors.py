"""torch's own sparse tensors as A: layouts, index dtypes, second order, and where PyTorch loses it."""

import warnings

import pytest
import torch
from torch.autograd import gradcheck

import tsgu
from tests.contract.systems import ITERATIVE, METHODS

N = 5
LAYOUTS = ("coo", "uncoalesced", "csr", "csr32")


def dense(dtype=torch.float64):
    generator = torch.Generator().manual_seed(3)
    entries = torch.randn(N, N, dtype=dtype, generator=generator)
    return entries * (torch.rand(N, N, generator=generator) < 0.5) + 5 * torch.eye(N, dtype=dtype)


def leaf(layout, dtype=torch.float64):
    D = dense(dtype)
    row, col = D.nonzero(as_tuple=True)
    values = D[row, col]
    if layout == "coo":
        A = D.to_sparse_coo()
    elif layout == "uncoalesced":
        twice = torch.stack([torch.cat([row, row[:3]]), torch.cat([col, col[:3]])]).flip(1)
        split = torch.cat([values.clone(), values[:3] / 3]).flip(0)
        split[-3:] = (values[:3] * 2 / 3).flip(0)
        A = torch.sparse_coo_tensor(twice, split, (N, N))
    else:
        csr = D.to_sparse_csr()
        index = torch.int32 if layout == "csr32" else torch.int64
        A = torch.sparse_csr_tensor(csr.crow_indices().to(index), csr.col_indices().to(index), csr.values(), (N, N))
    return A.requires_grad_()


def rhs(dtype=torch.float64):
    return torch.randn(N, 2, dtype=dtype, generator=torch.Generator().manual_seed(4)).requires_grad_()


def solve(A, b):
    return tsgu.sparse_generic_solve(A, b, solve=tsgu.direct)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=["real", "complex"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_solve_passes_gradcheck(layout, dtype):
    """Catches: a gradient in the wrong order of entries, or of a wrong layout."""
    assert gradcheck(solve, (leaf(layout, dtype), rhs(dtype)), masked=True)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=["real", "complex"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_values_of_the_gradient_pass_gradcheck(layout, dtype):
    """Catches: a second derivative lost where the gradient becomes a sparse tensor."""

    def gradient_values(A, b):
        x = solve(A, b)
        (grad,) = torch.autograd.grad((x * x * x).sum().real, A, create_graph=True)
        # times 1: torch.imag, which gradcheck takes, fails on the view that values() of a CSR tensor is
        return 1 * (grad.coalesce().values() if grad.layout == torch.sparse_coo else grad.values())

    # torch compares the gradient for undefined inputs by ==, which sparse tensors lack
    assert gradcheck(gradient_values, (leaf(layout, dtype), rhs(dtype)), masked=True, check_undefined_grad=False)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_backward_fills_a_sparse_grad_in_the_layout_of_the_leaf(layout):
    """Catches: a dense gradient, or one of another index dtype, which an optimiser cannot add."""
    A, b = leaf(layout), rhs()
    solve(A, b).sum().backward()
    assert A.grad.layout == A.layout
    assert A.grad._nnz() == torch.count_nonzero(dense())
    if A.layout == torch.sparse_csr:
        assert A.grad.col_indices().dtype == A.col_indices().dtype
    reference = dense().requires_grad_()
    torch.linalg.solve(reference, b.detach()).sum().backward()
    torch.testing.assert_close(A.grad.to_dense(), reference.grad * (dense() != 0))


def test_an_optimiser_steps_on_the_sparse_gradient():
    """Catches: a gradient that SGD refuses."""
    A, b = leaf("coo"), rhs()
    optimiser = torch.optim.SGD([A], lr=0.1)
    before = solve(A, b).square().sum()
    before.backward()
    optimiser.step()
    assert solve(A, b).square().sum() < before


def test_changing_the_matrix_before_backward_is_an_error():
    """Catches: a backward pass with the new values and the old solution: a silently wrong gradient."""
    A, b = leaf("coo"), rhs()
    x = solve(A, b)
    with torch.no_grad():
        A.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        x.sum().backward()


def coo_of_values(values, indices):
    return torch.sparse_coo_tensor(indices, values, (N, N))


def csr_of_values(values, indices):
    csr = dense().to_sparse_csr()
    return torch.sparse_csr_tensor(csr.crow_indices(), csr.col_indices(), values, (N, N))


@pytest.mark.parametrize("constructor", [coo_of_values, csr_of_values])
def test_first_derivatives_through_a_constructor_are_right_and_quiet(constructor):
    """Catches: a warning at everybody who calls backward once."""
    D, b = dense(), rhs()
    indices = D.nonzero().T
    values = D[indices[0], indices[1]].requires_grad_()
    (got,) = torch.autograd.grad(solve(constructor(values, indices), b).sum(), values)
    reference = D.clone().requires_grad_()
    torch.linalg.solve(reference, b.detach()).sum().backward()
    torch.testing.assert_close(got, reference.grad[indices[0], indices[1]])


@pytest.mark.parametrize("constructor", [coo_of_values, csr_of_values])
def test_a_second_derivative_lost_in_a_constructor_is_warned_of(constructor):
    """Catches: the returned gradient that does not require grad: a Hessian of zeros, without a word."""
    D, b = dense(), rhs()
    indices = D.nonzero().T
    values = D[indices[0], indices[1]].requires_grad_()
    x = solve(constructor(values, indices), b)
    with pytest.warns(UserWarning, match=r"second derivative .* is lost.*tsgu\.SparseMatrix\.from_coo"):
        torch.autograd.grad(x.sum(), values, create_graph=True)


def test_under_torch_func_only_a_second_derivative_is_warned_of():
    """Catches: the graph flag taken as evidence, which torch.func.grad always sets."""
    D = dense()
    b = rhs().detach()
    indices = D.nonzero().T
    values = D[indices[0], indices[1]]
    first = torch.func.grad(lambda v: solve(coo_of_values(v, indices), b).square().sum())
    first(values)
    with pytest.warns(UserWarning, match="second derivative"):
        torch.func.grad(lambda v: first(v).sum())(values)


def test_exact_second_derivatives_are_quiet():
    """Catches: a warning about ``dense.to_sparse()`` or ``2 * A``, which lose nothing."""
    b = rhs()
    D = dense().requires_grad_()
    A = leaf("coo")
    for inputs, matrix in ((D, D.to_sparse()), (A, 2 * A)):
        torch.autograd.grad(solve(matrix, b).sum(), inputs, create_graph=True)


def test_gradients_through_to_sparse_reach_the_dense_matrix_to_second_order():
    """Catches: ``dense.to_sparse()`` on the way."""
    D, b = dense().requires_grad_(), rhs()
    mask = (dense() != 0).double()

    def second(matrix):
        (g,) = torch.autograd.grad(matrix.square().sum(), D, create_graph=True)
        return torch.autograd.grad((g * mask).square().sum(), D)[0] * mask

    torch.testing.assert_close(second(solve(D.to_sparse(), b)), second(torch.linalg.solve(D * mask, b)))


def test_vmap_over_a_sparse_tensor_names_the_class_that_can():
    """Catches: an internal error of functorch instead of a remedy."""
    A, b = leaf("coo").detach(), rhs().detach()
    with pytest.raises(NotImplementedError, match=r"A must be a SparseMatrix under torch\.func\.vmap"):
        torch.func.vmap(lambda A: solve(A, b))(torch.stack([A, A]))


def test_only_what_is_asked_for_is_computed():
    """Catches: a sampled product for a matrix that needs no gradient, an adjoint solve for nothing."""
    A, b = leaf("csr").detach(), rhs()
    with tsgu.record() as log:
        assert not solve(A, b.detach()).requires_grad
    assert [info.transposed for info in log] == [False]
    with warnings.catch_warnings(), tsgu.record() as log:
        solve(A, b).sum().backward()
    assert [info.transposed for info in log] == [False, True]
    assert A.grad is None


@pytest.mark.parametrize("method", ITERATIVE)
def test_a_matrix_without_entries_is_reported(method):
    """Catches: the largest of no entries, looked for to explain the failure: an error about a dimension of max."""
    A = torch.sparse_coo_tensor(torch.zeros(2, 0, dtype=torch.int64), torch.zeros(0, dtype=torch.float64), (3, 3))
    with pytest.warns(tsgu.ConvergenceWarning, match=f"{method} on the forward system"):
        tsgu.sparse_generic_solve(A, torch.ones(3, dtype=torch.float64), solve=getattr(tsgu, method))


@pytest.mark.parametrize("method", METHODS)
def test_a_solution_may_be_changed_in_place(method):
    """Catches: a view made inside a function of autograd, which PyTorch does not let anybody write to."""
    b = torch.ones(3, dtype=torch.float64).requires_grad_()
    x = tsgu.sparse_generic_solve((2 * torch.eye(3, dtype=torch.float64)).to_sparse(), b, solve=getattr(tsgu, method))
    assert x._base is None
    x += 1
    torch.testing.assert_close(x, torch.full_like(x, 1.5))
