"""Least squares: solution, derivatives, damping, and what is reported."""

import functools

import numpy as np
import pytest
import scipy.sparse as sp
import scipy.sparse.linalg

from tests.contract import truth
from tests.contract.cases import direction
from tests.contract.compare import assert_close
from tests.contract.problems import BY_NAME, PROBLEMS, accuracy, assert_gradients, assert_solution
from tests.contract.systems import BY_NAME as SQUARE
from tests.contract.systems import right_hand_side

TIGHT = {"atol": 1e-13, "btol": 1e-13}

problems = pytest.mark.parametrize("problem", PROBLEMS, ids=str)


def sides(problem, columns=None):
    """A right-hand side with a large residual, and an upstream gradient."""
    b = right_hand_side(problem, columns)
    w = right_hand_side(problem, columns, seed=4)[: problem.n]
    return b, w


def dense_lstsq(A, b):
    """NumPy's, the solution of minimum norm: independent of anything here, and quick to compile for JAX."""
    return np.linalg.lstsq(A, b, rcond=None)[0]


@problems
@pytest.mark.parametrize("columns", [None, 2], ids=["vector", "block"])
def test_solution_and_both_gradients_equal_the_dense_ones(package, problem, columns):
    """Catches: one of the two terms of Golub and Pereyra, a conjugate, a duplicate, the scale of a column."""
    b, w = sides(problem, columns)
    expected, tol = truth.gradients(problem, b, w), accuracy(problem, order=2)
    for layout in set(package.LAYOUTS) & set(problem.layouts) if package.NAME == "torch" else ("coo",):
        case = package.LeastSquares(problem, b, layout)
        assert_solution(problem, case.solve(**TIGHT), truth.solution(problem, b), tol)
        assert_gradients(problem, case.gradients(w, **TIGHT), expected, tol)


def test_a_compatible_system_has_the_gradient_of_its_second_term_alone(package):
    """Catches: r = 0: a division by the norm of the residual, or an adjoint stopped by a test that r = 0 makes void."""
    problem = BY_NAME["complex"]
    x, w = right_hand_side(problem, None)[: problem.n], sides(problem)[1]
    b = problem.dense @ x
    case = package.LeastSquares(problem, b)
    with package.record() as log:
        grads = case.gradients(w, **TIGHT)
    assert [info.status for info in log] == ["converged"] * 3
    assert_gradients(problem, grads, truth.gradients(problem, b, w), accuracy(problem, order=2))


@problems
def test_second_derivatives_equal_the_dense_ones(package, problem):
    """Catches: an adjoint that is right, and not differentiable; a term that only the second order sees."""
    b, w = sides(problem, 2)
    d = direction(problem, b)
    case, solver = package.LeastSquares(problem, b), package.foreign(dense_lstsq)
    got = case.hessian_products(w, d, *() if package.NAME == "torch" else (solver,), **_tight(package))
    assert_gradients_of_second_order(problem, got, truth.hessian_products(problem, b, w, d))


def _tight(package):
    return TIGHT if package.NAME == "torch" else {}


def assert_gradients_of_second_order(problem, got, expected):
    if problem.name == "badly scaled columns":  # the direction is not scaled: what is compared is what is largest
        for g, e in zip(got, expected, strict=True):
            assert_close(g, e, 1e-6, "second derivative")
        return
    assert_gradients(problem, got, expected, accuracy(problem, order=6))


@problems
def test_forward_mode_equals_the_written_out_derivative(package, problem):
    """Catches: a tangent that lacks dA^H r, which vanishes for a compatible system alone."""
    b, _ = sides(problem, 2)
    d = direction(problem, b)
    case = package.LeastSquares(problem, b)
    solver = () if package.NAME == "torch" else (package.foreign(dense_lstsq),)
    got = case.tangent(d, *solver, **_tight(package))
    loose = 1e-6 if problem.name == "badly scaled columns" else 0.0  # through the normal equations
    assert_solution(problem, got, truth.tangent(problem, b, d), accuracy(problem, order=4) + loose)


