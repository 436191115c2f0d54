"""What every package promises, for every method and every system of the catalogue that suits it."""

import warnings

import numpy as np
import pytest

from tests.contract import torch_adapter, truth
from tests.contract.compare import assert_close, tolerance
from tests.contract.systems import BY_NAME, METHODS, PAIRS, right_hand_side

RTOL = 1e-12
SINGLE = {np.dtype(np.float64): np.float32, np.dtype(np.complex128): np.complex64}

pairs = pytest.mark.parametrize(("method", "system"), PAIRS, ids=lambda value: str(value))
methods = pytest.mark.parametrize("method", METHODS)


@pytest.fixture(params=[torch_adapter], ids=lambda module: module.NAME)
def package(request):
    return request.param


def options(method, rtol=RTOL, **more):
    """``direct`` has no tolerance."""
    return {} if method == "direct" else {"rtol": rtol, **more}


def usual(method):
    """A system that the method is meant for."""
    return BY_NAME[{"linear_cg": "hermitian definite", "minres": "hermitian indefinite"}.get(method, "complex general")]


def direction(system, b, seed=5):
    """A direction in (values, b); Hermitian in the values where the matrix must stay so for the method."""
    rng = np.random.default_rng(seed)
    dv = rng.standard_normal(system.values.shape)
    db = rng.standard_normal(b.shape)
    if system.complex:
        dv, db = dv + 1j * rng.standard_normal(dv.shape), db + 1j * rng.standard_normal(db.shape)
    return dv.astype(system.values.dtype), db.astype(system.values.dtype)


# Solutions and gradients


@pairs
@pytest.mark.parametrize("columns", [None, 3])
def test_solution_equals_the_dense_one(package, method, system, columns):
    """A wrong conversion, a duplicate counted once, a transposed product."""
    b = right_hand_side(system, columns)
    x = package.Problem(system, b).solve(package.method(method), **options(method))
    assert_close(x, truth.solution(system, b), tolerance(system.condition, np.float64, RTOL), "x")


@pairs
@pytest.mark.parametrize("columns", [None, 3])
def test_gradients_equal_the_dense_ones_at_every_stored_entry(package, method, system, columns):
    """A missing transpose or conjugate, a gradient zero or absent at an explicit zero, a duplicate with half of it."""
    b, w = right_hand_side(system, columns), right_hand_side(system, columns, seed=4)
    expected = truth.gradients(system, b, w)
    tol = tolerance(system.condition, np.float64, RTOL, order=2)
    for layout in sorted(set(system.layouts) & set(package.LAYOUTS)):
        got = package.Problem(system, b, layout).gradients(w, package.method(method), **options(method))
        assert_close(got[0], expected[0], tol, f"gradient of the values, {layout}")
        assert_close(got[1], expected[1], tol, f"gradient of b, {layout}")


@pairs
def test_single_precision_is_solved_to_single_precision(package, method, system):
    """A tolerance beyond the precision that ends in failure or an endless loop, a silent promotion to double."""
    b, w = right_hand_side(system, 2), right_hand_side(system, 2, seed=4)
    dtype = SINGLE[system.values.dtype]
    problem = package.Problem(system, b, dtype=dtype)
    x = problem.solve(package.method(method), **options(method, 1e-6))
    assert x.dtype == dtype
    tol = tolerance(system.condition, np.float32, 1e-6, order=2)
    assert_close(x, truth.solution(system, b), tol, "x")
    grads = problem.gradients(w, package.method(method), **options(method, 1e-6))
    assert grads[0].dtype == grads[1].dtype == dtype
    for got, expected, what in zip(grads, truth.gradients(system, b, w), ("values", "b"), strict=True):
        assert_close(got, expected, tol, f"gradient of {what}")


def second_order_pairs():
    """The systems of a second derivative in the values are not Hermitian, even where A is."""
    return [(m, s) for m, s in PAIRS if m in ("bicgstab", "gmres", "direct")]


