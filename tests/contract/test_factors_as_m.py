"""What ``direct`` has prepared for one matrix as a preconditioner for others."""

import copy
import dataclasses

import numpy as np
import pytest

from tests.contract import truth
from tests.contract.cases import RTOL, direction
from tests.contract.compare import assert_close, tolerance
from tests.contract.systems import BY_NAME, System, right_hand_side

CASES = [
    ("linear_cg", "hermitian definite"),
    ("minres", "hermitian definite"),
    ("bicgstab", "general"),
    ("gmres", "complex general"),
]


def nearby(system, size=0.01):
    """Other values on the same pattern, a little off: Hermitian and definite where they were."""
    z = np.random.default_rng(3).standard_normal((2, system.n))
    z[1] = z[0] if system.hermitian else z[1]
    return dataclasses.replace(system, values=system.values * np.exp(size * (z[0][system.row] + z[1][system.col])))


def prepared(package, system, **kwargs):
    return package.method("direct").prepare(package.Problem(system, system.values[:1]).detached(), **kwargs)


@pytest.mark.parametrize(("method", "example"), CASES)
def test_factors_of_a_matrix_nearby_take_few_steps_forward_and_in_the_adjoint(package, method, example):
    """Catches: factors that are believed, whose solution is that of another matrix; an adjoint with factors that are
    not transposed, or conjugated, which takes many steps; a report for each application."""
    old = BY_NAME[example]
    new = nearby(old)
    b, w = right_hand_side(new, 2), right_hand_side(new, 2, seed=4)
    M, problem, solver = prepared(package, old), package.Problem(new, b), package.method(method)
    with package.record() as log:
        grads = problem.gradients(w, solver, M=M, rtol=RTOL)
    assert [(info.method, info.transposed, info.status) for info in log] == [
        (method, False, "converged"),
        (method, True, "converged"),
    ]
    assert 2 <= max(info.iterations for info in log) <= 10, log
    tol = tolerance(new.condition, np.float64, RTOL, 2)
    for got, expected in zip(grads, truth.gradients(new, b, w), strict=True):
        assert_close(got, expected, tol, "gradient")
    assert_close(problem.solve(solver, M=M, rtol=RTOL), truth.solution(new, b), tol, "x")


@pytest.mark.parametrize("example", ["general", "complex general"])
def test_its_transpose_is_that_of_the_inverse(package, example):
    """Catches: a transpose that is the conjugate one, or none; a transposed one that cannot be given as a solver.

    With the exact inverse gmres takes one step.
    """
    system = BY_NAME[example]
    flipped = dataclasses.replace(system, row=system.col, col=system.row)
    b, w = right_hand_side(system, None), right_hand_side(system, None, seed=4)
    factors = prepared(package, system)
    problem, gmres = package.Problem(flipped, b), package.method("gmres")
    with package.record() as log:
        for M in (factors.T, factors.T.T.T, factors):
            problem.solve(gmres, M=M)
    steps = [info.iterations for info in log]
    assert steps[:2] == [1, 1]
    assert steps[2] > 3
    tol = tolerance(system.condition, np.float64, RTOL, 2)
    with package.record() as log:
        grads = problem.gradients(w, factors.T)
    assert [(info.method, info.transposed, info.status) for info in log] == [
        ("direct", False, "converged"),
        ("direct", True, "converged"),
    ]
    for got, expected in zip(grads, truth.gradients(flipped, b, w), strict=True):
        assert_close(got, expected, tol, "gradient")
    x = np.asarray(factors.T.solve(package.array(b)))
    assert_close(x, np.linalg.solve(system.dense.T, b), tol, "x of the transpose")
    x = np.asarray(factors.T.solve_transpose(package.array(b)))
    assert_close(x, np.linalg.solve(system.dense, b), tol, "x of the transpose of the transpose")