def test_vmap_over_values_right_hand_sides_and_both(package):
    """Catches: members of a batch that share a matrix, or a start, or a residual."""
    problem = BY_NAME["complex"]
    b, _ = sides(problem, 2)
    scales = np.array([1.0, 2.0, -0.5])
    many_b = np.stack([b, 2j * b, b[::-1]])
    case = package.LeastSquares(problem, b)
    x = truth.solution(problem, b)
    tol = accuracy(problem, order=2)
    options = (None,) if package.NAME == "torch" else (package.foreign(dense_lstsq),)
    got = case.batched(scales[:, None] * problem.values, None, *options)
    tol = tol if package.NAME == "jax" else 1e-5  # LSMR with the default tolerance, and condition^2
    assert_close(got, np.stack([x / s for s in scales]), tol, "over values")
    expected = np.stack([truth.solution(problem, c) for c in many_b])
    assert_close(case.batched(None, many_b, *options), expected, tol, "over right-hand sides")
    got = case.batched(scales[:, None] * problem.values, many_b, *options)
    assert_close(got, expected / scales[:, None, None], tol, "over both")


@pytest.mark.parametrize(("dtype", "scale"), [(np.complex128, 1e-12), (np.complex128, 1e12), (np.complex64, 1e-6)])
def test_a_scaled_loss_scales_the_gradient(package, dtype, scale):
    """Catches: an absolute threshold in one of the two solves of the adjoint."""
    problem = BY_NAME["complex"]
    b, w = sides(problem, 2)
    rtol = 1e-13 if dtype == np.complex128 else 1e-6
    grads = package.LeastSquares(problem, b, "coo", dtype=dtype).gradients(w * scale, atol=rtol, btol=rtol)
    grads = [g.astype(complex) / scale for g in grads]
    assert_gradients(problem, grads, truth.gradients(problem, b, w), accuracy(problem, dtype, rtol, order=2))


@pytest.mark.parametrize(("of_a", "of_b"), [(1e-20, 1.0), (1.0, 1e-25), (1e15, 1e10)])
def test_scaled_data_scale_the_solution_in_single_precision(package, of_a, of_b):
    """Catches: the square of a small entry vanishes: a solve that ends at once, with x = 0 or a condition number of
    1e10."""
    problem = BY_NAME["real"]
    b, _ = sides(problem)
    case = package.LeastSquares(problem, b * of_b, dtype=np.float32)
    x = case.batched(np.float32(problem.values * of_a)[None], None)[0]
    expected = truth.solution(problem, b)
    assert_solution(problem, x.astype(float) * of_a / of_b, expected, accuracy(problem, np.float32, 1e-5))


def test_damping_gives_the_solution_and_the_derivatives_of_the_damped_problem(package):
    """Catches: a gradient that knows nothing of damp, or has it only in one of its two solves."""
    problem, damp = BY_NAME["complex"], 1.3
    b, w = sides(problem, 2)
    case = package.LeastSquares(problem, b)
    tol = accuracy(problem, order=4)
    x, expected = case.solve(damp=damp, **TIGHT), truth.solution(problem, b, damp)
    assert np.abs(expected - truth.solution(problem, b)).max() > 0.1 * np.abs(expected).max()
    assert_solution(problem, x, expected, tol)
    assert_gradients(problem, case.gradients(w, damp=damp, **TIGHT), truth.gradients(problem, b, w, damp), tol)
    hidden = functools.partial(package.method("lsmr"), damp=damp)  # where the rule would not see it
    assert_gradients(problem, case.gradients(w, hidden, **TIGHT), truth.gradients(problem, b, w, damp), tol)
    if package.NAME == "torch":
        d = direction(problem, b)
        second = truth.hessian_products(problem, b, w, d, damp)
        assert_gradients(problem, case.hessian_products(w, d, damp=damp, **TIGHT), second, 4 * tol)


