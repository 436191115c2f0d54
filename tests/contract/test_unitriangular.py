"""A diagonal of ones that is stored."""

import dataclasses

import numpy as np
import pytest

from tests.contract.cases import direction
from tests.contract.compare import assert_close, tolerance
from tests.contract.systems import right_hand_side
from tests.contract.test_triangular import problem
from tests.contract.triangles import triangle


def stored(given):
    """The same triangle with its ones among the entries, last."""
    system, i = given.system, np.arange(given.system.n)
    row, col = np.concatenate([system.row, i]), np.concatenate([system.col, i])
    values = np.concatenate([system.values, np.ones(system.n)])
    return dataclasses.replace(given, system=dataclasses.replace(system, row=row, col=col, values=values))


def padded(part, n):
    return np.concatenate([part, np.zeros(n)])


@pytest.mark.parametrize("given", [triangle(True, True, False), triangle(False, True, True)], ids=repr)
@pytest.mark.parametrize("layout", ["values", "coo", "csr"])
def test_ones_that_are_stored_stand_for_themselves_and_have_no_gradient(package, given, layout):
    """Catches: an error about a matrix that is what it is said to be; or a gradient for entries that cannot vary."""
    ones, n = stored(given), given.system.n
    order = np.lexsort((ones.system.col, ones.system.row)) if layout == "csr" else slice(None)
    columns = {name: getattr(ones.system, name)[order] for name in ("row", "col", "values")}
    ones = dataclasses.replace(ones, system=dataclasses.replace(ones.system, **columns))
    b, w = right_hand_side(given.system, 2), right_hand_side(given.system, 2, seed=4)
    tol = tolerance(given.condition, np.float64, 0, order=2)
    assert_close(problem(package, ones, b, layout).solve(), given.solution(b), tol, "x")
    values, grad_b = problem(package, ones, b, layout).gradients(w)
    expected = given.gradients(b, w)
    assert_close(values, padded(expected[0], n)[order], tol, "gradient of values")
    assert_close(grad_b, expected[1], tol, "gradient of b")


def test_second_derivatives_know_nothing_of_ones_that_are_stored(package):
    """Catches: the first order right, and the second with respect to entries that do not vary."""
    given = triangle(True, True, False, complex_=False)
    ones, n = stored(given), given.system.n
    b, w = right_hand_side(given.system, None), right_hand_side(given.system, None, seed=4)
    along = direction(given.system, b)
    got = problem(package, ones, b).hessian_products(w, (padded(along[0], n), along[1]))
    expected = given.hessian_products(b, w, along)
    tol = tolerance(given.condition, np.float64, 0, order=4)
    assert_close(got[0], padded(expected[0], n), tol, "second derivative in values")
    assert_close(got[1], expected[1], tol, "second derivative in b")
