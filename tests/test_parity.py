"""The two packages against each other: same systems, same solves, same answers and derivatives.

Nothing here is compared to a dense truth; the contract suite does that for each package.
"""

from functools import cache

import numpy as np
import pytest

from tsgu._core.methods import _registry

pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("jax", reason="needs jax")

import jax

import tsgu
import tsgu_jax
from tests.contract import problems
from tests.contract.cases import RTOL, direction, options
from tests.contract.compare import tolerance
from tests.contract.systems import BY_NAME, PAIRS, right_hand_side
from tests.contract.triangles import triangle
from tests.parity import SINGLE, Solver, compare
from tsgu._matrix import _autodiff, _products
from tsgu._rule import _implicit, _system


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield
        jax.effects_barrier()


@cache
def solver(method: str, rtol: float) -> Solver:
    return Solver(
        lambda A, b: tsgu_jax.solve(A, b, getattr(tsgu_jax, method), **options(method, rtol)),
        lambda A, b: tsgu.sparse_generic_solve(A, b, getattr(tsgu, method), **options(method, rtol)),
    )


def compare_methods(method, system, dtype, rtol, second):
    b, w = (right_hand_side(system, 2, seed).astype(dtype) for seed in (3, 4))
    along = direction(system, b)
    if _registry.method(method).hermitian:  # which a matrix off the Hermitian ones is not meant for
        along = np.zeros_like(along[0]), along[1]
    tol = tolerance(system.condition, np.finfo(dtype).dtype, rtol, order=4 if second else 2)
    compare(solver(method, rtol), system, b, w, along, tol, second)


pairs = pytest.mark.parametrize(("method", "system"), [pair for pair in PAIRS if pair[1].n > 1], ids=str)


@pairs
def test_solutions_gradients_tangents_and_second_derivatives_agree(method, system):
    """Catches: a rule that one package applies in another way than the other."""
    compare_methods(method, system, system.values.dtype, RTOL, second=True)


@pairs
def test_single_precision_agrees_to_single_precision(method, system):
    """Catches: a tolerance or a scale that one package takes from double precision."""
    compare_methods(method, system, SINGLE[system.values.dtype], 1e-6, second=False)


@cache
def triangular(upper: bool, unit: bool, transpose: bool) -> Solver:
    return Solver(
        lambda A, b: tsgu_jax.triangular_solve(A, b, upper, unit, transpose),
        lambda A, b: tsgu.sparse_triangular_solve(A, b, upper, unit, transpose),
    )


@pytest.mark.parametrize("complex_", [False, True])
@pytest.mark.parametrize(("upper", "unit", "transpose"), [(True, False, True), (False, True, False)])
def test_triangular_solves_agree(upper, unit, transpose, complex_):
    """Catches: a triangle, a unit diagonal or a transpose that one package reads in another way."""
    case = triangle(upper, unit, transpose, complex_=complex_, shuffle=True)
    b, w = (right_hand_side(case.system, 2, seed) for seed in (3, 4))
    tol = tolerance(case.condition, np.float64, 0.0, order=4)
    compare(triangular(upper, unit, transpose), case.system, b, w, direction(case.system, b), tol, second=True)


@cache
def least_squares(damp: float) -> Solver:
    kwargs = {"atol": 1e-13, "btol": 1e-13, "conlim": 0.0, "damp": damp}
    return Solver(
        lambda A, b: tsgu_jax.lstsq(A, b, **kwargs),
        lambda A, b: tsgu.sparse_generic_lstsq(A, b, **kwargs),
    )


@pytest.mark.parametrize(
    ("name", "damp"), [("real", 0.5), ("explicit zeros", 0.5), ("duplicates", 0.0), ("complex", 0.0)]
)
def test_least_squares_agree(name, damp):
    """Catches: one of the two terms of the gradient, or the damping in it, in one package alone."""
    problem = problems.BY_NAME[name]
    rng = np.random.default_rng(1)
    sides = [rng.standard_normal((size, 2)).astype(problem.values.dtype) for size in (*problem.shape, problem.shape[0])]
    along = rng.standard_normal(problem.values.size).astype(problem.values.dtype), sides[2]
    tol = problems.accuracy(problem, order=4)
    compare(least_squares(damp), problem, sides[0], sides[1], along, tol, second=True)


WRONG_RULES = {
    "no transpose": "gradient of values|gradient of b",
    "no conjugate": "gradient of values",
    "swapped in second order": "second derivative",
}


@pytest.mark.parametrize("fault", WRONG_RULES)
def test_a_wrong_rule_is_noticed(monkeypatch, fault):
    """Catches: a comparison that cannot fail."""
    if fault == "no transpose":
        right = _system.LinearSystem.solve
        monkeypatch.setattr(
            _system.LinearSystem,
            "solve",
            lambda self, v, b, x0, transposed, primal: right(self, v, b, x0, False, primal),
        )
    elif fault == "no conjugate":
        right = _products.sampled_product
        monkeypatch.setattr(_products, "sampled_product", lambda pattern, u, v: right(pattern, u, v.conj()))
    else:
        monkeypatch.setattr(_implicit._Solve, "backward", staticmethod(_swapped_backward))
    system = BY_NAME["complex general"]
    with pytest.raises(AssertionError, match=f"(?s)({WRONG_RULES[fault]}).*off by.*worst entries"):
        compare_methods("direct", system, system.values.dtype, RTOL, second=True)


def _swapped_backward(ctx, g):
    """The adjoint solve differentiated as a solve with A whose solvers are swapped, not as one with A^H."""
    values, x = ctx.saved_tensors
    g = g.conj().resolve_conj()
    lam = _implicit.apply(_implicit._Solve, values, g, None, ctx.system, not ctx.transposed, False)
    lam = lam.conj().resolve_conj()
    return -_autodiff.sampled(lam, x, ctx.system.pattern), lam, None, None, None, None
