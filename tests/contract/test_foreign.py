"""Solvers from outside, in both roles, and what reaches them."""

import numpy as np
import pytest

from tests.contract import truth
from tests.contract.compare import assert_close, tolerance
from tests.contract.systems import BY_NAME, right_hand_side


def test_an_omitted_transpose_solver_is_applied_to_the_transpose(package):
    """Catches: the forward solver reused on A: a gradient off by a third on a nonsymmetric matrix."""
    system = BY_NAME["complex general"]
    b, w = right_hand_side(system, 2), right_hand_side(system, 2, seed=4)
    solver = package.foreign(np.linalg.solve)
    for layout in package.LAYOUTS:
        grads = package.Problem(system, b, layout).gradients(w, solver)
        for got, expected in zip(grads, truth.gradients(system, b, w), strict=True):
            assert_close(got, expected, tolerance(system.condition, np.float64, 0, 2), f"gradient, {layout}")


def test_a_given_transpose_solver_receives_the_matrix_and_means_plain_transposition(package):
    """Catches: A^T for A^H, or A^T handed to a callable that transposes once more."""
    system = BY_NAME["complex general"]
    b, w = right_hand_side(system, 2), right_hand_side(system, 2, seed=4)
    seen = []

    def transpose(dense, g):
        seen.append(dense.copy())
        return np.linalg.solve(dense.T, g)

    solver, adjoint = package.foreign(np.linalg.solve), package.foreign(transpose)
    grads = package.Problem(system, b).gradients(w, solver, adjoint)
    for got, expected in zip(grads, truth.gradients(system, b, w), strict=True):
        assert_close(got, expected, tolerance(system.condition, np.float64, 0, 2), "gradient")
    assert len(seen) == 1
    np.testing.assert_array_equal(seen[0], system.dense)
    # alone, it is applied to the transpose for the forward solve
    x = package.Problem(system, b).solve(None, adjoint)
    assert_close(x, truth.solution(system, b), tolerance(system.condition, np.float64, 0), "x")


@pytest.mark.parametrize("columns", [None, 1, 3])
def test_a_solver_sees_the_shape_of_b_in_both_directions(package, columns):
    """Catches: b of shape (n,) passed as (n, 1) in the backward pass only."""
    system = BY_NAME["general"]
    b, w = right_hand_side(system, columns), right_hand_side(system, columns, seed=4)
    shapes = []

    def solve(dense, rhs):
        shapes.append(rhs.shape)
        return np.linalg.solve(dense, rhs)

    package.Problem(system, b).gradients(w, package.foreign(solve))
    assert shapes == [b.shape, b.shape]


def test_a_foreign_solver_that_does_not_solve_is_reported(package):
    """Catches: a loose default tolerance of somebody else's solver; verify=None says that one does not care."""
    system = BY_NAME["general"]
    b = right_hand_side(system, 2)
    loose = package.foreign(lambda dense, rhs: 0.99 * np.linalg.solve(dense, rhs))
    problem = package.Problem(system, b)
    with pytest.warns(package.ConvergenceWarning, match="residual above verify; relative residual about") as heard:
        problem.solve(loose)
    assert_close(heard[0].message.info.residual, 0.01, 1e-10, "residual")
    problem.solve(loose, verify=0.1)
    with package.record() as log:
        problem.solve(loose, verify=None)
    assert (log[0].status, log[0].residual) == ("not verified", None)


def test_keyword_arguments_reach_both_solvers_and_x0_the_forward_alone(package):
    """Catches: an option that one of the solvers silently lacks."""
    system = BY_NAME["general"]
    b, w = right_hand_side(system, None), right_hand_side(system, None, seed=4)
    seen = []

    def solve(dense, rhs, **kwargs):
        seen.append(sorted(kwargs))
        return np.linalg.solve(dense, rhs)

    package.Problem(system, b).gradients(w, package.foreign(solve), flavour=1, x0=package.array(b))
    assert seen == [["flavour", "x0"], ["flavour"]]


def test_an_own_method_as_transpose_solver_is_applied_to_the_transpose(package):
    """Catches: direct given for the adjoint of a Krylov solve, solving with A instead."""
    system = BY_NAME["general"]
    b, w = right_hand_side(system, None), right_hand_side(system, None, seed=4)
    solver = package.foreign(np.linalg.solve)
    expected = truth.gradients(system, b, w)
    with package.record() as log:
        grads = package.Problem(system, b).gradients(w, solver, package.method("direct"))
    assert [(info.method, info.transposed) for info in log][1] == ("direct", True)
    for got, want in zip(grads, expected, strict=True):
        assert_close(got, want, tolerance(system.condition, np.float64, 0, 2), "gradient")