@pytest.mark.parametrize(("method", "system"), second_order_pairs(), ids=lambda value: str(value))
def test_second_derivatives_equal_the_dense_ones_at_every_stored_entry(package, method, system):
    """The adjoint solve differentiated with the solvers swapped instead of with A^H: a transposed second derivative."""
    b, w = right_hand_side(system, 2), right_hand_side(system, 2, seed=4)
    along = direction(system, b)
    got = package.Problem(system, b).hessian_products(w, along, package.method(method), **options(method))
    expected = truth.hessian_products(system, b, w, along)
    tol = tolerance(system.condition, np.float64, RTOL, order=4)
    assert_close(got[0], expected[0], tol, "second derivative, values")
    assert_close(got[1], expected[1], tol, "second derivative, b")


@pairs
def test_second_derivatives_in_b_equal_the_dense_ones(package, method, system):
    """The same along directions in b alone, which every method can follow."""
    b, w = right_hand_side(system, None), right_hand_side(system, None, seed=4)
    along = np.zeros_like(system.values), direction(system, b)[1]
    got = package.Problem(system, b).hessian_products(w, along, package.method(method), **options(method))
    expected = truth.hessian_products(system, b, w, along)
    tol = tolerance(system.condition, np.float64, RTOL, order=4)
    assert_close(got[0], expected[0], tol, "second derivative, values")
    assert_close(got[1], expected[1], tol, "second derivative, b")


@pairs
def test_forward_mode_equals_the_dense_one(package, method, system):
    """A tangent solve that starts from x0, or forgets dA x."""
    b = right_hand_side(system, 2)
    along = direction(system, b)
    got = package.Problem(system, b).tangent(along, package.method(method), **options(method))
    tol = tolerance(system.condition, np.float64, RTOL, order=2)
    assert_close(got, truth.tangent(system, b, along), tol, "tangent")


@methods
@pytest.mark.parametrize("batched", ["values", "b", "both"])
def test_vmap_equals_a_loop(package, method, batched):
    """Members of a batch that share a preparation meant for one, or come back in the wrong order."""
    system = usual(method)
    b = np.stack([right_hand_side(system, 2, seed) for seed in (1, 2, 3)])
    values = np.stack([system.values * scale for scale in (1.0, 2.0, -0.5 if method != "linear_cg" else 0.5)])
    problem = package.Problem(system, b[0])
    got = problem.batched(
        values if batched != "b" else None,
        b if batched != "values" else None,
        package.method(method),
        **options(method),
    )
    tol = tolerance(system.condition, np.float64, RTOL)
    for index in range(3):
        scale = values[index, 0] / system.values[0] if batched != "b" else 1.0
        expected = truth.solution(system, b[index if batched != "values" else 0]) / scale
        assert_close(got[index], expected, tol, f"member {index}")


# Scales


@methods
@pytest.mark.parametrize(("dtype", "scale"), [(np.complex128, 1e-150), (np.complex128, 1e12), (np.complex64, 1e-24)])
def test_a_tiny_or_huge_right_hand_side_scales_the_solution(package, method, dtype, scale):
    """An absolute threshold: b x 1e-12 giving x = 0; a norm that vanishes in single precision."""
    system = usual(method)
    b = right_hand_side(system, None)
    rtol = RTOL if dtype == np.complex128 else 1e-6
    x = package.Problem(system, b * scale, dtype=dtype).solve(package.method(method), **options(method, rtol))
    tol = tolerance(system.condition, dtype, rtol)
    assert_close(x.astype(complex) / scale, truth.solution(system, b), tol, "x / scale")


@methods
@pytest.mark.parametrize(("dtype", "scale"), [(np.complex128, 1e-12), (np.complex128, 1e12), (np.complex64, 1e-6)])
def test_a_scaled_loss_scales_the_gradient(package, method, dtype, scale):
    """An absolute threshold in the adjoint: loss x 1e-9 giving a gradient of exactly zero."""
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
    """0 / 0 in a relative residual, or noise where there is no load."""
    system = usual(method)
    b = right_hand_side(system, 3)
    b[:, 1] = 0
    with package.record() as log:
        x = package.Problem(system, b).solve(package.method(method), **options(method))
    assert np.all(x[:, 1] == 0)
    assert log[0].columns[1].status == "converged"
    assert log[0].columns[1].iterations in (0, None)
    assert_close(x, truth.solution(system, b), tolerance(system.condition, np.float64, RTOL), "x")


