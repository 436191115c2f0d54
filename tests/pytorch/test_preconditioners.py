"""Preconditioners and what only torch has: graphs, torch.func, wrappers."""

import numpy as np
import pytest
import torch

import tsgu
from tsgu import precond

pytest.importorskip("pyamg", reason="needs pyamg")

BUILD = {
    "jacobi": precond.jacobi,
    "block_jacobi": lambda A: precond.block_jacobi(A, 3),
    "ilu": precond.ilu,
    "amg": lambda A: precond.amg(A, max_coarse=3),
}
names = pytest.mark.parametrize("name", BUILD)


def entries(n=12):
    i = torch.arange(n)
    row, col = torch.cat([i, i[1:], i[:-1]]), torch.cat([i, i[:-1], i[1:]])
    return row, col, torch.cat([torch.full((n,), 2.5), -torch.ones(2 * n - 2)]).double()


@names
@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr])
def test_a_matrix_that_requires_grad_gives_a_preconditioner_that_does_not(name, layout):
    """Catches: a graph that is kept alive by M, or an in-place step that autograd refuses."""
    row, col, values = entries()
    A = tsgu.SparseMatrix.from_coo(row, col, values, (12, 12)).to_tensor(layout).requires_grad_()
    b = torch.arange(1.0, 13.0, dtype=torch.float64, requires_grad=True)
    M = BUILD[name](A)
    assert not M(b).requires_grad
    x = tsgu.bicgstab(A, b, M=M)
    x.sum().backward()
    dense = A.detach().to_dense().numpy()
    np.testing.assert_allclose(b.grad, np.linalg.solve(dense.T, np.ones(12)), rtol=1e-6)


@names
def test_a_preconditioner_may_be_built_inside_torch_func(name):
    """Catches: a wrapper of torch.func inside of M that outlives its level; a NumPy conversion that it refuses; a
    transpose made for the adjoint of a nonsymmetric matrix, out of sparse tensors that have no strides."""
    row, col, values = entries()
    values = values * torch.where(row > col, 0.7, 1.0)
    b = torch.arange(1.0, 13.0, dtype=torch.float64)

    def loss(values):
        A = tsgu.SparseMatrix.from_coo(row, col, values, (12, 12))
        return tsgu.bicgstab(A, b, M=BUILD[name](A), rtol=1e-12).sum()

    dense = tsgu.SparseMatrix.from_coo(row, col, values, (12, 12)).to_dense().numpy()
    expected = -np.outer(np.linalg.solve(dense.T, np.ones(12)), np.linalg.solve(dense, b))[row, col]
    np.testing.assert_allclose(torch.func.grad(loss)(values), expected, rtol=1e-9)
    tangent = torch.func.jvp(loss, (values,), (torch.ones_like(values),))[1]
    np.testing.assert_allclose(tangent, expected.sum(), rtol=1e-9)
    with pytest.raises(TypeError, match=r"same for all members of a batch.*outside of vmap"):
        torch.func.vmap(loss)(torch.stack([values, 2 * values]))


@names
def test_what_is_no_sparse_matrix_is_refused(name):
    """Catches: a dense matrix that is taken for its nonzero entries, a batch for its first member."""
    row, col, values = entries()
    with pytest.raises(TypeError, match=r"A must be sparse COO or CSR; got layout torch\.strided"):
        BUILD[name](torch.eye(3))
    with pytest.raises(ValueError, match="A must be square"):
        BUILD[name](torch.ones(2, 3).to_sparse())
    with pytest.raises(TypeError, match="A must have dtype float32"):
        BUILD[name](torch.eye(3, dtype=torch.float16).to_sparse())
    batch = tsgu.SparseMatrix.from_coo(row, col, torch.stack([values, values]), (12, 12))
    with pytest.raises(ValueError, match=r"A must be one matrix.*got a batch, \(2, 34\)"):
        BUILD[name](batch)


@names
def test_on_another_device_it_is_refused_by_name(name):
    """Catches: tensors of two devices that meet inside a step."""
    row, col, values = entries()
    A = tsgu.SparseMatrix.from_coo(row, col, values, (12, 12))
    with pytest.raises(ValueError, match=r"M must be a \(12, 12\) matrix on meta.*on cpu"):
        BUILD[name](A).fitted(12, torch.float64, torch.device("meta"))


def test_wide_blocks_of_columns_equal_single_ones():
    """Catches: a product that changes its memory layout past eight columns, or adds where it should overwrite."""
    row, col, values = entries(40)
    A = tsgu.SparseMatrix.from_coo(row, col, values, (40, 40))
    B = torch.from_numpy(np.random.default_rng(0).standard_normal((40, 21)))
    for build in BUILD.values():
        M = build(A)
        for width in (1, 5, 21):
            expected = torch.stack([M(column) for column in B[:, :width].T], 1)
            torch.testing.assert_close(M(B[:, :width]), expected, rtol=1e-13, atol=1e-14)
            torch.testing.assert_close(M(B.T.contiguous().T[:, :width]), expected, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("shape", [(40,), (40, 3)])
def test_conjugate_gradients_apply_m_once_a_step(shape):
    """Catches: M applied to the residual that ends the run: one cycle of multigrid in eight, for nothing."""
    row, col, values = entries(40)
    A = tsgu.SparseMatrix.from_coo(row, col, values, (40, 40))
    M, calls = precond.amg(A, max_coarse=3), []

    def counted(v):
        calls.append(v.shape)
        return M(v)

    with tsgu.record() as log:
        tsgu.linear_cg(A, torch.from_numpy(np.random.default_rng(0).standard_normal(shape)), M=counted)
    assert log[0].converged
    assert len(calls) == log[0].iterations > 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@names
def test_on_an_accelerator_it_is_what_it_is_on_the_host(name):
    """Catches: an index array, or the coarsest inverse, left on the host."""
    row, col, values = entries(40)
    A = tsgu.SparseMatrix.from_coo(row, col, values, (40, 40))
    b = torch.arange(1.0, 41.0, dtype=torch.float64)
    M = BUILD[name](tsgu.SparseMatrix.from_coo(row.cuda(), col.cuda(), values.cuda(), (40, 40)))
    torch.testing.assert_close(M(b.cuda()).cpu(), BUILD[name](A)(b))
    torch.testing.assert_close(M.T(b.cuda()).cpu(), BUILD[name](A).T(b))
