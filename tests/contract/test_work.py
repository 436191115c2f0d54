"""Scales, starting points, preconditioners, and what a backward pass costs."""

import numpy as np
import pytest

from tests.contract import truth
from tests.contract.cases import RTOL, iterative, methods, options, usual
from tests.contract.compare import assert_close, tolerance
from tests.contract.systems import BY_NAME, right_hand_side


@methods
@pytest.mark.parametrize(("dtype", "scale"), [(np.complex128, 1e-150), (np.complex128, 1e12), (np.complex64, 1e-24)])
def test_a_tiny_or_huge_right_hand_side_scales_the_solution(package, method, dtype, scale):
    """Catches: an absolute threshold: b x 1e-12 giving x = 0; a norm that vanishes in single precision."""
    system = usual(method)
    b = right_hand_side(system, None)
    rtol = RTOL if dtype == np.complex128 else 1e-6
    x = package.Problem(system, b * scale, dtype=dtype).solve(package.method(method), **options(method, rtol))
    tol = tolerance(system.condition, dtype, rtol)
    assert_close(x.astype(complex) / scale, truth.solution(system, b), tol, "x / scale")


@methods
@pytest.mark.parametrize(("dtype", "scale"), [(np.complex128, 1e-12), (np.complex128, 1e12), (np.complex64, 1e-6)])
def test_a_scaled_loss_scales_the_gradient(package, method, dtype, scale):
    """Catches: an absolute threshold in the adjoint: loss x 1e-9 giving a gradient of exactly zero."""
    system = usual(method)
    b, w = right_hand_side(system, None), right_hand_side(system, None, seed=4)
    rtol = RTOL if dtype == np.complex128 else 1e-6
    grads = package.Problem(system, b, dtype=dtype).gradients(
        w * scale, package.method(method), **options(method, rtol)
    )
    tol = tolerance(system.condition, dtype, rtol, order=2)
    for got, expected in zip(grads, truth.gradients(system, b, w), strict=True):
        assert_close(got.astype(complex) / scale, expected, tol, "gradient / scale")


@methods
def test_a_zero_column_gives_exactly_zero_in_zero_steps(package, method):
    """Catches: 0 / 0 in a relative residual, or noise where there is no load."""
    system = usual(method)
    b = right_hand_side(system, 3)
    b[:, 1] = 0
    with package.record() as log:
        x = package.Problem(system, b).solve(package.method(method), **options(method))
    assert np.all(x[:, 1] == 0)
    assert log[0].columns[1].status == "converged"
    assert log[0].columns[1].iterations in (0, None)
    assert_close(x, truth.solution(system, b), tolerance(system.condition, np.float64, RTOL), "x")


@iterative
def test_an_exact_start_takes_no_step(package, method):
    """Catches: 0 / 0 on a residual that is zero at once: an exact initial guess that gives an error of 1."""
    system = BY_NAME["one unknown"]
    b = np.array([6.0])
    with package.record() as log:
        x = package.Problem(system, b).solve(package.method(method), x0=package.array(np.array([2.0])))
    assert log[0].iterations == 0
    assert x == np.array([2.0])


@iterative
def test_a_bad_start_does_not_reach_the_adjoint(package, method):
    """Catches: x0 reused for the transpose system: an adjoint off by a factor of 2.6."""
    system = usual(method)
    b, w = right_hand_side(system, None), right_hand_side(system, None, seed=4)
    x0 = package.array(1e3 * right_hand_side(system, None, seed=9))
    with package.record() as log:
        grads = package.Problem(system, b).gradients(w, package.method(method), x0=x0, **options(method))
        package.Problem(system, b).gradients(w, package.method(method), **options(method))
    assert [info.transposed for info in log] == [False, True, False, True]
    assert abs(log[1].iterations - log[3].iterations) <= 1
    tol = tolerance(system.condition, np.float64, RTOL, order=2)
    for got, expected in zip(grads, truth.gradients(system, b, w), strict=True):
        assert_close(got, expected, tol, "gradient")


@iterative
def test_the_exact_inverse_as_preconditioner_ends_in_two_steps_both_ways(package, method):
    """Catches: M used untransposed in the adjoint: on a nonsymmetric matrix it takes many more steps there."""
    system = usual(method) if method in ("bicgstab", "gmres") else BY_NAME["hermitian definite"]
    b, w = right_hand_side(system, 2), right_hand_side(system, 2, seed=4)
    M = package.dense_matrix(np.linalg.inv(system.dense))
    with package.record() as log:
        grads = package.Problem(system, b).gradients(w, package.method(method), M=M, **options(method, 1e-10))
    assert [info.transposed for info in log] == [False, True]
    assert all(info.iterations <= 2 for info in log), log
    tol = tolerance(system.condition, np.float64, 1e-10, order=2)
    for got, expected in zip(grads, truth.gradients(system, b, w), strict=True):
        assert_close(got, expected, tol, "gradient")


def test_minres_with_a_preconditioner_lowers_the_reported_norm_in_every_step(package):
    """Catches: the M-norm minimised and the 2-norm reported, which then goes up and down."""
    system = BY_NAME["indefinite"]
    rng = np.random.default_rng(0)
    half = rng.standard_normal((system.n, system.n))
    M = package.dense_matrix(half @ half.T / system.n + 0.1 * np.eye(system.n))
    b = right_hand_side(system, None)
    with package.record() as log:
        x = package.Problem(system, b).solve(package.method("minres"), M=M, rtol=1e-10, maxiter=2000)
    assert log[0].status == "converged"
    assert np.all(np.diff(log[0].history[:20]) <= 1e-12)
    assert_close(x, truth.solution(system, b), tolerance(system.condition, np.float64, 1e-10), "x")
    # and it is the residual of what is returned
    with package.record() as log, pytest.warns(package.ConvergenceWarning):
        package.Problem(system, b).solve(package.method("minres"), M=M, rtol=1e-10, maxiter=7)
    assert_close(log[0].history[-1], log[0].residual, 1e-8, "residual after seven steps")


@methods
def test_a_backward_pass_takes_one_adjoint_solve(package, method):
    """Catches: one adjoint solve per input that needs a gradient, instead of one for all."""
    system = usual(method)
    b, w = right_hand_side(system, 2), right_hand_side(system, 2, seed=4)
    with package.record() as log:
        package.Problem(system, b).gradients(w, package.method(method), **options(method))
    assert [(info.method, info.transposed) for info in log] == [(method, False), (method, True)]
