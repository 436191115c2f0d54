"""No silent wrong answer: what is reported, and in which words."""

import dataclasses
import warnings

import numpy as np
import pytest

from tests.contract import truth
from tests.contract.cases import RTOL, iterative, methods, options, usual
from tests.contract.compare import assert_close, tolerance
from tests.contract.systems import BY_NAME, System, right_hand_side
from tsgu._core.methods import _registry


@iterative
def test_a_capped_forward_solve_is_reported_with_its_true_residual(package, method):
    """Catches: a capped run that returns quietly, or reports the residual of a recurrence."""
    system = usual(method)
    b = right_hand_side(system, None)
    problem = package.Problem(system, b)
    with package.record() as log, pytest.warns(package.ConvergenceWarning, match=rf"{method} on the forward system"):
        x = problem.solve(package.method(method), maxiter=2)
    true = np.linalg.norm(b - system.dense @ x) / np.linalg.norm(b)
    assert log[0].status == "iteration limit"
    assert log[0].iterations == 2
    assert_close(log[0].residual, true, 1e-10, "residual")


@iterative
def test_a_failed_adjoint_is_reported_as_the_adjoint(package, method):
    """Catches: checking the forward solve alone; here the start is exact, so that only the adjoint misses its
    target."""
    system = usual(method)
    b, w = right_hand_side(system, None), right_hand_side(system, None, seed=4)
    x0 = package.array(truth.solution(system, b))
    with pytest.warns(package.ConvergenceWarning, match=r"on the adjoint system \(A\^T\): iteration limit"):
        package.Problem(system, b).gradients(w, package.method(method), x0=x0, maxiter=2)


@iterative
def test_the_warning_turned_into_an_error_stops_the_backward_pass(package, method):
    """Catches: an exception swallowed on the way out of autograd."""
    system = usual(method)
    b, w = right_hand_side(system, None), right_hand_side(system, None, seed=4)
    x0 = package.array(truth.solution(system, b))
    with warnings.catch_warnings():
        warnings.simplefilter("error", package.ConvergenceWarning)
        with pytest.raises(package.WarningAsError, match="adjoint system"):
            package.Problem(system, b).gradients(w, package.method(method), x0=x0, maxiter=2)


@pytest.mark.parametrize("method", ["linear_cg", "minres"])
def test_a_hermitian_method_on_another_matrix_says_just_that(package, method):
    """Catches: advice to raise maxiter where no number of steps will help."""
    system = BY_NAME["convection"]
    with pytest.warns(package.ConvergenceWarning, match=rf"A is not symmetric \(Hermitian\), which {method} needs"):
        package.Problem(system, right_hand_side(system, None)).solve(package.method(method))


@iterative
def test_a_matrix_that_loses_constants_is_said_to_be_singular(package, method):
    """Catches: advice to raise maxiter for a pure Neumann problem, whose right-hand side is not in its range."""
    system = BY_NAME["poisson"]
    dense = system.dense - np.diag(system.dense.sum(1))
    row, col = np.nonzero(dense)
    neumann = dataclasses.replace(system, row=row, col=col, values=dense[row, col])
    b = right_hand_side(neumann, None)
    with pytest.warns(package.ConvergenceWarning, match="sums to zero, so that A is singular: a pure Neumann problem"):
        package.Problem(neumann, b).solve(package.method(method))
    one_way = dense + np.triu(dense, 1) - np.diag(np.triu(dense, 1).sum(0))  # columns that sum to zero, and no rows
    assert np.abs(one_way.sum(1)).max() > 0.1
    row, col = np.nonzero(one_way)
    drift = dataclasses.replace(system, row=row, col=col, values=one_way[row, col])
    with pytest.warns(package.ConvergenceWarning) as heard:
        package.Problem(drift, b).solve(package.method(method))
    says = "A is not symmetric" if _registry.method(method).hermitian else "Each row of A, or each column, sums to zero"
    assert says in str(heard[0].message)
    with warnings.catch_warnings():  # what is in its range is solved
        warnings.simplefilter("error")
        x = package.Problem(neumann, b - b.mean()).solve(package.method(method), rtol=1e-10)
    assert_close(dense @ x, b - b.mean(), 1e-8, "A x")


@methods
def test_a_non_finite_upstream_gradient_stays_in_its_column(package, method):
    """Catches: a NaN that spreads to the other columns, or becomes an error in the backward pass."""
    system = usual(method)
    b, w = right_hand_side(system, 3), right_hand_side(system, 3, seed=4)
    expected = truth.gradients(system, b, w)[1]
    w[2, 1] = np.nan
    with package.record() as log, pytest.warns(package.ConvergenceWarning, match="non-finite"):
        grad_b = package.Problem(system, b).gradients(w, package.method(method), **options(method))[1]
    assert np.all(np.isnan(grad_b[:, 1]))
    tol = tolerance(system.condition, np.float64, RTOL)
    assert_close(grad_b[:, [0, 2]], expected[:, [0, 2]], tol, "the other columns")
    assert [column.status == "non-finite" for column in log[1].columns] == [False, True, False]


