"""More unknowns than equations: refused, but for damping, which tends to the solution of minimum norm."""

import numpy as np
import pytest
import torch

from tests.contract.compare import assert_close
from tests.contract.systems import System

M, N = 5, 12


def wide():
    rng = np.random.default_rng(5)
    dense = rng.standard_normal((M, N)) * (rng.random((M, N)) < 0.5) + np.eye(M, N)
    row, col = np.nonzero(dense)
    return System("wide", row, col, dense[row, col], N, m=M), dense


def test_small_damping_gives_the_solution_of_minimum_norm_and_its_gradients(package):
    """Catches: a remedy in an error message that does not do what it says."""
    system, dense = wide()
    rng = np.random.default_rng(6)
    b, w = rng.standard_normal(M), rng.standard_normal(N)
    D, side = torch.tensor(dense, requires_grad=True), torch.tensor(b, requires_grad=True)
    expected = torch.linalg.pinv(D) @ side
    expected.backward(torch.tensor(w))
    case = package.LeastSquares(system, b)
    options = {"damp": 1e-4, "atol": 1e-13, "btol": 1e-13}
    assert_close(case.solve(**options), expected.detach().numpy(), 1e-6, "x")
    values, grad_b = case.gradients(w, **options)
    assert_close(values, D.grad.numpy()[system.row, system.col], 1e-5, "gradient of A")
    assert_close(grad_b, side.grad.numpy(), 1e-5, "gradient of b")


def test_without_damping_the_message_names_it(package):
    """Catches: one solution of many, without a derivative; or advice that leads nowhere."""
    system, _ = wide()
    with pytest.raises(ValueError, match=r"m >= n; got \(5, 12\) .* a small damp > 0, .* of minimum norm"):
        package.LeastSquares(system, np.ones(M)).solve()
