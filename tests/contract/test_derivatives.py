"""Solutions and derivatives, for every method and every system of the catalogue that suits it."""

import numpy as np
import pytest

from tests.contract import truth
from tests.contract.cases import RTOL, direction, methods, options, pairs, usual
from tests.contract.compare import assert_close, tolerance
from tests.contract.systems import PAIRS, right_hand_side
from tsgu._core.methods import _registry

SINGLE = {np.dtype(np.float64): np.float32, np.dtype(np.complex128): np.complex64}


@pairs
@pytest.mark.parametrize("columns", [None, 3])
def test_solution_equals_the_dense_one(package, method, system, columns):
    """Catches: a wrong conversion, a duplicate counted once, a transposed product."""
    b = right_hand_side(system, columns)
    x = package.Problem(system, b).solve(package.method(method), **options(method))
    assert_close(x, truth.solution(system, b), tolerance(system.condition, np.float64, RTOL), "x")


@pairs
@pytest.mark.parametrize("columns", [None, 3])
def test_gradients_equal_the_dense_ones_at_every_stored_entry(package, method, system, columns):
    """Catches: a missing transpose or conjugate, a gradient zero or absent at an explicit zero, a duplicate with half
    of it."""
    b, w = right_hand_side(system, columns), right_hand_side(system, columns, seed=4)
    expected = truth.gradients(system, b, w)
    tol = tolerance(system.condition, np.float64, RTOL, order=2)
    for layout in sorted(set(system.layouts) & set(package.LAYOUTS)):
        got = package.Problem(system, b, layout).gradients(w, package.method(method), **options(method))
        assert_close(got[0], expected[0], tol, f"gradient of the values, {layout}")
        assert_close(got[1], expected[1], tol, f"gradient of b, {layout}")


@pairs
def test_single_precision_is_solved_to_single_precision(package, method, system):
    """Catches: a tolerance beyond the precision that ends in failure or an endless loop, a silent promotion to
    double."""
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
    """Catches: the adjoint solve differentiated with the solvers swapped instead of with A^H: a transposed second
    derivative."""
    b, w = right_hand_side(system, 2), right_hand_side(system, 2, seed=4)
    along = direction(system, b)
    got = package.Problem(system, b).hessian_products(w, along, package.method(method), **options(method))
    expected = truth.hessian_products(system, b, w, along)
    tol = tolerance(system.condition, np.float64, RTOL, order=4)
    assert_close(got[0], expected[0], tol, "second derivative, values")
    assert_close(got[1], expected[1], tol, "second derivative, b")


@pairs
def test_second_derivatives_in_b_equal_the_dense_ones(package, method, system):
    """Catches: the same along directions in b alone, which every method can follow."""
    b, w = right_hand_side(system, None), right_hand_side(system, None, seed=4)
    along = np.zeros_like(system.values), direction(system, b)[1]
    got = package.Problem(system, b).hessian_products(w, along, package.method(method), **options(method))
    expected = truth.hessian_products(system, b, w, along)
    tol = tolerance(system.condition, np.float64, RTOL, order=4)
    assert_close(got[0], expected[0], tol, "second derivative, values")
    assert_close(got[1], expected[1], tol, "second derivative, b")


@pairs
def test_forward_mode_equals_the_dense_one(package, method, system):
    """Catches: a tangent solve that starts from x0, or forgets dA x."""
    b = right_hand_side(system, 2)
    along = direction(system, b)
    got = package.Problem(system, b).tangent(along, package.method(method), **options(method))
    tol = tolerance(system.condition, np.float64, RTOL, order=2)
    assert_close(got, truth.tangent(system, b, along), tol, "tangent")


@methods
@pytest.mark.parametrize("batched", ["values", "b", "both"])
def test_vmap_equals_a_loop(package, method, batched):
    """Catches: members of a batch that share a preparation meant for one, or come back in the wrong order."""
    system = usual(method)
    b = np.stack([right_hand_side(system, 2, seed) for seed in (1, 2, 3)])
    values = np.stack(
        [system.values * scale for scale in (1.0, 2.0, 0.5 if _registry.method(method).definite else -0.5)]
    )
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