def test_columns_keep_their_own_status_and_count(package):
    """Catches: one slow column that drags its neighbours along, or hides behind them."""
    system = BY_NAME["poisson"]
    eigenvector = np.linalg.eigh(system.dense)[1][:, 0]
    b = np.stack([eigenvector, right_hand_side(system, None), np.zeros(system.n)], axis=1)
    with package.record() as log, pytest.warns(package.ConvergenceWarning, match="iteration limit") as heard:
        package.Problem(system, b).solve(package.method("linear_cg"), rtol=RTOL, maxiter=3)
    assert heard[0].message.info is log[0]
    assert [column.status for column in log[0].columns] == ["converged", "iteration limit", "converged"]
    assert [column.iterations for column in log[0].columns] == [1, 3, 0]
    assert log[0].status == "iteration limit"


def test_a_breakdown_keeps_the_last_sound_iterate(package):
    """Catches: BiCGSTAB on unit vectors of a bidiagonal matrix: NaN from 0 / 0."""
    n = 8
    bidiagonal = 2 * np.eye(n) + np.diag(np.ones(n - 1), -1)
    row, col = np.nonzero(bidiagonal)
    system = System("bidiagonal", row, col, bidiagonal[row, col], n)
    x = package.Problem(system, np.eye(n)).solve(package.method("bicgstab"), rtol=RTOL)
    assert_close(x, np.linalg.inv(bidiagonal), tolerance(system.condition, np.float64, RTOL), "inverse")


def test_bicgstab_tries_another_shadow_where_the_first_is_orthogonal_at_once(package):
    """Catches: giving up where r^H A r = 0, as for a unit vector and a zero diagonal entry."""
    dense = np.array([[0.0, 2.0], [1.0, 3.0]])
    row, col = np.nonzero(dense)
    system = System("zero corner", row, col, dense[row, col], 2)
    x = package.Problem(system, np.array([1.0, 0.0])).solve(package.method("bicgstab"), rtol=RTOL)
    assert_close(x, np.array([-1.5, 0.5]), tolerance(system.condition, np.float64, RTOL), "x")


@iterative
def test_a_singular_system_is_never_called_converged(package, method):
    """Catches: a "solution" of a system that has none; or one of 1e11, from a division by a pivot of rounding
    errors."""
    dense = np.diag([1.0, 2.0, 0.0, 3.0])
    row, col = np.arange(4), np.arange(4)
    system = System("singular", row, col, np.diag(dense), 4, True, True)
    with package.record() as log, pytest.warns(package.ConvergenceWarning):
        x = package.Problem(system, np.ones(4)).solve(package.method(method))
    assert not log[0].converged
    assert log[0].residual <= 1 + 1e-12, "worse than the zero vector"
    assert_close(log[0].residual, np.linalg.norm(1 - dense @ x) / 2, 1e-8, "residual")


def test_direct_reports_a_matrix_singular_to_working_precision(package):
    """Catches: tiny pivots that pass for a solution: the residual looks small beside |A| |x| and is as large as b."""
    n = 30
    weights = np.random.default_rng(0).random(n - 1)  # so that rounding leaves a last pivot of 1e-16 rather than zero
    neumann = -np.diag(weights, 1) - np.diag(weights, -1)
    neumann -= np.diag(neumann.sum(1))
    row, col = np.nonzero(neumann)
    system = System("neumann", row, col, neumann[row, col], n)
    problem = package.Problem(system, np.ones(n))
    if package.NAME == "torch":
        with pytest.raises(package.SingularError, match="A must not be singular for direct"):
            problem.solve(package.method("direct"))
    else:
        with pytest.warns(package.ConvergenceWarning, match="direct on the forward system: singular"):
            assert np.all(np.isnan(problem.solve(package.method("direct"))))


@iterative
def test_a_tolerance_beyond_the_precision_ends_at_the_accuracy_limit(package, method):
    """Catches: a request for 1e-12 in single precision: an endless loop, or a warning about nothing."""
    system = BY_NAME["poisson"]
    b = right_hand_side(system, None)
    with package.record() as log:
        x = package.Problem(system, b, dtype=np.float32).solve(package.method(method), rtol=1e-12)
    assert log[0].status == "accuracy limit"
    assert log[0].iterations < 250
    assert_close(x, truth.solution(system, b), tolerance(system.condition, np.float32, 0), "x")


@methods
def test_a_solution_that_overflows_is_reported(package, method):
    """Catches: infinity with the status of a solution: the residual is judged before the scale of B comes back."""
    system = dataclasses.replace(BY_NAME["one unknown"], values=np.array([1e-3], np.float32))
    b = np.array([[3e38, 1.0]], np.float32)
    with package.record() as log, pytest.warns(package.ConvergenceWarning, match="overflow"):
        x = package.Problem(system, b).solve(package.method(method))
    assert [column.status for column in log[0].columns] == ["overflow", "converged"]
    assert np.isinf(x[0, 0])
    assert_close(x[0, 1], 1000.0, 1e-6, "x")


@methods
@pytest.mark.parametrize("columns", [None, 2])
def test_the_largest_numbers_of_a_dtype_are_a_right_hand_side_like_any_other(package, method, columns):
    """Catches: NaN or zero reported as converged: a scale for B that is infinite, or whose reciprocal is taken as
    zero."""
    i = np.arange(3)
    system = System("", i, i, np.full(3, 2.0, np.float32), 3)
    b = np.array([3e38, 1e38, -2e38], np.float32)
    b = b if columns is None else np.stack([b, [1, 2, 3]], axis=1).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        x = package.Problem(system, b).solve(package.method(method))
    for got, expected in zip(np.atleast_2d(x.T), np.atleast_2d(b.T), strict=True):
        assert_close(got, expected / 2, 1e-6, "x")
