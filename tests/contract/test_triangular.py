"""Triangular solves: solutions, derivatives, batches, reports and errors, in both packages."""

import re
import warnings

import numpy as np
import pytest

from tests.contract.cases import direction
from tests.contract.compare import assert_close, tolerance
from tests.contract.systems import System, right_hand_side
from tests.contract.triangles import ALL, BOTH, NOTHING, TELLING, scaled, triangle

ARGUMENTS = {"upper": False, "unitriangular": False, "transpose": False}

telling = pytest.mark.parametrize("given", TELLING, ids=repr)


def problem(package, given, b, layout="values", dtype=None):
    return package.Problem(given.system, b, layout, dtype, package.triangular(**given.arguments))


def dense_problem(package, dense, b, **arguments):
    row, col = np.nonzero(~np.isnan(dense))
    system = System("given", row, col, dense[row, col], dense.shape[0])
    return package.Problem(system, b, solve=package.triangular(**{**ARGUMENTS, **arguments}))


@pytest.mark.parametrize("given", [*ALL, *TELLING[2:]], ids=repr)
def test_solution_equals_the_dense_one(package, given):
    """Catches: the wrong triangle, a transpose or a conjugate too many, a diagonal of ones taken from storage."""
    b = right_hand_side(given.system, 2)
    tol = tolerance(given.condition, np.float64, 0)
    with package.record() as log:
        assert_close(problem(package, given, b).solve(), given.solution(b), tol, "x")
    assert [(info.method, info.transposed, info.status) for info in log] == [
        ("triangular", given.transpose, "converged")
    ]


@pytest.mark.parametrize(("given", "columns"), [(TELLING[0], None), *((given, 2) for given in TELLING)], ids=repr)
def test_gradients_equal_the_dense_ones_at_every_stored_entry(package, given, columns):
    """Catches: a gradient off the pattern or on the diagonal of ones, a missing conjugate, a repeat with half its
    gradient."""
    b, w = right_hand_side(given.system, columns), right_hand_side(given.system, columns, seed=4)
    tol = tolerance(given.condition, np.float64, 0, order=2)
    for layout in sorted(set(given.system.layouts) & set(package.LAYOUTS)):
        with package.record() as log:
            got = problem(package, given, b, layout).gradients(w)
        for actual, expected, what in zip(got, given.gradients(b, w), ("values", "b"), strict=True):
            assert_close(actual, expected, tol, f"gradient of {what}, {layout}")
        assert [info.transposed for info in log] == [given.transpose, not given.transpose]


@telling
def test_second_derivatives_equal_the_dense_ones_at_every_stored_entry(package, given):
    """Catches: the adjoint differentiated as if it were the forward solve."""
    b, w = right_hand_side(given.system, 2), right_hand_side(given.system, 2, seed=4)
    along = direction(given.system, b)
    got = problem(package, given, b).hessian_products(w, along)
    tol = tolerance(given.condition, np.float64, 0, order=4)
    for actual, expected, what in zip(got, given.hessian_products(b, w, along), ("values", "b"), strict=True):
        assert_close(actual, expected, tol, f"second derivative, {what}")


@telling
def test_forward_mode_equals_the_dense_one(package, given):
    """Catches: a tangent that forgets dA x, or transposes it."""
    b = right_hand_side(given.system, 2)
    along = direction(given.system, b)
    tol = tolerance(given.condition, np.float64, 0, order=2)
    assert_close(problem(package, given, b).tangent(along), given.tangent(b, along), tol, "tangent")


@pytest.mark.parametrize("batched", ["values", "b", "both"])
def test_vmap_equals_a_loop(package, batched):
    """Catches: members that land in the wrong place where a batch becomes columns or diagonal blocks."""
    given = TELLING[0]
    b = np.stack([right_hand_side(given.system, 2, seed) for seed in (1, 2, 3)])
    factors = (1.0, 2.0, -0.5)
    values = np.stack([given.system.values * factor for factor in factors])
    got = problem(package, given, b[0]).batched(values if batched != "b" else None, b if batched != "values" else None)
    for index, factor in enumerate(factors):
        member = scaled(given, factor if batched != "b" else 1.0)
        expected = member.solution(b[index if batched != "values" else 0])
        assert_close(got[index], expected, tolerance(given.condition, np.float64, 0), f"member {index}")


