"""An absolute tolerance is in the units of B: it stops the user's own solve, and none that a derivative takes."""

import numpy as np
import pytest

from tests.contract import truth
from tests.contract.cases import RTOL, direction, iterative, usual
from tests.contract.compare import assert_close, tolerance
from tests.contract.systems import BY_NAME, right_hand_side

HUGE = 1e6
"""Above every right-hand side here: a solve that it stops returns its start."""


def exact_start(package, system, b):
    """With this, and ``HUGE``, the forward solve is exact, and what a derivative solves is all that can go wrong."""
    return {"x0": package.array(truth.solution(system, b)), "atol": HUGE, "rtol": RTOL}


@iterative
def test_atol_stops_no_solve_of_a_first_derivative(package, method):
    """Catches: a loss in other units than b: a gradient of exactly zero, converged in no step."""
    system = usual(method)
    columns = 2 if method == "gmres" else None
    b, w = right_hand_side(system, columns), right_hand_side(system, columns, seed=4)
    with package.record() as log:
        grads = package.Problem(system, b).gradients(w, package.method(method), **exact_start(package, system, b))
    assert log[0].iterations == 0
    assert log[1].transposed
    assert log[1].iterations > 0
    tol = tolerance(system.condition, np.float64, RTOL, order=2)
    for got, expected in zip(grads, truth.gradients(system, b, w), strict=True):
        assert_close(got, expected, tol, "gradient")
    along = direction(system, b)
    got = package.Problem(system, b).tangent(along, package.method(method), **exact_start(package, system, b))
    assert_close(got, truth.tangent(system, b, along), tol, "tangent")


@pytest.mark.parametrize("method", ["bicgstab", "gmres"])  # the others follow Hermitian directions alone
def test_atol_stops_no_solve_of_a_second_derivative(package, method):
    """Catches: it solves with A again, as the forward did."""
    system = usual(method)
    b, w = right_hand_side(system, 2), right_hand_side(system, 2, seed=4)
    along = direction(system, b)
    arguments = exact_start(package, system, b)
    got = package.Problem(system, b).hessian_products(w, along, package.method(method), **arguments)
    tol = tolerance(system.condition, np.float64, RTOL, order=4)
    for mine, expected in zip(got, truth.hessian_products(system, b, w, along), strict=True):
        assert_close(mine, expected, tol, "second derivative")


@pytest.mark.parametrize("given", ["solve", "transpose_solve", "prepared", "bare"])
def test_atol_stops_the_forward_solve_however_the_method_is_given(package, given):
    """Catches: forgotten in the forward, to keep it out of the adjoint."""
    system = BY_NAME["poisson"]
    b, w = right_hand_side(system, None), 1e-6 * right_hand_side(system, None, seed=4)
    arguments = {"atol": 5e-4 * np.linalg.norm(b), "rtol": RTOL}
    problem, method = package.Problem(system, b), package.method("linear_cg")
    with package.record() as log:
        if given == "prepared":
            grads = problem.gradients(w, method.prepare(problem.detached(), **arguments))
        elif given == "transpose_solve":
            grads = problem.gradients(w, None, method, **arguments)
        elif given == "bare":
            bare = package.Problem(system, b, solve=lambda A, B, *_, **kwargs: method(A, B, **kwargs))
            grads = bare.gradients(w, **arguments)
        else:
            grads = problem.gradients(w, method, **arguments)
    forward, adjoint = log
    assert 1e-8 < forward.residual <= 5e-4
    assert adjoint.residual <= RTOL
    expected = truth.gradients(system, b, w)[1]  # that in b knows nothing of x
    assert_close(grads[1], expected, tolerance(system.condition, np.float64, RTOL), "gradient in b")


def test_a_prepared_solve_by_hand_has_its_atol_and_its_transpose_has_not(package):
    """Catches: a gradient rule of one's own, written with the two."""
    system = BY_NAME["poisson"]
    b, w = right_hand_side(system, None), 1e-6 * right_hand_side(system, None, seed=4)
    problem = package.Problem(system, b)
    prepared = package.method("linear_cg").prepare(problem.detached(), atol=1e-2 * np.linalg.norm(b), rtol=RTOL)
    with package.record() as log:
        prepared.solve(package.array(b))
        prepared.solve_transpose(package.array(w))
    assert 1e-6 < log[0].residual <= 1e-2
    assert log[1].residual <= RTOL


def test_atol_of_columns_of_a_batch(package):
    """Catches: meant for one right-hand side, and lost where a batch of them is mapped over."""
    system = BY_NAME["poisson"]
    b = np.stack([right_hand_side(system, None, seed) for seed in (1, 2, 3)])
    atol = 1e-2 * np.linalg.norm(b, axis=1).min()
    got = package.Problem(system, b[0]).batched(None, b, package.method("linear_cg"), atol=atol, rtol=RTOL)
    left = np.linalg.norm(b - got @ system.dense.T, axis=1)
    assert np.all(left <= atol)
    assert np.all(left > 1e-4 * atol)
