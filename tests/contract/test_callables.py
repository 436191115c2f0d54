"""Solvers from outside, own methods in both roles, and their arguments."""

import copy
import dataclasses
import functools
import pickle

import numpy as np
import pytest

from tests.contract import truth
from tests.contract.cases import RTOL, methods, options, usual
from tests.contract.compare import assert_close, tolerance
from tests.contract.systems import BY_NAME, right_hand_side
from tsgu._core.methods import _registry


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


@pytest.mark.parametrize("given", ["solve", "transpose_solve", "both"])
def test_a_partial_of_a_method_is_the_method_with_these_arguments(package, given):
    """Catches: a callable from outside, prepared twice, its M not transposed and its atol stopping the adjoint, too."""
    system = BY_NAME["convection"]
    b, w = right_hand_side(system, None), 1e-6 * right_hand_side(system, None, seed=4)
    M = package.dense_matrix(np.linalg.inv(system.dense))
    one = functools.partial(package.method("gmres"), M=M, atol=1e-14, rtol=1e-3, maxiter=99)
    other = functools.partial(package.method("gmres"), M=M, maxiter=99)
    solvers = {"solve": (one, None), "transpose_solve": (None, one), "both": (one, other)}[given]
    with package.record() as log:
        grads = package.Problem(system, b).gradients(w, *solvers, rtol=1e-12)  # beside the method, which wins
    assert [(info.method, info.transposed, info.iterations) for info in log] == [
        ("gmres", False, 1),
        ("gmres", True, 1),
    ]
    tol = tolerance(system.condition, np.float64, 1e-12, order=2)
    for got, expected in zip(grads, truth.gradients(system, b, w), strict=True):
        assert_close(got, expected, tol, "gradient")


def test_partials_that_contradict_each_other_are_refused_and_foreign_ones_left_alone(package):
    """Catches: an argument of one solver that the other gets in silence."""
    system = BY_NAME["poisson"]
    b, w = right_hand_side(system, None), right_hand_side(system, None, seed=4)
    problem, cg = package.Problem(system, b), package.method("linear_cg")
    fine, coarse = functools.partial(cg, rtol=1e-10), functools.partial(cg, rtol=1e-2)
    with pytest.raises(
        TypeError, match=r"rtol must be the same in both partials.* got 1e-10 and 0\.01\. Pass it beside"
    ):
        problem.gradients(w, fine, coarse)
    with pytest.raises(TypeError, match="linear_cg accepts the keyword arguments"):
        problem.solve(functools.partial(cg, tolerance=1e-3))
    with package.record() as log:
        problem.gradients(w, fine, package.foreign(np.linalg.solve))
    assert [info.transposed for info in log][-1]
    assert all(info.converged for info in log)


@methods
def test_a_method_refuses_what_it_does_not_know(package, method):
    """Catches: an option accepted and ignored."""
    system = usual(method)
    problem = package.Problem(system, right_hand_side(system, None))
    with pytest.raises(TypeError, match=rf"{method} accepts (the|no) keyword arguments.*; got tolerance"):
        problem.solve(package.method(method), tolerance=1e-3)


def test_a_method_named_by_a_string_is_refused_with_the_remedy(package):
    """Catches: 'linear_cg' taken for a callable and failing far away."""
    system = BY_NAME["poisson"]
    with pytest.raises(TypeError, match=r"solve must be a callable .* got the string 'linear_cg'"):
        package.Problem(system, right_hand_side(system, None)).solve("linear_cg")
    with pytest.raises(TypeError, match=r"Pass the method itself, like solve=tsgu(_jax)?\.linear_cg\."):
        package.Problem(system, right_hand_side(system, None)).solve("cg")  # of which there is no method


@methods
def test_a_method_is_saved_by_its_name(package, method):
    """Catches: a module or settings that hold a method, and so cannot be saved or sent to another process."""
    kept = package.method(method)
    assert pickle.loads(pickle.dumps(kept)) is kept
    assert copy.deepcopy(kept) is kept


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
    """Catches: a negative tolerance that runs to the iteration limit."""
    system = BY_NAME["general"]
    with pytest.raises(ValueError, match=message):
        package.Problem(system, right_hand_side(system, None)).solve(package.method("gmres"), **arguments)


@methods
def test_what_is_prepared_serves_forward_and_adjoint(package, method):
    """Catches: factors that exist already and cannot be used; or used for the transpose as if they were those of it."""
    system = usual(method)
    b, w = right_hand_side(system, 2), right_hand_side(system, 2, seed=4)
    problem = package.Problem(system, b)
    prepared = package.method(method).prepare(problem.detached(), **options(method))
    for transpose in (None, prepared):
        with package.record() as log:
            grads = problem.gradients(w, prepared, transpose)
        for got, expected in zip(grads, truth.gradients(system, b, w), strict=True):
            assert_close(got, expected, tolerance(system.condition, np.float64, RTOL, 2), "gradient")
        assert [(info.method, info.transposed, info.status) for info in log] == [
            (method, False, "converged"),
            (method, True, "converged"),
        ]
        assert (log[0].iterations is not None) == _registry.method(method).iterative


@pytest.mark.parametrize("method", ["direct", "gmres"])
def test_a_solver_that_prepares_a_method_for_the_transpose_is_taken_at_its_word(package, method):
    """Catches: what it prepared for A^T transposed once more, since the package knows the object: a solve with A."""
    system = BY_NAME["general"]
    b, w = right_hand_side(system, None), right_hand_side(system, None, seed=4)

    class OfTranspose:
        def prepare(self, A):
            return package.method(method).prepare(A.T, **options(method))

    grads = package.Problem(system, b).gradients(w, package.foreign(np.linalg.solve), OfTranspose())
    for got, expected in zip(grads, truth.gradients(system, b, w), strict=True):
        assert_close(got, expected, tolerance(system.condition, np.float64, RTOL, 2), "gradient")


