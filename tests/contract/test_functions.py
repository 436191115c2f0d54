"""A given as a function: what it closes over is differentiated, and what it says of itself is not believed."""

import numpy as np
import pytest

from tests.contract import truth
from tests.contract.cases import RTOL, direction, iterative, usual
from tests.contract.compare import assert_close, tolerance
from tests.contract.systems import BY_NAME, PAIRS, right_hand_side
from tsgu._core.methods import _registry

functions = pytest.mark.parametrize(
    ("method", "system"), [(m, s) for m, s in PAIRS if m != "direct" and s.n], ids=lambda value: str(value)
)
HERMITIAN = [traits.name for traits in _registry.krylov() if traits.hermitian]


@functions
def test_what_a_function_closes_over_receives_the_gradient_of_a_stored_matrix(package, method, system):
    """Catches: a parameter inside the function that receives none, without a word."""
    b, w = right_hand_side(system, None), right_hand_side(system, None, seed=4)
    problem = package.Problem(system, b, "function")
    assert_close(
        problem.solve(package.method(method), rtol=RTOL),
        truth.solution(system, b),
        tolerance(system.condition, np.float64, RTOL),
        "x",
    )
    grads = problem.gradients(w, package.method(method), rtol=RTOL)
    for got, expected in zip(grads, truth.gradients(system, b, w), strict=True):
        assert_close(got, expected, tolerance(system.condition, np.float64, RTOL, order=2), "gradient")


@iterative
def test_second_derivatives_go_through_a_function_too(package, method):
    """Catches: a solution that is a constant in the gradient, so that the second derivative lacks half of its terms."""
    system = usual(method)
    b, w = right_hand_side(system, None), right_hand_side(system, None, seed=4)
    along = direction(system, b)
    got = package.Problem(system, b, "function").hessian_products(w, along, package.method(method), rtol=RTOL)
    for part, expected in zip(got, truth.hessian_products(system, b, w, along), strict=True):
        assert_close(part, expected, tolerance(system.condition, np.float64, RTOL, order=3), "second derivative")


def test_a_block_of_right_hand_sides_goes_through_a_function(package):
    """Catches: columns that get the gradients of each other."""
    system = BY_NAME["complex general"]
    b, w = right_hand_side(system, 3), right_hand_side(system, 3, seed=4)
    grads = package.Problem(system, b, "function").gradients(w, package.method("gmres"), rtol=RTOL)
    for got, expected in zip(grads, truth.gradients(system, b, w), strict=True):
        assert_close(got, expected, tolerance(system.condition, np.float64, RTOL, order=2), "gradient")


def test_a_solver_from_outside_takes_a_function_and_its_transpose(package):
    """Catches: a function that only the methods of the package would take; in the adjoint, the function in place of its
    transpose."""
    system = BY_NAME["complex general"]
    b, w = right_hand_side(system, None), right_hand_side(system, None, seed=4)

    def solver(A, B):
        columns = [np.asarray(A(package.array(e.astype(b.dtype)))) for e in np.eye(system.n)]
        return package.array(np.linalg.solve(np.stack(columns, 1), np.asarray(B)))

    if package.NAME == "jax":  # whose solvers are traced
        import jax

        def solver(A, B):
            return jax.scipy.sparse.linalg.gmres(A, B, tol=1e-12, restart=system.n)

    grads = package.Problem(system, b, "function").gradients(w, solver)
    for got, expected in zip(grads, truth.gradients(system, b, w), strict=True):
        assert_close(got, expected, tolerance(system.condition, np.float64, 1e-12, order=2), "gradient")


@pytest.mark.parametrize("kind", ["function", "opaque"])
def test_a_function_that_is_not_symmetric_is_noticed_in_the_adjoint(package, kind):
    """Catches: a for A^T in the adjoint: the solution is right, the gradient is not, and both converge."""
    system = BY_NAME["general"]
    b, w = right_hand_side(system, None), right_hand_side(system, None, seed=4)
    dense = 20 * np.eye(system.n) + 0.1 * system.dense
    with (
        package.record() as log,
        pytest.warns(package.ConvergenceWarning, match="not symmetric.*use bicgstab or gmres"),
    ):
        package.adjoint(package.method("linear_cg"), getattr(package, kind)(dense), b, w)
    assert [(info.transposed, info.status) for info in log][:2] == [(False, "converged"), (True, "not symmetric")]