# Starting point and preconditioner


@pytest.mark.parametrize("method", METHODS[:4])
def test_an_exact_start_takes_no_step(package, method):
    """0 / 0 on a residual that is zero at once: an exact initial guess that gives an error of 1."""
    system = BY_NAME["one unknown"]
    b = np.array([6.0])
    with package.record() as log:
        x = package.Problem(system, b).solve(package.method(method), x0=package.array(np.array([2.0])))
    assert log[0].iterations == 0
    assert x == np.array([2.0])


@pytest.mark.parametrize("method", METHODS[:4])
def test_a_bad_start_does_not_reach_the_adjoint(package, method):
    """x0 reused for the transpose system: an adjoint off by a factor of 2.6."""
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


@pytest.mark.parametrize("method", METHODS[:4])
def test_the_exact_inverse_as_preconditioner_ends_in_two_steps_both_ways(package, method):
    """M used untransposed in the adjoint: on a nonsymmetric matrix it takes many more steps there."""
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
    """The M-norm minimised and the 2-norm reported, which then goes up and down."""
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


# Cost


@methods
def test_a_backward_pass_takes_one_adjoint_solve(package, method):
    """One adjoint solve per input that needs a gradient, instead of one for all."""
    system = usual(method)
    b, w = right_hand_side(system, 2), right_hand_side(system, 2, seed=4)
    with package.record() as log:
        package.Problem(system, b).gradients(w, package.method(method), **options(method))
    assert [(info.method, info.transposed) for info in log] == [(method, False), (method, True)]


# No silent wrong answer


@pytest.mark.parametrize("method", METHODS[:4])
def test_a_capped_forward_solve_is_reported_with_its_true_residual(package, method):
    """A capped run that returns quietly, or reports the residual of a recurrence."""
    system = usual(method)
    b = right_hand_side(system, None)
    problem = package.Problem(system, b)
    with package.record() as log, pytest.warns(package.ConvergenceWarning, match=rf"{method} on the forward system"):
        x = problem.solve(package.method(method), maxiter=2)
    true = np.linalg.norm(b - system.dense @ x) / np.linalg.norm(b)
    assert log[0].status == "iteration limit"
    assert log[0].iterations == 2
    assert_close(log[0].residual, true, 1e-10, "residual")


@pytest.mark.parametrize("method", METHODS[:4])
def test_a_failed_adjoint_is_reported_as_the_adjoint(package, method):
    """Checking the forward solve alone; here the start is exact, so that only the adjoint misses its target."""
    system = usual(method)
    b, w = right_hand_side(system, None), right_hand_side(system, None, seed=4)
    x0 = package.array(truth.solution(system, b))
    with pytest.warns(package.ConvergenceWarning, match=r"on the adjoint system \(A\^T\): iteration limit"):
        package.Problem(system, b).gradients(w, package.method(method), x0=x0, maxiter=2)


@pytest.mark.parametrize("method", METHODS[:4])
def test_the_warning_turned_into_an_error_stops_the_backward_pass(package, method):
    """An exception swallowed on the way out of autograd."""
    system = usual(method)
    b, w = right_hand_side(system, None), right_hand_side(system, None, seed=4)
    x0 = package.array(truth.solution(system, b))
    with warnings.catch_warnings():
        warnings.simplefilter("error", package.ConvergenceWarning)
        with pytest.raises(package.WarningAsError, match="adjoint system"):
            package.Problem(system, b).gradients(w, package.method(method), x0=x0, maxiter=2)


@pytest.mark.parametrize("method", ["linear_cg", "minres"])
def test_a_hermitian_method_on_another_matrix_says_just_that(package, method):
    """Advice to raise maxiter where no number of steps will help."""
    system = BY_NAME["convection"]
    with pytest.warns(package.ConvergenceWarning, match=rf"A is not symmetric \(Hermitian\), which {method} needs"):
        package.Problem(system, right_hand_side(system, None)).solve(package.method(method))