def test_a_batch_of_sparse_matrices_keeps_patterns_scales_and_reports_apart(package):
    """Catches: a pattern taken for all members, a member lost beside one that is 400 orders larger, or judged with
    it."""
    rng = np.random.default_rng(5)
    n = 6
    dense = np.tril(rng.standard_normal((3, n, n)), -1) * (rng.random((3, n, n)) < 0.5)
    dense += np.eye(n) * (2 + rng.random((3, n, 1)))
    full = np.tril(1 + rng.random((3, n, n)))  # as many entries in each member, which CSR wants
    b = rng.standard_normal((3, n, 2)) * np.array([1e-200, 1.0, 1e200])[:, None, None]
    w = rng.standard_normal((3, n, 2))
    for layout in package.BATCHES:
        given = full if layout == "csr" and package.NAME == "torch" else dense
        with package.record() as log:
            x, (grad_a, grad_b) = package.batch_gradients(given, b, w, layout, upper=False)
        tol = tolerance(max(map(np.linalg.cond, given)), np.float64, 0, order=2)
        for k in range(3):
            expected = np.linalg.solve(given[k], b[k])
            adjoint = np.linalg.solve(given[k].T, w[k])
            assert_close(x[k], expected, tol, f"x of member {k}, {layout}")
            assert_close(grad_b[k], adjoint, tol, f"gradient of b, member {k}, {layout}")
            on_pattern = np.where(given[k] != 0, -adjoint @ expected.T, 0)
            assert_close(grad_a[k], on_pattern, tol, f"gradient of A, member {k}, {layout}")
        assert [info.transposed for info in log] == [False] * 3 + [True] * 3
        assert all(len(info.columns) == 2 and info.status == "converged" for info in log)


def test_a_batch_of_values_on_one_pattern_is_solved_member_by_member(package):
    """Catches: values of the first member used for all."""
    given = TELLING[1]
    b = np.stack([right_hand_side(given.system, None, seed) for seed in (1, 2)])
    got = package.batch_of_values(given.system, np.stack([given.system.values, 2 * given.system.values]), b, given)
    for index, factor in enumerate((1.0, 2.0)):
        expected = scaled(given, factor).solution(b[index])
        assert_close(got[index], expected, tolerance(given.condition, np.float64, 0), f"member {index}")


@pytest.mark.parametrize(("dtype", "scale"), [(np.complex128, 1e-150), (np.complex128, 1e150), (np.complex64, 1e-24)])
def test_a_tiny_or_huge_right_hand_side_scales_the_solution_and_the_gradient(package, dtype, scale):
    """Catches: an absolute threshold, a norm that vanishes or overflows."""
    given = TELLING[0]
    b, w = right_hand_side(given.system, None), right_hand_side(given.system, None, seed=4)
    tol = tolerance(given.condition, dtype, 0, order=2)
    scaled_b = problem(package, given, b * scale, dtype=dtype)
    assert_close(scaled_b.solve().astype(complex) / scale, given.solution(b), tol, "x / scale")
    factor = scale if dtype == np.complex128 else 1e-6
    with package.record() as log:
        grads = problem(package, given, b, dtype=dtype).gradients(w * factor)
    assert grads[0].dtype == dtype
    for got, expected in zip(grads, given.gradients(b, w), strict=True):
        assert_close(got.astype(complex) / factor, expected, tol, "gradient / scale")
    assert [info.transposed for info in log] == [True, False]
    assert all(0 <= info.residual < 1e-5 for info in log)


def test_the_reported_residual_is_that_of_the_solution(package):
    """Catches: a residual taken of the scaled, transposed or unit triangle."""
    given = TELLING[1]
    b = right_hand_side(given.system, 3)
    b[:, 1] = 0
    with package.record() as log:
        x = problem(package, given, b, dtype=np.complex64).solve()
    left = np.linalg.norm(b - given.operator @ x, axis=0)
    size = np.linalg.norm(b, axis=0)
    assert len(log[0].columns) == 3
    assert log[0].columns[1].residual == 0
    for column in (0, 2):
        true = left[column] / size[column]
        assert 0.2 * true < log[0].columns[column].residual < 5 * true
    assert np.all(x[:, 1] == 0)


def test_a_triangle_singular_to_working_precision_is_reported(package):
    """Catches: growth of 2^n in a triangle with a tame diagonal: no digit of the residual is left, and nothing is
    said."""
    n = 90
    dense = np.eye(n) - 2.1 * np.tri(n, k=-1)
    dense[dense == 0] = np.nan
    with pytest.warns(package.ConvergenceWarning, match="triangular on the forward system: numerically singular"):
        dense_problem(package, dense, np.random.default_rng(2).standard_normal(n)).solve()


def test_a_solution_that_overflows_is_reported(package):
    """Catches: inf handed on without a word."""
    b = np.array([1.0, 1e200])
    with pytest.warns(package.ConvergenceWarning, match="triangular on the forward system: overflow"):
        dense_problem(package, np.array([[1.0, np.nan], [np.nan, 1e-200]]), b).solve()