@pytest.mark.parametrize("method", HERMITIAN)
def test_an_opaque_symmetric_function_is_its_own_transpose(package, method):
    """Catches: a transpose that cannot be derived, where none is needed."""
    system = BY_NAME["poisson"]
    b, w = right_hand_side(system, None), right_hand_side(system, None, seed=4)
    got = package.adjoint(package.method(method), package.opaque(system.dense), b, w, rtol=RTOL)
    assert_close(got, np.linalg.solve(system.dense, w), tolerance(system.condition, np.float64, RTOL), "gradient")


@pytest.mark.parametrize("method", ["bicgstab", "gmres"])
def test_a_transpose_that_cannot_be_derived_is_refused(package, method):
    """Catches: a for A^T where A^T cannot be had."""
    system = BY_NAME["general"]
    b, w = right_hand_side(system, None), right_hand_side(system, None, seed=4)
    A = package.opaque(system.dense)
    with pytest.raises(TypeError, match=f"A must have a transpose where {method} is differentiated.*cannot be derived"):
        package.adjoint(package.method(method), A, b, w)


@pytest.mark.parametrize("right", [True, False])
def test_a_transpose_that_is_given_is_judged(package, right):
    """Catches: a wrong T that is believed, or a right one that is not."""
    system = BY_NAME["general"]
    b, w = right_hand_side(system, None), right_hand_side(system, None, seed=4)
    A = package.Operator(system.dense, system.dense.T if right else system.dense)
    with package.record() as log:
        if right:
            got = package.adjoint(package.method("gmres"), A, b, w, rtol=RTOL)
            expected = np.linalg.solve(system.dense.T, w)
            assert_close(got, expected, tolerance(system.condition, np.float64, RTOL), "gradient")
        else:
            with pytest.warns(package.ConvergenceWarning, match="wrong transpose.*attribute T"):
                package.adjoint(package.method("gmres"), A, b, w)
    assert log[1].status == ("converged" if right else "wrong transpose")


@pytest.mark.parametrize(
    ("change", "columns", "error", "message"),
    [
        (lambda v: 2 * v + 1, None, ValueError, "A must be linear, column by column"),
        (lambda v: abs(v) + 2 * v, None, ValueError, "A must be linear, column by column"),
        (lambda v: v + v.sum(), 3, ValueError, "A must be linear, column by column"),
        (lambda v: v * float("nan"), None, ValueError, "A must map finite vectors to finite ones"),
        (lambda v: v[:2], None, ValueError, r"A must return what it is given, here shape \(4,\).*got shape \(2,\)"),
        (lambda v: None, None, TypeError, "A must return what it is given.*got NoneType"),
    ],
    ids=["affine", "absolute value", "mixed columns", "nan", "shape", "nothing"],
)
def test_a_function_that_is_no_matrix_is_refused(package, change, columns, error, message):
    """Catches: a nonlinear function that is solved with as if it were its own derivative."""
    b = package.array(np.ones((4,) if columns is None else (4, columns)))
    with pytest.raises(error, match=message):
        package.method("gmres")(change, b)


def test_verify_none_leaves_a_function_untried(package):
    """Catches: a user's own word that is not taken: a constant too small for the method to notice, but not for the
    trial."""
    b = package.array(np.full(4, 1.0))

    def shifted(v):
        return 2 * v + 1e-7

    assert_close(np.asarray(package.Problem.function(shifted, b, package.method("linear_cg"), verify=None, rtol=1e-3)),
                 np.full(4, 0.5), 1e-6, "x")  # fmt: skip
    with pytest.raises(ValueError, match="A must be linear"):
        package.method("linear_cg")(shifted, b, rtol=1e-3)


def test_an_object_that_has_changed_is_another_function(package):
    """Catches: an object whose inside has changed since it was last solved with, and a program that was made before."""

    class Scaled:
        factor = 2.0

        def __call__(self, v):
            return self.factor * v

    A, b = Scaled(), package.array(np.ones(3))
    for factor in (2.0, 4.0):
        A.factor = factor
        assert_close(np.asarray(package.method("linear_cg")(A, b)), np.full(3, 1 / factor), 1e-12, "x")
