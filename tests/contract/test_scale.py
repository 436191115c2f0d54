"""The scale of A: by powers of two, so that nothing but the scale of the solution may change, not even by rounding."""

import dataclasses

import numpy as np
import pytest

from tests.contract import truth
from tests.contract.cases import iterative, options, usual, usual_real
from tests.contract.compare import assert_close, tolerance
from tests.contract.systems import BY_NAME, right_hand_side

POWERS = {np.float32: (-80, -20, 20, 70, 100), np.float64: (-700, -60, 60, 700)}


def scaled(system, power, dtype):
    values = system.values.astype(np.result_type(dtype, np.complex64 if system.complex else dtype))
    return dataclasses.replace(system, values=values * values.real.dtype.type(2.0**power))


def in_its_units(x, power):
    return np.asarray(x, np.result_type(x, np.float64)) * 2.0**power


@iterative
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_matrix_in_other_units_takes_the_same_steps_to_the_same_solution(package, method, dtype):
    """Catches: squares of A r that overflow or vanish: viscosities of 1e21, or squared charges, in single precision."""
    system = usual_real(method)
    b = right_hand_side(system, None).astype(dtype)
    expected = np.linalg.solve(system.dense, b)
    with package.record() as log:
        plain = package.Problem(scaled(system, 0, dtype), b).solve(package.method(method))
        for power in POWERS[dtype]:
            x = package.Problem(scaled(system, power, dtype), b).solve(package.method(method))
            np.testing.assert_array_equal(in_its_units(x, power), plain, err_msg=f"2**{power}")
    assert_close(plain, expected, tolerance(system.condition, dtype, 1e-5 if dtype == np.float32 else 1e-8), "x")
    for info in log:
        assert (info.status, info.iterations, info.residual) == ("converged", log[0].iterations, log[0].residual)


@iterative
@pytest.mark.parametrize("name", ["callable", "jacobi"])
def test_a_preconditioner_follows_the_units_of_the_matrix(package, method, name):
    """Catches: an M for the matrix as it is given, applied to one that has been scaled: squares of M r overflow or
    vanish."""
    system = BY_NAME["badly scaled"]
    b, dtype = right_hand_side(system, 2).astype(np.float32), np.float32
    inverse = 1 / np.diag(system.dense)[:, None]
    counts = set()
    for power in (0, -80, 70):
        problem = package.Problem(scaled(system, power, dtype), b)
        if name == "callable":
            column = package.array((inverse * 2.0**-power).astype(dtype))
            M = lambda v, column=column: column * v  # noqa: E731
        else:
            M = package.preconditioner(name, problem.detached())
        with package.record() as log:
            x = problem.solve(package.method(method), M=M)
        expected = np.linalg.solve(system.dense, b)
        assert_close(in_its_units(x, power), expected, tolerance(system.condition, dtype, 1e-5), f"x, 2**{power}")
        counts.add((log[0].status, log[0].iterations))
    assert len(counts) == 1


@iterative
def test_a_start_and_the_gradients_are_in_the_units_of_the_matrix(package, method):
    """Catches: a start that is scaled twice, or not at all; an adjoint of another scale than its forward solve."""
    system = usual(method)
    b, w = right_hand_side(system, None), right_hand_side(system, None, seed=4)
    power = 300
    large = dataclasses.replace(system, values=system.values * 2.0**power)
    expected = truth.solution(system, b)
    problem = package.Problem(large, b)
    with package.record() as log:
        problem.solve(package.method(method), x0=package.array(expected * 2.0**-power))
    assert log[0].iterations == 0
    got = problem.gradients(w, package.method(method), **options(method))
    right = truth.gradients(system, b, w)
    tol = tolerance(system.condition, np.float64, 1e-12, 1)
    assert_close(got[0] * 2.0**power * 2.0**power, right[0], tol, "gradient of values")
    assert_close(got[1] * 2.0**power, right[1], tol, "gradient of b")


@iterative
def test_a_solution_is_scaled_back_without_overflow_on_the_way(package, method):
    """Catches: a right-hand side and a matrix of 1e35 in single precision, whose quotient is of order one."""
    system = usual_real(method)
    b = right_hand_side(system, None)
    for power in (-115, 115):
        problem = package.Problem(scaled(system, power, np.float32), (b * 2.0**power).astype(np.float32))
        x = problem.solve(package.method(method))
        assert_close(x, np.linalg.solve(system.dense, b), tolerance(system.condition, np.float32, 1e-5), f"2**{power}")


def test_the_accuracy_limit_is_that_of_the_matrix_as_it_is_given(package):
    """Catches: a magnitude that is not scaled beside products that are."""
    system = BY_NAME["poisson"]
    b = right_hand_side(system, None)
    for power in (0, 70):
        problem = package.Problem(scaled(system, power, np.float32), b.astype(np.float32))
        with package.record() as log:
            x = problem.solve(package.method("minres"), rtol=1e-12)
        assert log[0].status == "accuracy limit"
        expected = np.linalg.solve(system.dense, b)
        assert_close(in_its_units(x, power), expected, tolerance(system.condition, np.float32, 0), "x")


def test_least_squares_in_other_units(package):
    """Catches: the same for lsmr, whose tests are on A^H r."""
    from tests.contract import problems

    problem = problems.BY_NAME["real"]
    b = right_hand_side(problem, None).astype(np.float32)
    expected = np.linalg.lstsq(problem.dense, b, rcond=None)[0]
    plain = None
    for power in (0, -80, 70, 100):
        x = in_its_units(package.LeastSquares(scaled(problem, power, np.float32), b).solve(), power)
        plain = x if plain is None else plain
        np.testing.assert_array_equal(x, plain, err_msg=f"2**{power}")
    assert_close(plain, expected, problems.accuracy(problem, np.float32, 1e-5), "x")
