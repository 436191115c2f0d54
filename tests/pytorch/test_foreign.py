"""Solvers from outside that are made of the package's own."""

import pytest
import torch

import tsgu

A = torch.tensor([[4.0, 1.0, 0.0], [0.0, 3.0, 1.0], [1.0, 0.0, 5.0]], dtype=torch.float64)
U = torch.tensor([[1.0], [0.0], [2.0]], dtype=torch.float64)


class LowRankUpdate:
    """(A - U U^T) + U U^T by the formula of Sherman, Morrison and Woodbury, with the columns of U in each solve."""

    def prepare(self, matrix, scale=1.0):
        self.scale = scale
        self.base = tsgu.direct.prepare((matrix.to_dense() - scale * U @ U.T).to_sparse())
        return self

    def _updated(self, solve, B):
        block = B[:, None] if B.dim() == 1 else B
        Y = solve(torch.cat([block, U], dim=1))
        Y, Z = Y[:, : block.shape[1]], Y[:, block.shape[1] :]
        x = Y - Z @ torch.linalg.solve(torch.eye(1, dtype=B.dtype) / self.scale + U.T @ Z, U.T @ Y)
        return x.reshape(B.shape)

    def solve(self, B):
        return self._updated(self.base.solve, B)

    def solve_transpose(self, G):
        return self._updated(self.base.solve_transpose, G)


@pytest.mark.parametrize("arguments", [{}, {"scale": 0.5}])
def test_what_a_solver_prepares_may_solve_other_systems_on_its_way(arguments):
    """Catches: reports of inner solves, with columns of their own, taken for that of the system; arguments of
    ``prepare`` refused, since an object that prepares itself looks prepared."""
    b = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64, requires_grad=True)
    leaf, dense = A.to_sparse().requires_grad_(), A.clone().requires_grad_()
    with tsgu.record() as log:
        x = tsgu.sparse_generic_solve(leaf, b, solve=LowRankUpdate(), **arguments)
        got = torch.autograd.grad(x.square().sum(), (leaf, b))
    expected = torch.autograd.grad(torch.linalg.solve(dense, b).square().sum(), (dense, b))
    torch.testing.assert_close(got[0].to_dense(), expected[0] * (A != 0))
    torch.testing.assert_close(got[1], expected[1])
    assert [(info.method, info.transposed) for info in log] == [
        ("direct", False),
        ("LowRankUpdate", False),
        ("direct", True),
        ("LowRankUpdate", True),
    ]