def test_the_steps_are_those_of_scipy(package):
    """Catches: a recurrence that converges late, or a test of convergence that is not SciPy's."""
    rng = np.random.default_rng(2)
    dense = rng.standard_normal((60, 20)) * (rng.random((60, 20)) < 0.3) + 2 * np.eye(60, 20)
    row, col = np.nonzero(dense)
    problem = type(BY_NAME["real"])("random", row, col, dense[row, col], 20, m=60)
    A = sp.csr_array(dense)
    for b in (right_hand_side(problem, None), dense @ np.ones(20)):
        with package.record() as log:
            x = package.LeastSquares(problem, b, "csr").solve(atol=1e-8, btol=1e-8)
        peer = scipy.sparse.linalg.lsmr(A, b, atol=1e-8, btol=1e-8)
        assert log[0].status == "converged"
        assert abs(log[0].iterations - peer[2]) <= 1
        assert_close(x, peer[0], 1e-6, "x")


def test_the_reported_residual_is_the_true_one(package):
    """Catches: the recurrence's opinion, or ||b - A x|| / ||b||, which says nothing where it cannot vanish."""
    problem = BY_NAME["real"]
    A, b = problem.dense, sides(problem)[0]
    with package.record() as log:
        x = package.LeastSquares(problem, b).solve(atol=1e-2, btol=1e-2)
        package.LeastSquares(problem, A @ x).solve(atol=1e-2, btol=1e-2)
    r = b - A @ x
    optimality = np.linalg.norm(A.T @ r) / (np.linalg.norm(A) * np.linalg.norm(r))
    assert 1e-5 < optimality <= 1e-2
    assert_close(log[0].residual, optimality, 1e-4, "residual")
    assert np.linalg.norm(r) > 0.1 * np.linalg.norm(b)
    assert log[0].history.size == log[0].iterations
    assert_close(log[0].history[-1], optimality, 0.5, "history")  # with the norm of A as far as it is known
    assert log[1].residual < 0.1  # of a compatible system: the relative residual
    assert log[1].status == "converged"


def test_a_gradient_takes_one_solve_with_the_transpose_and_one_with_the_matrix(package):
    """Catches: a solve per term, or per input; x0 in the adjoint."""
    problem = BY_NAME["complex"]
    b, w = sides(problem)
    with package.record() as log:
        grads = package.LeastSquares(problem, b).gradients(w, **TIGHT)
    assert [(info.method, info.transposed) for info in log] == [("lsmr", False), ("lsmr", True), ("lsmr", False)]
    assert_gradients(problem, grads, truth.gradients(problem, b, w), accuracy(problem, order=2))


def test_the_start_serves_the_forward_solve_alone(package):
    """Catches: x0 in the adjoint, or one that is accepted and not used."""
    problem = BY_NAME["complex"]
    b, w = sides(problem)
    x0 = package.array(truth.solution(problem, b))
    with package.record() as log:
        grads = package.LeastSquares(problem, b).gradients(w, x0=x0, **TIGHT)
    assert log[0].iterations <= 2
    assert log[2].iterations > 2
    assert_gradients(problem, grads, truth.gradients(problem, b, w), accuracy(problem, order=2))
    with package.record() as log:
        package.LeastSquares(problem, b).solve(x0=package.array(1e3 * w), **TIGHT)
    assert log[0].status in ("converged", "accuracy limit")


def test_zero_columns_are_exactly_zero_and_the_others_unharmed(package):
    """Catches: 0 / 0 in a norm; a column that goes on after it is done."""
    problem = BY_NAME["real"]
    b = right_hand_side(problem, 4)
    b[:, 1] = 0
    b[:, 2] = problem.dense @ np.ones(problem.n)
    with package.record() as log:
        x = package.LeastSquares(problem, b).solve(**TIGHT)
    assert np.all(x[:, 1] == 0)
    assert [column.iterations == 0 for column in log[0].columns] == [False, True, False, False]
    assert_solution(problem, x, truth.solution(problem, b), accuracy(problem))