def test_a_non_finite_upstream_gradient_stays_in_its_column(package):
    """Catches: a NaN that spreads to other columns, or becomes an error in the backward pass."""
    given = TELLING[0]
    b, w = right_hand_side(given.system, 3), right_hand_side(given.system, 3, seed=4)
    expected = given.gradients(b, w)[1]
    w[2, 1] = np.nan
    with pytest.warns(package.ConvergenceWarning, match="non-finite"):
        grad_b = problem(package, given, b).gradients(w)[1]
    assert np.all(np.isnan(grad_b[:, 1]))
    tol = tolerance(given.condition, np.float64, 0, order=2)
    assert_close(grad_b[:, [0, 2]], expected[:, [0, 2]], tol, "the other columns")


@pytest.mark.parametrize("shape", [(0,), (0, 2)])
def test_no_unknowns_give_an_empty_solution(package, shape):
    """Catches: an error from a reduction over nothing."""
    b = np.zeros(shape)
    assert problem(package, NOTHING, b).solve().shape == shape
    assert problem(package, NOTHING, b).gradients(b)[0].shape == (0,)


NAN = np.nan
LOWER = np.array([[1.0, NAN, NAN], [0.5, 2.0, NAN], [NAN, 0.5, 3.0]])


def changed(place, value):
    dense = LOWER.copy()
    dense[place] = value
    return dense


@pytest.mark.parametrize(
    ("dense", "arguments", "message"),
    [
        (LOWER, {"upper": True}, "A must be upper triangular with upper=True; got 2 of 5 entries below the diagonal, "
         "the first at (1, 0). What is stored counts, zero or not: remove it, or pass upper=False."),
        (changed((0, 2), 0.0), {}, "A must be lower triangular with upper=False; got 1 of 6 entries above the "
         "diagonal, the first at (0, 2)."),
        (changed((1, 1), NAN), {}, "A must store every entry of its diagonal; got none in 1 of 3 rows, the first row "
         "1. Store them, or pass unitriangular=True for a diagonal of ones."),
        (LOWER, {"unitriangular": True}, "A must have ones alone on its diagonal with unitriangular=True, where that "
         "is stored; got something else in 2 of 3 rows, the first row 1. Pass unitriangular=False to solve with what"),
        (changed((0, 0), NAN), {"unitriangular": True}, "A must store none of its diagonal with unitriangular=True, "
         "which stands for ones there, or all of it; got 2 of 3 entries, the first in row 1. Remove or complete them"),
    ],
)  # fmt: skip
def test_a_matrix_that_is_not_the_triangle_is_a_value_error(package, dense, arguments, message):
    """Catches: the wrong triangle read in silence."""
    with pytest.raises(ValueError, match=re.escape(message)):
        dense_problem(package, dense, np.ones(3), **arguments).solve()


def test_a_zero_on_the_diagonal_is_an_error_that_names_the_row(package):
    """Catches: a division by zero, found as a NaN far away."""
    with pytest.raises(package.SingularError, match="A must have no zero on its diagonal; got 1 in 3 rows, the first"):
        dense_problem(package, changed((2, 2), 0.0), np.ones(3)).solve()


def test_members_of_a_batch_are_named(package):
    """Catches: a row number that runs on through the batch."""
    dense = np.stack([np.tri(3), np.tri(3), np.tri(3)])
    dense[1, 0, 2] = 5.0
    with pytest.raises(ValueError, match=re.escape("the first at (0, 2) of member 1")):
        package.batch_gradients(dense, np.ones((3, 3)), np.ones((3, 3)), "coo", upper=False)


@pytest.mark.parametrize("name", ["upper", "unitriangular", "transpose"])
def test_flags_are_bools(package, name):
    """Catches: upper="lower", which is true."""
    with pytest.raises(TypeError, match=re.escape(f"{name} must be True or False; got 'lower'.")):
        dense_problem(package, LOWER, np.ones(3), **{name: "lower"}).solve()


def test_shapes_that_do_not_fit_are_value_errors(package):
    """Catches: a batch that broadcasts."""
    dense = np.stack([np.tri(3), np.tri(3)])
    with pytest.raises(ValueError, match=re.escape("B must have shape (2, 3) or (2, 3, k) to match A; got (3,).")):
        package.batch_gradients(dense, np.ones(3), np.ones(3), "coo", upper=False)
    with pytest.raises(ValueError, match=re.escape("B must have shape (3,) or (3, k) to match A; got (2,).")):
        dense_problem(package, LOWER, np.ones(2)).solve()


def test_sound_solves_are_quiet(package):
    """Catches: a warning of SciPy or PyTorch on the way."""
    given = triangle(*BOTH, True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        problem(package, given, right_hand_side(given.system, 2)).solve()
