"""What a method has prepared for one matrix: given as a solver, or in the wrong place."""

import dataclasses

import numpy as np
import pytest

from tests.contract import truth
from tests.contract.cases import RTOL, methods, options, usual
from tests.contract.compare import assert_close, tolerance
from tests.contract.systems import BY_NAME, right_hand_side
from tsgu._core.methods import _registry


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