@methods
def test_a_non_finite_upstream_gradient_stays_in_its_column(package, method):
    """A NaN that spreads to the other columns, or becomes an error in the backward pass."""
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
    """One slow column that drags its neighbours along, or hides behind them."""
    system = BY_NAME["poisson"]
    eigenvector = np.linalg.eigh(system.dense)[1][:, 0]
    b = np.stack([eigenvector, right_hand_side(system, None), np.zeros(system.n)], axis=1)
    with package.record() as log, pytest.warns(package.ConvergenceWarning, match="column 1 of 3"):
        package.Problem(system, b).solve(package.method("linear_cg"), rtol=RTOL, maxiter=3)
    assert [column.status for column in log[0].columns] == ["converged", "iteration limit", "converged"]
    assert [column.iterations for column in log[0].columns] == [1, 3, 0]
    assert log[0].status == "iteration limit"


def test_a_breakdown_keeps_the_last_sound_iterate(package):
    """BiCGSTAB on unit vectors of a bidiagonal matrix: NaN from 0 / 0."""
    n = 8
    bidiagonal = 2 * np.eye(n) + np.diag(np.ones(n - 1), -1)
    row, col = np.nonzero(bidiagonal)
    system = type(BY_NAME["poisson"])("bidiagonal", row, col, bidiagonal[row, col], n)
    x = package.Problem(system, np.eye(n)).solve(package.method("bicgstab"), rtol=RTOL)
    assert_close(x, np.linalg.inv(bidiagonal), tolerance(system.condition, np.float64, RTOL), "inverse")


@pytest.mark.parametrize("method", METHODS[:4])
def test_a_singular_system_is_never_called_converged(package, method):
    """A least-squares or zero "solution" of a system that has none."""
    dense = np.diag([1.0, 2.0, 0.0, 3.0])
    row, col = np.arange(4), np.arange(4)
    system = type(BY_NAME["poisson"])("singular", row, col, np.diag(dense), 4, True, True)
    with package.record() as log, pytest.warns(package.ConvergenceWarning):
        x = package.Problem(system, np.ones(4)).solve(package.method(method))
    assert not log[0].converged
    assert np.all(np.isfinite(x))
    assert_close(log[0].residual, np.linalg.norm(1 - dense @ x) / 2, 1e-8, "residual")


def test_direct_reports_a_matrix_singular_to_working_precision(package):
    """Tiny pivots that pass for a solution: the residual looks small beside |A| |x| and is as large as b."""
    n = 30
    weights = np.random.default_rng(0).random(n - 1)  # so that rounding leaves a last pivot of 1e-16 rather than zero
    neumann = -np.diag(weights, 1) - np.diag(weights, -1)
    neumann -= np.diag(neumann.sum(1))
    row, col = np.nonzero(neumann)
    system = type(BY_NAME["poisson"])("neumann", row, col, neumann[row, col], n)
    with pytest.warns(package.ConvergenceWarning, match="singular"):
        package.Problem(system, np.ones(n)).solve(package.method("direct"))


@pytest.mark.parametrize("method", METHODS[:4])
def test_a_tolerance_beyond_the_precision_ends_at_the_accuracy_limit(package, method):
    """A request for 1e-12 in single precision: an endless loop, or a warning about nothing."""
    system = BY_NAME["poisson"]
    b = right_hand_side(system, None)
    with package.record() as log:
        x = package.Problem(system, b, dtype=np.float32).solve(package.method(method), rtol=1e-12)
    assert log[0].status == "accuracy limit"
    assert log[0].iterations < 250
    assert_close(x, truth.solution(system, b), tolerance(system.condition, np.float32, 0), "x")


# Solver callables


def test_an_omitted_transpose_solver_is_applied_to_the_transpose(package):
    """The forward solver reused on A: a gradient off by a third on a nonsymmetric matrix."""
    system = BY_NAME["complex general"]
    b, w = right_hand_side(system, 2), right_hand_side(system, 2, seed=4)
    solver = package.foreign(np.linalg.solve)
    for layout in package.LAYOUTS:
        grads = package.Problem(system, b, layout).gradients(w, solver)
        for got, expected in zip(grads, truth.gradients(system, b, w), strict=True):
            assert_close(got, expected, tolerance(system.condition, np.float64, 0, 2), f"gradient, {layout}")


