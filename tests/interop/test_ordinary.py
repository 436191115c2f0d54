"""Ordinary operations inside torch2jax, against torch itself: results and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch.nn.functional import softplus

import tsgu
from tsgu_jax.interop import to_jax

torch2jax = pytest.importorskip("torch2jax", reason="needs torch2jax")

CONSTANT = torch.tensor([0.5, -1.5, 2.0], dtype=torch.float64)
POSITIVE = CONSTANT.abs()
SQUARE = torch.arange(9.0, dtype=torch.float64).reshape(3, 3)
PLACE = torch.tensor([2, 0, 2, -1])
MASK = torch.tensor([True, False, True])
PATTERN = tsgu.Pattern(torch.tensor([1, 0, 1]), torch.tensor([0, 1, 0]), (2, 2))
EYE = tsgu.SparseMatrix.eye(2, dtype=torch.float64)
MATRIX = tsgu.SparseMatrix(torch.tensor([2.0, 3.0], dtype=torch.float64), PATTERN)

OPERATIONS = {
    "cat": lambda v: torch.cat([v, CONSTANT, v]),
    "cat along the last": lambda v: torch.cat([v[None], CONSTANT[None]], dim=-1),
    "stack": lambda v: torch.stack([v, CONSTANT, v], dim=1),
    "exp": lambda v: torch.exp(v) + v.exp() + torch.exp(CONSTANT),
    "log": lambda v: torch.log(v * v) + (v * v).log() + POSITIVE.log(),
    "sqrt": lambda v: torch.sqrt(v * v) + (v * v).sqrt() + POSITIVE.sqrt(),
    "abs": lambda v: torch.abs(v) + v.abs() + abs(v) + abs(CONSTANT) + CONSTANT.abs(),
    "neg": lambda v: torch.neg(v) * v.neg() + -v * CONSTANT.neg() - -CONSTANT,
    "div": lambda v: torch.div(v, 3) + v.div(CONSTANT) + v / 3 + 3 / v + v / CONSTANT + CONSTANT / v + 2 / CONSTANT,
    "add": lambda v: torch.add(v, CONSTANT, alpha=2) + v.add(1) + (v + CONSTANT) + (CONSTANT + v) + (1 + CONSTANT + 2),
    "sub": lambda v: torch.sub(v, CONSTANT, alpha=2) + v.sub(v * v) + (v - CONSTANT) + (CONSTANT - v) + (1 - CONSTANT),
    "mul": lambda v: torch.mul(v, CONSTANT) + v.mul(2) + v * CONSTANT + CONSTANT * v * v + 2 * CONSTANT,
    "pow": lambda v: torch.pow(v, 2) + v**3 + POSITIVE**v + 2**v + CONSTANT**2 + 2**CONSTANT + (v * v) ** CONSTANT,
    "matmul": lambda v: torch.matmul(SQUARE, v) + v.matmul(SQUARE) + SQUARE @ v + v @ SQUARE + SQUARE @ CONSTANT,
    "softplus": lambda v: softplus(v) + softplus(v, 3.0) + softplus(v, beta=2.0, threshold=1.0) + softplus(CONSTANT),
    "a module of softplus": lambda v: torch.nn.Softplus(beta=0.5, threshold=0.1)(1000 * v),
    "index_select": lambda v: torch.index_select(v, 0, MATRIX.pattern.row) + v.index_select(0, MATRIX.pattern.col),
    "index_select of a constant": lambda v: v * CONSTANT.index_select(0, torch.arange(3)),
    "indices": lambda v: v[PLACE] + v[[0, 1, 1, 0]] + v[None, PLACE][0] + v[1],
    "slices and a mask": lambda v: torch.cat([v[1:], v[MASK], v[..., :2], v[-1:]]),
    "integers": lambda v: v * torch.full((3,), 2) + v / PLACE[:3],
    "full": lambda v: v * torch.full((3,), 0.25, dtype=torch.float64) + torch.full(size=(3,), fill_value=1.5),
    "gather": lambda v: PATTERN.gather(v),
    "a constant matrix": lambda v: MATRIX @ v[:2],
    "a matrix of given values": lambda v: PATTERN.matrix(v).to_dense(),
    "sums of matrices": lambda v: (PATTERN.matrix(v) + MATRIX - (EYE + PATTERN.matrix(v * v)) - EYE).to_dense(),
    "scaled matrices": lambda v: (PATTERN.matrix(v) * v[0] / 3 + MATRIX * v[1] - MATRIX / v[2]).to_dense(),
    "products of matrices": lambda v: (PATTERN.matrix(v) @ MATRIX @ (EYE @ -PATTERN.matrix(v))).diagonal(),
}


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.usefixtures("x64")
def test_an_operation_has_the_result_and_the_gradient_of_torch(name):
    """Catches: an operation that is not known, or that refuses a plain tensor, or has another convention in JAX."""
    operation = OPERATIONS[name]
    v = torch.tensor([-0.7, 1.3, 0.4], dtype=torch.float64, requires_grad=True)
    expected = operation(v)
    weights = torch.cos(torch.arange(expected.numel(), dtype=torch.float64)).reshape(expected.shape)
    (expected_gradient,) = torch.autograd.grad((weights * expected).sum(), v)

    f = torch2jax.t2j(operation)
    got, back = jax.vjp(jax.jit(f), to_jax(v))
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, expected.detach(), rtol=1e-13, atol=1e-15)
    np.testing.assert_allclose(back(to_jax(weights))[0], expected_gradient, rtol=1e-13, atol=1e-15)


def test_softplus_far_out_is_a_straight_line_without_overflow():
    """Catches: a gradient of NaN from the branch that is not taken."""
    x = jnp.asarray([-2000.0, 2000.0])
    f = torch2jax.t2j(softplus)
    np.testing.assert_array_equal(f(x), [0, 2000])
    np.testing.assert_array_equal(jax.grad(lambda x: f(x).sum())(x), [0, 1])


@pytest.mark.usefixtures("x64")
def test_a_number_does_not_change_the_dtype():
    """Catches: single precision that becomes double beside a Python number."""
    single = jnp.ones(2, np.float32)
    for f in (lambda v: v / 3.0, lambda v: 3 / v, lambda v: v * 0.1 + 2, lambda v: v**0.5, lambda v: 2**v, softplus):
        assert torch2jax.t2j(f)(single).dtype == np.float32
    full = torch2jax.t2j(lambda v: v + torch.full((2,), 0.5))
    assert full(single).dtype == np.float32


def test_constants_that_jax_would_round_are_refused():
    """Catches: double precision, or a large integer, that loses digits without a word."""
    large = torch.tensor([2**40, 1])
    with jax.enable_x64(False):
        for f in (lambda v: v * CONSTANT[:2], lambda v: v * torch.full((2,), 0.5, dtype=torch.float64)):
            with pytest.raises(TypeError, match="must have a dtype that JAX keeps; got"):
                torch2jax.t2j(f)(jnp.ones(2))
        with pytest.raises(TypeError, match="integers must fit int32 with 64-bit types off; got 1 to 1099511627776"):
            torch2jax.t2j(lambda v: v * large)(jnp.ones(2))
        np.testing.assert_array_equal(torch2jax.t2j(lambda v: v * PLACE)(jnp.ones(4)), PLACE)


def test_an_index_out_of_range_gives_nan():
    """Catches: the nearest entry in its place, as JAX does by default."""
    for f in (lambda v: v[PLACE + 1], lambda v: torch.index_select(v, 0, PLACE + 1)):
        np.testing.assert_array_equal(torch2jax.t2j(f)(jnp.arange(3.0)), [np.nan, 1, np.nan, 0])


def test_options_of_full_are_not_dropped_silently():
    """Catches: requires_grad=True that means nothing in JAX."""
    with pytest.raises(TypeError, match=r"torch\.full has no counterpart of requires_grad=True"):
        torch2jax.t2j(lambda v: v + torch.full((2,), 1.0, requires_grad=True))(jnp.ones(2))