def test_a_gradient_that_is_not_finite_passes_through_as_nan(package):
    """Catches: an error in the middle of a backward pass, or NaN in columns that are sound."""
    problem = BY_NAME["complex"]
    b, w = sides(problem, 2)
    w[0, 1] = np.nan
    with pytest.warns(package.ConvergenceWarning, match="non-finite"):
        grads = package.LeastSquares(problem, b, "coo").gradients(w, **TIGHT)
    assert np.isnan(grads[0]).all()
    assert np.isnan(grads[1][:, 1]).all()
    expected = truth.gradients(problem, b[:, 0], w[:, 0])[1]
    assert_close(grads[1][:, 0], expected, accuracy(problem, order=2), "gradient of b")


def test_solvers_from_outside_are_asked_for_x_and_for_the_transpose(package):
    """Catches: A^H where A^T was promised; the forward solver on A with n right-hand entries; (x, info); (m, 1) for
    (m,)."""
    problem = BY_NAME["complex"]
    seen = []

    def lsqr(A, b):
        seen.append((A.shape, b.shape))
        one = [scipy.sparse.linalg.lsqr(A, c, atol=1e-14, btol=1e-14)[0] for c in b.reshape(b.shape[0], -1).T]
        return np.stack(one, axis=1).reshape(A.shape[1], *b.shape[1:])

    def transposed(A, g):
        seen.append(("T", A.shape, g.shape))
        return dense_lstsq(A.T, g)

    for columns in (None, 2) if package.NAME == "torch" else (None,):
        b, w = sides(problem, columns)
        expected, tol = truth.gradients(problem, b, w), accuracy(problem, order=2)
        for transpose in (None, transposed):
            seen.clear()
            other = None if transpose is None else package.foreign(transpose)
            got = package.LeastSquares(problem, b, "coo").gradients(w, package.foreign(lsqr), other)
            assert_gradients(problem, got, expected, tol)
            m, n = problem.shape
            adjoint = ((n, m), w.shape) if transpose is None else ("T", (m, n), w.shape)
            assert seen == [((m, n), b.shape), adjoint, ((m, n), b.shape)]


def test_an_own_method_serves_the_adjoint_of_a_solver_from_outside(package):
    """Catches: a plan in which one callable must do all."""
    problem = BY_NAME["complex"]
    b, w = sides(problem)
    with package.record() as log:
        got = package.LeastSquares(problem, b).gradients(w, package.foreign(dense_lstsq), package.method("lsmr"))
    assert [info.method for info in log] == ["solve", "lsmr", "solve"]
    assert_gradients(problem, got, truth.gradients(problem, b, w), 1e-5)


def test_a_solver_from_outside_that_does_not_solve_is_reported(package):
    """Catches: a wrong solution, or a wrong adjoint, taken on trust."""
    problem = BY_NAME["real"]
    b, w = sides(problem)
    case = package.LeastSquares(problem, b)
    off = package.foreign(lambda A, b: dense_lstsq(A, b) + 0.1)
    right = package.foreign(dense_lstsq)
    with pytest.warns(package.ConvergenceWarning, match=r"forward system: residual above verify"):
        case.solve(off)
    case.solve(off, verify=None)
    wrong = package.foreign(lambda A, g: A @ g)
    with pytest.warns(package.ConvergenceWarning, match=r"adjoint system .* residual above verify"):
        case.gradients(w, right, wrong)
    with package.record() as log:
        case.solve(right)
    assert log[0].status == "converged"
    assert log[0].residual < 1e-14


def test_what_falls_short_is_reported(package):
    """Catches: an iteration limit, a condition number, a rank: results that look like any other."""
    problem = BY_NAME["real"]
    b, _ = sides(problem)
    case = package.LeastSquares(problem, b)
    with pytest.warns(package.ConvergenceWarning, match=r"iteration limit; .*\. Raise maxiter, scale") as heard:
        case.solve(maxiter=3)
    assert heard[0].message.info.iterations == 3
    with pytest.warns(package.ConvergenceWarning, match="ill-conditioned"):
        case.solve(conlim=1.5)
    case.solve(conlim=0.0)  # as in SciPy: no such test


