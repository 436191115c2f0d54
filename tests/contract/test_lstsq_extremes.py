"""Least squares from a start far off, and with a damping far from the scale of A."""

import numpy as np
import pytest

from tests.contract.compare import assert_close
from tests.contract.problems import BY_NAME, accuracy, assert_solution
from tests.contract.systems import right_hand_side


@pytest.mark.parametrize("compatible", [False, True])
def test_a_start_far_off_costs_no_accuracy(package, compatible):
    """Catches: stagnation after a first run that lowers the residual by 1e14, since its direction is no better than
    before."""
    problem = BY_NAME["real"]
    rng = np.random.default_rng(3)
    b = right_hand_side(problem, None)
    b = problem.dense @ b[: problem.n] if compatible else b
    expected = np.linalg.lstsq(problem.dense, b, rcond=None)[0]
    away = rng.standard_normal(problem.n)
    case = package.LeastSquares(problem, b)
    with package.record() as log:
        for far in (1e8, 1e12, 1e14):
            x = case.solve(x0=package.array(expected + far * away))
            assert_solution(problem, x, expected, accuracy(problem, rtol=1e-8), f"x from {far:.0e}")
    assert [info.status for info in log] == ["converged"] * 3


@pytest.mark.parametrize("damp", [1e10, 1e30])
def test_a_large_damping_leaves_a_small_solution_and_not_zero(package, damp):
    """Catches: zero, which is optimal to any tolerance relative to the norm of [A; damp I], and has no digit of the
    solution."""
    problem = BY_NAME["complex"]
    b = right_hand_side(problem, 2)
    expected = problem.dense.conj().T @ b / damp / damp
    x = package.LeastSquares(problem, b).solve(damp=damp)
    assert_close(x, expected, 1e-10, "x")


def test_a_right_hand_side_that_is_orthogonal_to_the_columns_has_the_solution_zero(package):
    """Catches: a step that is taken where there is nothing to be found."""
    problem = BY_NAME["one column"]
    column = problem.dense[:, 0]
    b = np.zeros(problem.shape[0])
    b[:2] = column[1], -column[0]
    with package.record() as log:
        x = package.LeastSquares(problem, b).solve()
    assert log[0].converged
    assert np.abs(x).max() <= 1e-15
