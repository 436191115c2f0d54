"""What a method refuses, and that it is saved by its name."""

import copy
import pickle

import pytest

from tests.contract.cases import methods, usual
from tests.contract.systems import BY_NAME, right_hand_side


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
