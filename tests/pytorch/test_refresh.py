"""Refreshed preconditioners and what only torch has: graphs, torch.func, copies, devices."""

import copy
import pickle

import numpy as np
import pytest
import torch

import tsgu
from tests.contract.multigrid import cycle, levels_of, with_values
from tests.contract.systems import System
from tsgu import precond

pytest.importorskip("pyamg", reason="needs pyamg")

N = 16
I = np.arange(N)  # noqa: E741 - as in mathematics
ROW, COL = np.nonzero(abs(I[:, None] - I) <= 1)
VALUES = np.array([-1.3, 2.5, -0.7])[COL - ROW + 1]
NEW = VALUES * np.exp(0.3 * np.random.default_rng(1).standard_normal(VALUES.size))
B = torch.arange(1.0, N + 1, dtype=torch.float64)


def matrix(values):
    return tsgu.SparseMatrix.from_coo(torch.from_numpy(ROW), torch.from_numpy(COL), torch.as_tensor(values), (N, N))


def dense(values):
    A = np.zeros((N, N))
    A[ROW, COL] = values
    return A


def multigrid(values):
    return cycle(with_values(levels_of(System("", ROW, COL, VALUES, N), "ruge_stuben", 3), dense(values), 1), 1)


def blocks(values):
    return np.linalg.inv(np.where(I[:, None] // 3 == I // 3, dense(values), 0))


CASES = {
    "jacobi": (precond.jacobi, lambda values: np.diag(1 / values[ROW == COL])),
    "block_jacobi": (lambda A: precond.block_jacobi(A, 3), blocks),
    "ilu": (lambda A: precond.ilu(A, drop_tol=0, fill_factor=50), lambda values: np.linalg.inv(dense(values))),
    "amg": (lambda A: precond.amg(A, max_coarse=3), multigrid),
}
names = pytest.mark.parametrize("name", CASES)


@names
@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr])
def test_a_matrix_that_requires_grad_refreshes_what_does_not(name, layout):
    """Catches: a graph that is kept alive by M; the old M changed before the backward pass that needs it."""
    build, reference = CASES[name]
    A, later = (matrix(values).to_tensor(layout).requires_grad_() for values in (VALUES, NEW))
    M, b = build(A), B.clone().requires_grad_()
    x = tsgu.bicgstab(A, b, M=M, rtol=1e-12)
    refreshed = M.refresh(later)
    assert not refreshed(b).requires_grad
    np.testing.assert_allclose(refreshed(b), reference(NEW) @ B.numpy(), rtol=1e-11)
    with tsgu.record() as log:
        x.sum().backward()
    assert [info.converged for info in log] == [True]
    np.testing.assert_allclose(b.grad, np.linalg.solve(dense(VALUES).T, np.ones(N)), rtol=1e-9)


@names
def test_it_is_refreshed_inside_torch_func(name):
    """Catches: a wrapper of torch.func inside of M; the first member of a batch for all."""
    M = CASES[name][0](matrix(VALUES))

    def loss(values):
        A = matrix(values)
        return tsgu.gmres(A, B, M=M.refresh(A), rtol=1e-12).sum()

    values = torch.from_numpy(NEW)
    x, adjoint = np.linalg.solve(dense(NEW), B.numpy()), np.linalg.solve(dense(NEW).T, np.ones(N))
    np.testing.assert_allclose(torch.func.grad(loss)(values), -adjoint[ROW] * x[COL], rtol=1e-9)
    with pytest.raises(TypeError, match=r"same for all members of a batch.*outside of vmap"):
        torch.func.vmap(loss)(torch.stack([values, 2 * values]))


@names
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda M: pickle.loads(pickle.dumps(M))])
def test_a_copy_is_refreshed_like_the_original(name, copied):
    """Catches: transfers, options or the pattern left behind in a checkpoint."""
    build, reference = CASES[name]
    M = copied(build(matrix(VALUES)))
    for own, A, expected in ((M, matrix(NEW), reference(NEW)), (M.T, matrix(NEW).T, reference(NEW).T)):
        np.testing.assert_allclose(own.refresh(A)(B), expected @ B.numpy(), rtol=1e-11)


@names
def test_single_precision_stays_single_and_a_matrix_of_another_device_is_refused(name):
    """Catches: a refreshed one of the dtype of the matrix; tensors of two devices that meet inside a step."""
    build, reference = CASES[name]
    M = build(matrix(VALUES.astype(np.float32)))
    refreshed = M.refresh(matrix(NEW))
    assert refreshed.dtype == refreshed(B.float()).dtype == torch.float32
    np.testing.assert_allclose(refreshed(B.float()), reference(NEW) @ B.numpy(), rtol=1e-4)
    with pytest.raises(ValueError, match=r"A must be on cpu, like the matrix that .* was built for; got meta"):
        M.refresh(matrix(NEW).to("meta"))


def test_a_preconditioner_of_the_users_has_no_refresh():
    """Catches: an AttributeError in the words of the inside."""

    class Own(precond.Preconditioner):
        def apply(self, v):
            return v

        @property
        def T(self):  # noqa: N802
            return self

        def to(self, dtype):
            return self

    with pytest.raises(TypeError, match="M must be a preconditioner of precond to be refreshed; got Own"):
        Own(N, torch.float64, torch.device("cpu")).refresh(matrix(NEW))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@names
def test_on_an_accelerator_it_is_what_it_is_on_the_host(name):
    """Catches: a level that is left on the host."""
    build, reference = CASES[name]
    place = torch.from_numpy(ROW).cuda(), torch.from_numpy(COL).cuda()
    A, later = (tsgu.SparseMatrix.from_coo(*place, torch.from_numpy(v).cuda(), (N, N)) for v in (VALUES, NEW))
    refreshed = build(A).refresh(later)
    np.testing.assert_allclose(refreshed(B.cuda()).cpu(), reference(NEW) @ B.numpy(), rtol=1e-11)
    np.testing.assert_allclose(refreshed.T(B.cuda()).cpu(), reference(NEW).T @ B.numpy(), rtol=1e-11)