def test_a_rank_that_is_deficient_is_reported_where_a_gradient_is_asked_for(package):
    """Catches: one minimiser of many, with a derivative that does not exist."""
    problem = BY_NAME["real"]
    b, w = sides(problem)
    dense = np.concatenate([problem.dense, problem.dense[:, :1]], axis=1)
    row, col = np.nonzero(dense)
    twin = type(problem)("twin columns", row, col, dense[row, col], problem.n + 1, m=problem.m)
    case = package.LeastSquares(twin, b)
    with pytest.warns(package.ConvergenceWarning, match=r"adjoint system .* rank deficient; .* damp > 0"):
        case.gradients(np.append(w, 0.0))


def test_what_cannot_be_solved_is_refused(package):
    """Catches: an answer out of many, or an error from deep inside."""
    problem = BY_NAME["real"]
    b, w = sides(problem)
    row, col, values = problem.row, problem.col, problem.values
    kind = type(problem)
    wide = kind("wide", col, row, values, problem.m, m=problem.n)
    order = np.lexsort((wide.col, wide.row))
    wide = kind("wide", wide.row[order], wide.col[order], values[order], problem.m, m=problem.n)
    with pytest.raises(ValueError, match=r"at least as many rows as columns.*got \(9, 26\).*damp > 0"):
        package.LeastSquares(wide, w).solve()
    damped = package.LeastSquares(wide, w).solve(damp=0.5, **TIGHT)
    A = wide.dense
    assert_close(damped, np.linalg.solve(A.T @ A + 0.25 * np.eye(26), A.T @ w), 1e-9, "x of an underdetermined problem")
    keep = (col != 2) & (col != 5)
    holes = kind("holes", row[keep], col[keep], values[keep], problem.n, m=problem.m)
    with pytest.raises(ValueError, match=r"full column rank; got 2 columns without a stored entry: 2, 5"):
        package.LeastSquares(holes, b).solve()
    case = package.LeastSquares(problem, b)
    with pytest.raises(ValueError, match=r"B must have shape \(26,\) or \(26, k\)"):
        package.LeastSquares(problem, b[:-1]).solve()
    with pytest.raises(TypeError, match=r"lstsq must be lsmr.*linear_cg, which solves square systems"):
        case.solve(package.method("linear_cg"))
    with pytest.raises(TypeError, match=r"lsmr accepts the keyword arguments .*; got rtol"):
        case.solve(rtol=1e-3)
    with pytest.raises(TypeError, match=r"damp must be zero unless lsmr solves both"):
        case.solve(package.foreign(dense_lstsq), damp=0.1)
    with pytest.raises(ValueError, match=r"x0 must have the shape of the solution, \(9,\); got \(26,\)"):
        case.solve(x0=package.array(b))
    with pytest.raises(ValueError, match=r"damp must be a finite number >= 0; got -1"):
        case.solve(damp=-1)
    with pytest.raises(ValueError, match=r"return the solution as .* shape \(9,\); got shape \(26,\)"):
        case.solve(lambda A, B: B)


def test_lsmr_solves_square_systems_too(package):
    """Catches: a method that is one in its own function alone; damp where the rule knows nothing of it."""
    system = SQUARE["complex general"]
    b, w = right_hand_side(system, None), right_hand_side(system, None, seed=4)
    case = package.Problem(system, b)
    tol = accuracy(system, order=2)
    grads = case.gradients(w, package.method("lsmr"), **TIGHT)
    for got, expected in zip(grads, truth.gradients(system, b, w), strict=True):
        assert_close(got, expected, tol, "gradient")
    with pytest.raises(TypeError, match="damp must be zero where lsmr solves a square system"):
        case.solve(package.method("lsmr"), damp=0.1)