def test_second_derivatives_and_batches_share_it(package):
    """Catches: factors that reach the first derivative alone; a leading dimension that they do not know."""
    old = BY_NAME["general"]
    new = nearby(old)
    b, w = right_hand_side(new, None), right_hand_side(new, None, seed=4)
    M, problem, gmres = prepared(package, old), package.Problem(new, b), package.method("gmres")
    along = direction(new, b)
    tol = tolerance(new.condition, np.float64, RTOL, 4)
    second = problem.hessian_products(w, along, gmres, M=M, rtol=RTOL)
    for got, expected in zip(second, truth.hessian_products(new, b, w, along), strict=True):
        assert_close(got, expected, tol, "second derivative")
    values, sides = np.stack([old.values, new.values, 1.3 * new.values]), right_hand_side(new, 3).T.copy()
    x = problem.batched(None, sides, gmres, M=M, rtol=RTOL)
    both = problem.batched(values, sides, gmres, M=M, rtol=RTOL)
    for index in range(3):
        own = dataclasses.replace(new, values=values[index])
        assert_close(x[index], np.linalg.solve(new.dense, sides[index]), tol, "x")
        assert_close(both[index], np.linalg.solve(own.dense, sides[index]), tol, "x of a batch of both")


def test_real_factors_serve_a_complex_system_and_double_ones_a_single_one(package):
    """Catches: the imaginary part dropped; an error in the words of SuperLU; a double solution of a single system."""
    old = BY_NAME["general"]
    M, gmres = prepared(package, old), package.method("gmres")
    complex_ = dataclasses.replace(old, values=old.values + 0.01j * (old.row == old.col))
    b = right_hand_side(complex_, None)
    assert np.iscomplexobj(b)
    with package.record() as log:
        x = package.Problem(complex_, b).solve(gmres, M=M, rtol=RTOL)
        y = package.Problem(old, b.real, dtype=np.float32).solve(gmres, M=M)
    assert max(info.iterations for info in log) <= 10
    assert_close(x, truth.solution(complex_, b), tolerance(complex_.condition, np.float64, RTOL), "x")
    assert y.dtype == np.float32
    assert_close(y, np.linalg.solve(old.dense, b.real), tolerance(old.condition, np.float32, 1e-5), "single")


def test_a_matrix_that_is_singular_to_working_precision_is_said_to_be_so(package):
    """Catches: steps with a factor whose last pivot is rounding, for which nobody is told the reason."""
    n = 20
    row, col = np.nonzero(abs(np.subtract.outer(np.arange(n), np.arange(n))) <= 1)
    neumann = System("", row, col, np.where(row == col, np.where((row == 0) | (row == n - 1), 1.0, 2.0), -1.0), n)
    shifted = dataclasses.replace(neumann, values=neumann.values + (row == col))
    problem, gmres = package.Problem(shifted, np.ones(n)), package.method("gmres")
    if package.NAME == "torch":
        with pytest.raises(package.SingularError, match="singular"):
            problem.solve(gmres, M=prepared(package, neumann))
    else:
        M = prepared(package, neumann)
        with pytest.warns(package.ConvergenceWarning):
            problem.solve(gmres, M=M)


def test_what_does_not_fit_is_refused(package):
    """Catches: an error in the words of SuperLU; a method of steps, which is no linear map, taken for one."""
    real, complex_ = BY_NAME["general"], BY_NAME["complex general"]
    b = right_hand_side(real, None)
    problem, gmres = package.Problem(real, b), package.method("gmres")
    for name in ("gmres", "auto"):
        given = package.method(name).prepare(problem.detached())
        with pytest.raises(TypeError, match=f"M must be a matrix .* or what direct.prepare returned; got {name} prep"):
            problem.solve(gmres, M=given)
        with pytest.raises(AttributeError, match=f"T must be asked of what direct.prepare returned; got {name} prep"):
            given.T  # noqa: B018
    with pytest.raises(TypeError, match="M must be real for a real system"):
        problem.solve(gmres, M=prepared(package, complex_))
    other = BY_NAME["poisson"]
    assert other.n != real.n
    with pytest.raises(ValueError, match=rf"M must be a \({other.n}, {other.n}\) matrix.*; got \({real.n}, {real.n}\)"):
        package.Problem(other, right_hand_side(other, None)).solve(gmres, M=prepared(package, real))


def test_a_copy_preconditions_like_the_original(package):
    """Catches: factors that a checkpoint of a module loses."""
    system = BY_NAME["general"]
    M = copy.deepcopy(prepared(package, system).T)
    flipped = dataclasses.replace(system, row=system.col, col=system.row)
    with package.record() as log:
        package.Problem(flipped, right_hand_side(system, None)).solve(package.method("gmres"), M=M)
    assert log[0].iterations == 1