def test_a_given_transpose_solver_receives_the_matrix_and_means_plain_transposition(package):
    """A^T for A^H, or A^T handed to a callable that transposes once more."""
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
    """b of shape (n,) passed as (n, 1) in the backward pass only."""
    system = BY_NAME["general"]
    b, w = right_hand_side(system, columns), right_hand_side(system, columns, seed=4)
    shapes = []

    def solve(dense, rhs):
        shapes.append(rhs.shape)
        return np.linalg.solve(dense, rhs)

    package.Problem(system, b).gradients(w, package.foreign(solve))
    assert shapes == [b.shape, b.shape]


def test_a_foreign_solver_that_does_not_solve_is_reported(package):
    """A loose default tolerance of somebody else's solver; verify=None says that one does not care."""
    system = BY_NAME["general"]
    b = right_hand_side(system, 2)
    loose = package.foreign(lambda dense, rhs: 0.99 * np.linalg.solve(dense, rhs))
    problem = package.Problem(system, b)
    with pytest.warns(package.ConvergenceWarning, match=r"residual above verify; .*relative residual 1.0e-02"):
        problem.solve(loose)
    problem.solve(loose, verify=0.1)
    with package.record() as log:
        problem.solve(loose, verify=None)
    assert (log[0].status, log[0].residual) == ("not verified", None)


def test_keyword_arguments_reach_both_solvers_and_x0_the_forward_alone(package):
    """An option that one of the solvers silently lacks."""
    system = BY_NAME["general"]
    b, w = right_hand_side(system, None), right_hand_side(system, None, seed=4)
    seen = []

    def solve(dense, rhs, **kwargs):
        seen.append(sorted(kwargs))
        return np.linalg.solve(dense, rhs)

    package.Problem(system, b).gradients(w, package.foreign(solve), flavour=1, x0=package.array(b))
    assert seen == [["flavour", "x0"], ["flavour"]]


def test_an_own_method_as_transpose_solver_is_applied_to_the_transpose(package):
    """direct given for the adjoint of a Krylov solve, solving with A instead."""
    system = BY_NAME["general"]
    b, w = right_hand_side(system, None), right_hand_side(system, None, seed=4)
    solver = package.foreign(np.linalg.solve)
    expected = truth.gradients(system, b, w)
    with package.record() as log:
        grads = package.Problem(system, b).gradients(w, solver, package.method("direct"))
    assert [(info.method, info.transposed) for info in log][1] == ("direct", True)
    for got, want in zip(grads, expected, strict=True):
        assert_close(got, want, tolerance(system.condition, np.float64, 0, 2), "gradient")


@methods
def test_a_method_refuses_what_it_does_not_know(package, method):
    """An option accepted and ignored."""
    system = usual(method)
    problem = package.Problem(system, right_hand_side(system, None))
    with pytest.raises(TypeError, match=rf"{method} accepts the keyword arguments .*; got tolerance"):
        problem.solve(package.method(method), tolerance=1e-3)


def test_a_method_named_by_a_string_is_refused_with_the_remedy(package):
    """'linear_cg' taken for a callable and failing far away."""
    system = BY_NAME["poisson"]
    with pytest.raises(TypeError, match=r"solve must be a callable .* got the string 'linear_cg'"):
        package.Problem(system, right_hand_side(system, None)).solve("linear_cg")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rtol": -1.0}, r"rtol must be a finite number >= 0; got -1\.0"),
        ({"atol": float("nan")}, "atol must be a finite number >= 0; got nan"),
        ({"maxiter": 1.5}, r"maxiter must be an integer >= 0; got 1\.5"),
        ({"restart": 0}, "restart must be an integer >= 1; got 0"),
    ],
)
def test_a_number_out_of_range_is_refused(package, arguments, message):
    """A negative tolerance that runs to the iteration limit."""
    system = BY_NAME["general"]
    with pytest.raises(ValueError, match=message):
        package.Problem(system, right_hand_side(system, None)).solve(package.method("gmres"), **arguments)
