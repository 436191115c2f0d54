"""What became of a solve as a value, and what is done where it fails, as the user chose."""

import warnings
from functools import partial

import numpy as np
import pytest

from tests.contract.cases import iterative, methods, options, usual
from tests.contract.compare import assert_close
from tests.contract.systems import BY_NAME, System, right_hand_side
from tsgu import Status
from tsgu._core.report import _status


def two_columns(system):
    """A right-hand side, and zero, which is solved in no step."""
    b = right_hand_side(system, 2)
    b[:, 1] = 0
    return b


def residual(system, x, b):
    return np.linalg.norm(b - system.dense @ x, axis=0) / np.linalg.norm(b, axis=0)


@methods
@pytest.mark.parametrize("columns", [None, 2])
def test_a_sound_solve_says_so(package, method, columns):
    """Catches: another shape than that of the columns; the residual of a recurrence; steps of another column."""
    system = usual(method)
    b = right_hand_side(system, columns)
    x, (status, steps, left) = package.Problem(system, b).told(package.method(method), **options(method, 1e-9))
    assert status.shape == steps.shape == left.shape == b.shape[1:]
    assert status.dtype == steps.dtype == np.int32
    assert left.dtype == np.float64
    assert {Status(int(number)) for number in status.flat} <= {Status.CONVERGED, Status.ACCURACY_LIMIT}
    assert_close(x, np.linalg.solve(system.dense, b), 1e-6, "solution")
    np.testing.assert_allclose(left, residual(system, x, b), rtol=1e-2, atol=1e-14)
    assert np.all(steps > 0 if method not in ("direct", "auto") else steps >= -1)


@iterative
def test_a_capped_solve_says_so_column_by_column(package, method):
    """Catches: one status for all columns; a value that differs from what the warning says."""
    system, b = usual(method), two_columns(usual(method))
    with package.record() as log, pytest.warns(package.ConvergenceWarning, match="iteration limit"):
        x, (status, steps, left) = package.Problem(system, b).told(package.method(method), maxiter=2)
    assert [Status(int(number)).words for number in status] == ["iteration limit", "converged"]
    assert [column.status for column in log[0].columns] == ["iteration limit", "converged"]
    assert steps.tolist() == [2, 0]
    np.testing.assert_allclose(left[0], residual(system, x[:, :1], b[:, :1])[0], rtol=1e-8)
    assert left[1] == 0


@pytest.fixture
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@iterative
@pytest.mark.parametrize("by", ["argument", "block"])
@pytest.mark.usefixtures("quiet")
def test_columns_that_failed_are_nan_if_asked_for(package, method, by):
    """Catches: a warning all the same; NaN in the columns that are solved; a choice that one of the two ways loses."""
    system, b = usual(method), two_columns(usual(method))
    problem, solver = package.Problem(system, b), package.method(method)
    if by == "argument":
        with package.on_failure("ignore"):
            x, (status, *_) = problem.told(solver, maxiter=2, on_failure="nan")
    else:
        with package.on_failure("nan"):
            x, (status, *_) = problem.told(solver, maxiter=2)
    assert status.tolist() == [Status.ITERATION_LIMIT, Status.CONVERGED]
    np.testing.assert_array_equal(np.isnan(x).all(axis=0), [True, False])
    np.testing.assert_array_equal(x[:, 1], 0)


@iterative
@pytest.mark.usefixtures("quiet")
def test_an_adjoint_that_failed_makes_the_gradient_nan_if_asked_for(package, method):
    """Catches: a policy that the forward solve alone knows, or that is looked up when the gradient is taken."""
    system = usual(method)
    b = right_hand_side(system, None)
    start, w = np.linalg.solve(system.dense, b), right_hand_side(system, None) + 1
    problem = package.Problem(system, b)
    with package.on_failure("nan"):
        grad_a, grad_b = problem.gradients(w, package.method(method), x0=package.array(start), maxiter=1)
    assert np.isnan(grad_a).all()
    assert np.isnan(grad_b).all()


@iterative
@pytest.mark.usefixtures("quiet")
def test_what_was_found_is_returned_in_silence_if_asked_for(package, method):
    """Catches: another solution than that which is warned of; gradients that are missing."""
    system = usual(method)
    b = right_hand_side(system, None)
    problem, solver = package.Problem(system, b), package.method(method)
    x, (status, *_) = problem.told(solver, maxiter=2, on_failure="ignore")
    gradients = problem.gradients(b, solver, maxiter=2, on_failure="ignore")
    assert status == Status.ITERATION_LIMIT
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", package.ConvergenceWarning)
        assert_close(x, problem.solve(solver, maxiter=2), 1e-12, "solution")
        for got, as_usual in zip(gradients, problem.gradients(b, solver, maxiter=2), strict=True):
            assert_close(got, as_usual, 1e-12, "gradient")
    assert np.isfinite(x).all()


@pytest.mark.parametrize("policy", ["nan", "ignore"])
@pytest.mark.usefixtures("quiet")
def test_a_singular_matrix_is_nan_and_no_error_if_asked_for(package, policy):
    """Catches: an exception out of a step of training that was to go on."""
    system = System("singular", np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]), np.array([1.0, 2.0, 2.0, 4.0]), 2)
    problem = package.Problem(system, np.ones(2))
    x, (status, *_) = problem.told(package.method("direct"), on_failure=policy)
    assert np.isnan(x).all()
    assert status == Status.SINGULAR
    assert np.isnan(problem.gradients(np.ones(2), package.method("direct"), on_failure=policy)[0]).all()


