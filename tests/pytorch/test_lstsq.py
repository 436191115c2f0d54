"""Least squares in what torch alone can do: its own checkers, sparse leaves, transforms, and what a solve costs."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.func import grad, hessian, jacfwd, jacrev, vmap

import tsgu
from tsgu._matrix import _products
from tsgu._methods import _columns, _least_squares

M, N = 8, 4
TIGHT = {"atol": 1e-14, "btol": 1e-14}


def dense(dtype=torch.float64):
    generator = torch.Generator().manual_seed(3)
    entries = torch.randn(M, N, dtype=dtype, generator=generator)
    return entries * (torch.rand(M, N, generator=generator) < 0.5) + 2 * torch.eye(M, N, dtype=dtype)


def rhs(dtype, *shape):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(4))


def problem(dtype, **options):
    """Values, and the solution as a function of them and b, sparse and dense."""
    D = dense(dtype)
    row, col = D.nonzero(as_tuple=True)
    pattern = tsgu.Pattern(row, col, (M, N))

    def sparse(values, b):
        return tsgu.sparse_generic_lstsq(tsgu.SparseMatrix(values, pattern), b, **TIGHT, **options)

    def twin(values, b):
        A = torch.zeros(M, N, dtype=dtype).index_put((row, col), values)
        return torch.linalg.solve(A.mH @ A, A.mH @ b)

    return D[row, col], sparse, twin


@pytest.mark.parametrize(
    ("dtype", "columns", "damp"),
    [(torch.float64, (), 0.0), (torch.float64, (), 0.8), (torch.complex128, (), 0.8), (torch.complex128, (2,), 0.0)],
)
def test_first_and_second_derivatives_pass_gradcheck_in_both_modes(dtype, columns, damp):
    """Catches: any wrong sign, transpose or conjugate in a derivative; a backward pass that cannot be batched."""
    values, sparse, _ = problem(dtype, damp=damp)
    values, b = values.requires_grad_(), rhs(dtype, M, *columns).requires_grad_()
    assert gradcheck(sparse, (values, b), check_forward_ad=True, check_batched_grad=True)
    assert gradgradcheck(sparse, (values, b), check_fwd_over_rev=True, check_batched_grad=True)


@pytest.mark.parametrize("layout", ["coo", "uncoalesced", "csr", "csr32"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=["real", "complex"])
def test_sparse_leaves_pass_gradcheck_to_second_order(layout, dtype):
    """Catches: a gradient in the wrong order of entries or layout, a second order lost where it becomes a sparse
    tensor."""
    D = dense(dtype)
    A = D.to_sparse_coo() if "co" in layout else D.to_sparse_csr()
    if layout == "uncoalesced":
        A = torch.sparse_coo_tensor(A.indices().repeat(1, 2).flip(1), A.values().repeat(2).flip(0) / 2, (M, N))
    elif layout == "csr32":
        index = (i.to(torch.int32) for i in (A.crow_indices(), A.col_indices()))
        A = torch.sparse_csr_tensor(*index, A.values(), (M, N))
    A, b = A.requires_grad_(), rhs(dtype, M, 2).requires_grad_()

    def solve(A, b):
        return tsgu.sparse_generic_lstsq(A, b, **TIGHT)

    def gradient_values(A, b):
        (g,) = torch.autograd.grad(solve(A, b).pow(3).sum().real, A, create_graph=True)
        return 1 * (g.coalesce().values() if g.layout == torch.sparse_coo else g.values())

    assert gradcheck(solve, (A, b), masked=True)
    assert gradcheck(gradient_values, (A, b), masked=True, check_undefined_grad=False)
    (g,) = torch.autograd.grad(solve(A, b).sum().real, A)
    assert g.layout == A.layout
    assert g._nnz() == torch.count_nonzero(D)
    if A.layout == torch.sparse_csr:
        assert g.col_indices().dtype == A.col_indices().dtype


def test_a_batch_of_matrices_passes_gradcheck():
    """Catches: a batch whose members share a preparation or a gradient."""
    values, _, _ = problem(torch.float64)
    row, col = dense().nonzero(as_tuple=True)
    pattern = tsgu.Pattern(row, col, (M, N))
    values = (values * torch.tensor([[1.0], [1.5], [-2.0]])).requires_grad_()
    b = rhs(torch.float64, 3, M, 2).requires_grad_()
    x0 = torch.ones(3, N, 2, dtype=torch.float64)

    def solve(values, b):
        return tsgu.sparse_generic_lstsq(tsgu.SparseMatrix(values, pattern), b, x0=x0, **TIGHT)

    assert gradcheck(solve, (values, b))
    assert gradgradcheck(solve, (values, b))


@pytest.mark.parametrize("argument", [0, 1], ids=["values", "b"])
def test_derivatives_of_torch_func_equal_the_dense_ones(argument):
    """Catches: a rule that functorch cannot see through, or that loses a level."""
    values, sparse, twin = problem(torch.float64)
    b = rhs(torch.float64, M)

    def loss(solve):
        return lambda values, b: (solve(values, b) ** 3).sum()

    expected = jacrev(jacrev(loss(twin), argument), argument)(values, b)
    for twice in (hessian, lambda f, i: jacrev(jacrev(f, i), i), lambda f, i: jacfwd(jacfwd(f, i), i)):
        torch.testing.assert_close(twice(loss(sparse), argument)(values, b), expected, rtol=1e-9, atol=1e-10)
    batch = torch.stack([b, 2 * b])
    got = vmap(grad(loss(sparse), argument), (None, 0))(values, batch)
    for g, c in zip(got, batch, strict=True):
        torch.testing.assert_close(g, grad(loss(twin), argument)(values, c), rtol=1e-9, atol=1e-10)


def test_a_step_takes_two_products_and_a_solve_two_more(monkeypatch):
    """Catches: a residual recomputed in every step, a product with A^H for the test of convergence."""
    seen = []
    product = _products.csr_product

    def counted(matrix, x, *out):
        seen.append(tuple(matrix.shape))
        return product(matrix, x, *out)

    monkeypatch.setattr(_products, "csr_product", counted)
    generator = torch.Generator().manual_seed(0)
    m, n = 300, 100
    D = torch.randn(m, n, dtype=torch.float64, generator=generator)
    D = D * (torch.rand(m, n, generator=generator) < 0.1) + 3 * torch.eye(m, n, dtype=torch.float64)
    A = D.to_sparse_csr().requires_grad_()
    b = torch.randn(m, dtype=torch.float64, generator=generator)
    with tsgu.record() as log:
        x = tsgu.sparse_generic_lstsq(A, b)
        steps = log[0].iterations
        assert steps > 10
        assert seen.count((m, n)) == steps + 1  # and one for the true residual
        assert seen.count((n, m)) == steps + 2  # the first, and one for the true optimality
        seen.clear()
        x.sum().backward()
    first, second = log[1].iterations, log[2].iterations
    assert [info.transposed for info in log] == [False, True, False]
    assert seen.count((m, n)) == (first + 2) + (second + 1)
    assert seen.count((n, m)) == (first + 1) + (second + 2)


def test_only_what_is_asked_for_is_computed():
    """Catches: an adjoint for an input that needs no gradient; a backward pass through a detached problem."""
    values, sparse, _ = problem(torch.float64)
    b = rhs(torch.float64, M)
    with tsgu.record() as log:
        x = sparse(values, b.requires_grad_())
        torch.autograd.grad(x.sum(), b)
    assert [info.transposed for info in log] == [False, True, False]
    assert not sparse(values, b.detach()).requires_grad


def test_the_method_is_an_object_that_can_be_prepared():
    """Catches: a method that is a bare function, and a callable for A where its entries are needed."""
    D = dense()
    b = rhs(torch.float64, M)
    prepared = tsgu.lsmr.prepare(D.to_sparse(), **TIGHT)
    x, r = prepared.least_squares(b, None)
    torch.testing.assert_close(D.mH @ r, torch.zeros(N, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(tsgu.lsmr(D.to_sparse_csr(), b, **TIGHT), x)
    y = prepared.minimum_norm(b[:N])
    torch.testing.assert_close(y, torch.linalg.pinv(D.mH) @ b[:N])
    with pytest.raises(ValueError, match="A must be a sparse"):
        tsgu.lsmr(lambda v: D @ v, b)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=["real", "complex"])
def test_the_arithmetic_of_accelerators_gives_the_same(monkeypatch, dtype):
    """Catches: a scalar that is a Python number on the CPU and a tensor on a GPU; steps counted between two reads."""
    D, b = dense(dtype), rhs(dtype, M, 3)
    b[:, 1] = 0
    expected = tsgu.lsmr(D.to_sparse_csr(), b, **TIGHT)
    monkeypatch.setattr(_least_squares, "arithmetic", lambda device, width: _columns.DeviceColumns(width))
    monkeypatch.setattr(_least_squares, "_steps_between_reads", lambda device: 10)
    monkeypatch.setattr(_least_squares, "_enter", lambda space, r: r.contiguous())
    with tsgu.record() as log:
        torch.testing.assert_close(tsgu.lsmr(D.to_sparse_csr(), b, **TIGHT), expected)
    assert log[0].converged
    assert log[0].columns[1].iterations == 0