def test_what_is_prepared_for_another_matrix_is_found_out(package):
    """Catches: the factors of the last step of a training loop, whose gradient would be silently wrong."""
    system = BY_NAME["general"]
    b = right_hand_side(system, None)
    problem = package.Problem(system, b)
    prepared = package.method("direct").prepare(problem.detached())
    other = dataclasses.replace(system, values=1.01 * system.values)
    with pytest.warns(package.ConvergenceWarning, match=r"direct on the forward system: prepared for another"):
        package.Problem(other, b).solve(prepared)


def test_a_prepared_method_that_misses_its_target_says_so(package):
    """Catches: a residual between the target of the method and what verify lets pass."""
    system = BY_NAME["poisson"]
    problem = package.Problem(system, right_hand_side(system, None))
    prepared = package.method("linear_cg").prepare(problem.detached(), maxiter=11)
    with pytest.warns(package.ConvergenceWarning, match="linear_cg on the forward system: iteration limit"):
        problem.solve(prepared, verify=1.0)


def test_arguments_beside_a_prepared_method_are_refused(package):
    """Catches: a tolerance that comes too late and is dropped."""
    system = BY_NAME["poisson"]
    problem = package.Problem(system, right_hand_side(system, None))
    prepared = package.method("linear_cg").prepare(problem.detached())
    with pytest.raises(TypeError, match="solve must have its arguments before it is prepared; got rtol"):
        problem.solve(prepared, rtol=1e-3)


@pytest.mark.parametrize("method", ["direct", "linear_cg"])
@pytest.mark.parametrize(
    ("b", "error", "message"),
    [
        (np.ones(7), ValueError, r"B must have shape \(25,\) or \(25, k\) to match A; got \(7,\)"),
        (np.ones((1, 25)), ValueError, r"B must have shape \(25,\) or \(25, k\) to match A; got \(1, 25\)"),
        (np.ones(25, int), TypeError, r"B must have dtype float32, .*; got (torch\.)?int64"),
        (1j * np.ones(25), TypeError, r"B must fit .*float64, in which \w+ was prepared; got .* Prepare the matrix in"),
    ],
    ids=["short", "row", "integers", "complex"],
)
def test_a_right_hand_side_that_does_not_fit_what_is_prepared_is_named(package, method, b, error, message):
    """Catches: an error in the words of SuperLU, out of a callback; a single number taken for a vector."""
    problem = package.Problem(BY_NAME["poisson"], right_hand_side(BY_NAME["poisson"], None))
    prepared = package.method(method).prepare(problem.detached())
    with pytest.raises(error, match=message):
        prepared.solve(package.array(b))


@pytest.mark.parametrize("method", ["direct", "linear_cg"])
def test_what_is_prepared_is_not_given_to_a_system_of_another_size_or_dtype(package, method):
    """Catches: factors of another mesh, or real ones for a complex right-hand side, that fail in the words of
    SuperLU."""
    problem = package.Problem(BY_NAME["poisson"], right_hand_side(BY_NAME["poisson"], None))
    prepared = package.method(method).prepare(problem.detached())
    other = BY_NAME["hermitian definite"]
    with pytest.raises(ValueError, match=r"B must have shape \(25,\) or \(25, k\)"):
        package.Problem(other, right_hand_side(other, None)).solve(prepared)
    wide = dataclasses.replace(BY_NAME["poisson"], values=BY_NAME["poisson"].values + 0j)
    with pytest.raises(TypeError, match=r"B must fit .*float64, in which"):
        package.Problem(wide, right_hand_side(wide, None)).solve(prepared)


@pytest.mark.parametrize("method", ["direct", "linear_cg", "auto"])
@pytest.mark.parametrize(
    ("values", "shape", "error", "message"),
    [
        (
            np.ones((2, 3)),
            (3, 3),
            ValueError,
            "A must be one matrix, .*; got a batch, .* Prepare the members one by one",
        ),
        (np.ones(3), (3, 4), ValueError, r"A must be square, \(n, n\); got \(3, 4\)"),
        (np.ones(3, int), (3, 3), TypeError, r"A must have dtype float32, .*; got (torch\.)?int64"),
        (np.array([1.0, np.nan, 1.0]), (3, 3), ValueError, "A must be finite; got 1 non-finite of 3 entries"),
    ],
    ids=["batch", "rectangular", "integers", "not finite"],
)
def test_a_matrix_that_cannot_be_prepared_is_named(package, method, values, shape, error, message):
    """Catches: one that a solve would refuse, called singular; a batch that fails at its first right-hand side."""
    i = package.array(np.arange(3))
    with pytest.raises(error, match=message):
        package.method(method).prepare(package.SparseMatrix.from_coo(i, i, package.array(values), shape))


@pytest.mark.parametrize("method", ["direct", "auto"])
def test_a_start_for_what_does_not_start_is_refused(package, method):
    """Catches: x0 accepted, whatever its shape, and ignored."""
    system = BY_NAME["poisson"]
    problem = package.Problem(system, right_hand_side(system, None))
    prepared = package.method(method).prepare(problem.detached())
    with pytest.raises(TypeError, match=f"x0 must be None for {method}, .* got a start"):
        prepared.solve(package.array(system.dense[0]), package.array(system.dense[0]))