@pytest.mark.usefixtures("quiet")
def test_solvers_from_outside_are_not_given_the_two_keywords(package):
    """Catches: a TypeError in a callable that knows nothing of them; a result that is not judged."""
    system = BY_NAME["general"]
    b = right_hand_side(system, 2)

    def half(A, b, **kwargs):
        assert not kwargs
        x = np.linalg.solve(A, b)
        x[:, 1] /= 2
        return x

    x, (status, steps, left) = package.Problem(system, b).told(package.foreign(half), on_failure="nan")
    assert status.tolist() == [Status.CONVERGED, Status.RESIDUAL_ABOVE_VERIFY]
    assert steps.tolist() == [-1, -1]
    np.testing.assert_allclose(left, [0, 0.5], atol=1e-12)
    np.testing.assert_array_equal(np.isnan(x).any(axis=0), [False, True])


def test_least_squares_and_triangles_say_what_became_of_them(package):
    """Catches: a keyword that only square systems know."""
    rng = np.random.default_rng(3)
    tall = rng.standard_normal((5, 3))
    row, col = (index.ravel() for index in np.indices((5, 3)))
    system, b = System("tall", row, col, tall.ravel(), 3, m=5), rng.standard_normal((5, 2))
    problem = package.LeastSquares(system, b)
    x, (status, steps, _) = problem.told()
    assert_close(x, np.linalg.lstsq(tall, b, rcond=None)[0], 1e-6, "minimiser")
    assert status.tolist() == [Status.CONVERGED] * 2
    assert np.all(steps > 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        x, (status, *_) = problem.told(maxiter=1, on_failure="nan")
    assert status.tolist() == [Status.ITERATION_LIMIT] * 2
    assert np.isnan(x).all()

    upper = np.triu(rng.standard_normal((4, 4))) + 4 * np.eye(4)
    row, col = np.nonzero(upper)
    system, b = System("triangle", row, col, upper[row, col], 4), rng.standard_normal((4, 2))
    solve = lambda A, B, solver, transpose, **kwargs: package.triangular_solve(A, B, **kwargs)  # noqa: E731
    x, (status, steps, left) = package.Problem(system, b, solve=solve).told()
    assert_close(x, np.linalg.solve(upper, b), 1e-12, "solution")
    assert status.tolist() == [Status.CONVERGED] * 2
    assert steps.tolist() == [-1, -1]
    assert np.all(left < 1e-14)


@pytest.mark.parametrize("method", ["linear_cg", "direct"])
def test_a_batch_says_it_member_by_member_and_warns_once(package, method):
    """Catches: a warning for each member; a status that ends up with another one."""
    system = BY_NAME["poisson"]
    values = np.stack([system.values, system.values, system.values])
    b = np.stack([right_hand_side(system, None), np.zeros(system.n), right_hand_side(system, None)])
    bad = Status.ITERATION_LIMIT
    arguments = {"maxiter": 2}
    if method == "direct":
        values[0] = values[2] = 0
        bad, arguments = Status.SINGULAR, {}
    A = package.SparseMatrix.from_coo(system.row, system.col, package.array(values), system.shape)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        x, info = package.Problem.function(A, package.array(b), package.method(method), return_info=True, **arguments)
    assert np.asarray(info.status).tolist() == [bad, Status.CONVERGED, bad]
    assert np.asarray(info.sound).tolist() == [False, True, False]
    np.testing.assert_array_equal(np.asarray(x)[1], 0)
    assert len(caught) == 1
    assert "members 0 and 2 of 3" in str(caught[0].message)


def test_another_word_is_refused_before_anything_is_solved(package):
    """Catches: a typing error that is taken for silence."""
    system = BY_NAME["poisson"]
    problem = package.Problem(system, right_hand_side(system, None))
    refusal = r"on_failure must be 'warn', 'nan' or 'ignore'; got the string 'raise'"
    with pytest.raises(ValueError, match=refusal):
        problem.solve(package.method("linear_cg"), on_failure="raise")
    with pytest.raises(ValueError, match=refusal), package.on_failure("raise"):
        pytest.fail("the block is entered")
    with pytest.raises(TypeError, match=r"return_info must be True or False; got 1"):
        problem.solve(package.method("linear_cg"), return_info=1)
    with pytest.raises(TypeError, match="return_info"):
        problem.solve(partial(package.method("linear_cg"), return_info=True))


def test_the_choice_of_a_block_ends_with_it(package):
    """Catches: a choice that outlives an exception."""
    system = BY_NAME["poisson"]
    problem = package.Problem(system, right_hand_side(system, None))
    with pytest.raises(KeyError), package.on_failure("nan"):
        raise KeyError
    with pytest.warns(package.ConvergenceWarning):
        x = problem.solve(package.method("linear_cg"), maxiter=2)
    assert np.isfinite(x).all()


def test_a_prepared_method_heeds_the_choice(package):
    """Catches: a choice that ends at what was prepared."""
    system = BY_NAME["poisson"]
    A = package.SparseMatrix.from_coo(system.row, system.col, package.array(system.values), system.shape)
    prepared = package.method("linear_cg").prepare(A, maxiter=2)
    b = package.array(right_hand_side(system, None))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with package.on_failure("nan"):
            assert np.isnan(np.asarray(prepared.solve(b))).all()
            assert np.isnan(np.asarray(prepared.solve_transpose(b))).all()


def test_every_status_has_a_number_and_the_words_of_the_log():
    """Catches: a status that is written in the log and has no number, or a number that has moved."""
    assert {status.words for status in Status} == set(_status.ADVICE)
    assert [Status.CONVERGED, Status.ITERATION_LIMIT, Status.SINGULAR, Status.NON_FINITE] == [1, 4, 8, 13]
    assert Status.NON_FINITE.words == "non-finite"
    assert Status.ILL_CONDITIONED.words == "ill-conditioned"
