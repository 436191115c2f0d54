"""Methods with arguments by functools.partial."""

import functools

import numpy as np
import pytest

from tests.contract import truth
from tests.contract.compare import assert_close, tolerance
from tests.contract.systems import BY_NAME, right_hand_side


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
