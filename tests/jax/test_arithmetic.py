"""Arithmetic of SparseMatrix against dense arrays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.sparse import BCOO
from jax.test_util import check_grads

import tsgu_jax

eye = tsgu_jax.SparseMatrix.eye


def drawn(seed, shape, fill, complex_=False):
    rng = np.random.default_rng(seed)
    D = rng.standard_normal(shape) * (rng.random(shape) < fill)
    return D * (1 + 2j) if complex_ else D


def sparse(D):
    return tsgu_jax.SparseMatrix.from_coo(*np.nonzero(D), jnp.asarray(D[np.nonzero(D)]), D.shape)


def close(found, expected):
    np.testing.assert_allclose(found.to_dense(), expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("fill", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("complex_", [False, True])
def test_sums_products_and_diagonals_are_those_of_dense_matrices(fill, complex_):
    """Catches: Any confusion of positions, of order or of signs; empty and rectangular matrices; a real one with a
    complex."""
    D, E, F = drawn(1, (4, 5), fill, complex_), drawn(2, (4, 5), fill), drawn(3, (5, 3), fill)
    A, B, C = map(sparse, (D, E, F))
    for found, expected in (
        (A + B, D + E),
        (B - A, E - D),
        (A @ C, D @ F),
        (2 * A, 2 * D),
        (A * 1j, D * 1j),
        (A / 4, D / 4),
        (-A, -D),
        (A + A, 2 * D),
        (A.T @ B, D.T @ E),
    ):
        close(found, expected)
    np.testing.assert_array_equal(A.diagonal(), np.diagonal(D))
    np.testing.assert_array_equal(A.T.diagonal(), np.diagonal(D))


def test_a_sum_stays_on_a_pattern_that_has_all_positions():
    """Catches: a pattern, and its layout, made anew in each step."""
    A = sparse(np.array([[1.0, 2.0], [0.0, 3.0]]))
    assert (A + 2 * A).pattern is (A - A).pattern is A.pattern
    assert (A + eye(2)).pattern is (eye(2) + 0.5 * A).pattern is A.pattern
    assert (A + A.T).pattern is (A + A.T).pattern
    assert (A @ A.T).pattern is (A @ A.T).pattern
    assert eye(2).pattern is eye(2).pattern
    assert sum([A, A, A]).pattern is A.pattern


D, E = drawn(4, (4, 4), 0.6), drawn(5, (4, 4), 0.5)

FUNCTIONS = {
    "a sum": lambda A, B, s: A + s * B,
    "a difference": lambda A, B, s: A / s - B,
    "a product": lambda A, B, s: A @ B * s,
    "a square and a transpose": lambda A, B, s: A @ A + s * B.T,
}
"""Of sparse and of dense matrices."""


@pytest.mark.parametrize("name", FUNCTIONS)
def test_arithmetic_is_differentiable_to_second_order_in_both_modes(name):
    """Catches: a gradient that ends at a scalar, at one of the two matrices, or at a repeated term."""
    A, B = sparse(D), sparse(E)

    def f(v, w, s):
        C = FUNCTIONS[name](A.with_values(v), B.with_values(w), s)
        return C.to_dense(), C.diagonal()

    check_grads(jax.jit(f), (A.values, B.values, jnp.array(1.5)), order=2, modes=("fwd", "rev"))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_first_use_may_be_inside_a_program(name):
    """Catches: a tracer kept with the pair of patterns, and found by the next program, or outside of any."""
    A, B = sparse(D), sparse(E)

    def f(v, w):
        return FUNCTIONS[name](A.with_values(v), B.with_values(w), 2.0).to_dense()

    expected = FUNCTIONS[name](D, E, 2.0)
    for call in (jax.jit(f), f, jax.jit(f)):
        np.testing.assert_allclose(call(A.values, B.values), expected, rtol=1e-13, atol=1e-13)
    batch = jnp.stack([A.values, -A.values]), jnp.stack([B.values, -B.values])
    expected = np.stack([expected, FUNCTIONS[name](-D, -E, 2.0)])
    np.testing.assert_allclose(jax.vmap(f)(*batch), expected, rtol=1e-13, atol=1e-13)
    whole = FUNCTIONS[name](A.with_values(batch[0]), B.with_values(batch[1]), 2.0)
    np.testing.assert_allclose(whole.to_dense(), expected, rtol=1e-13, atol=1e-13)


def test_batches_meet_single_matrices():
    """Catches: a batch that is broadcast along its entries."""
    A, B = sparse(D), sparse(E)
    batch = A.with_values(jnp.stack([A.values, 2 * A.values, -A.values]))
    full = np.stack([D, 2 * D, -D])
    close(batch + B, full + E)
    close(B - batch, E - full)
    close(batch @ B, full @ E)
    close(B @ batch, E @ full)
    np.testing.assert_array_equal(batch.diagonal(), np.diagonal(full, axis1=1, axis2=2))


def test_with_traced_patterns_sums_and_diagonals_go_on_and_products_say_what_to_do():
    """Catches: an error from deep inside, where a matrix is an argument; a sum that is wrong where the two meet."""
    A, B = sparse(D), sparse(E)

    @jax.jit
    def total(A, B, x):
        C = A + 2 * B
        return C, C.diagonal(), C @ x, C.T @ x, (A - A).values, (C - B).to_dense()

    x = jnp.arange(4.0)
    C, diagonal, product, transposed, nothing, less = total(A, B, x)
    full = D + 2 * E
    for found, expected in (
        (C.to_dense(), full),
        (diagonal, np.diagonal(full)),
        (product, full @ x),
        (transposed, full.T @ x),
        (nothing, np.zeros(A.nnz)),
        (less, D + E),
        (C.to_scipy().toarray(), full),
        ((C @ B).to_dense(), full @ E),  # what comes out is known again
        ((C + B).to_dense(), full + E),
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-13, atol=1e-13)
    solved = jax.jit(lambda A, x: tsgu_jax.solve(20 * eye(4) + A, x, tsgu_jax.gmres))
    np.testing.assert_allclose(solved(A, x), np.linalg.solve(20 * np.eye(4) + D, x), rtol=1e-6)
    with pytest.raises(TypeError, match=r"A @ X of two sparse matrices must have patterns that are known; got traced"):
        jax.jit(lambda A, B: A @ B)(A, B)


def test_an_implicit_step_needs_no_other_library():
    """Catches: I + dt K that has to be assembled with SciPy, where the gradient of dt is lost."""
    K = np.array([[2.0, -1.0, 0.0], [-1.0, 2.0, -1.0], [0.0, -1.0, 2.0]])
    A, u = sparse(K), jnp.array([1.0, 2.0, 3.0])

    def step(dt):
        return tsgu_jax.solve(eye(3) + dt * A, u, solve=tsgu_jax.linear_cg, rtol=1e-13).sum()

    def dense(dt):
        return jnp.linalg.solve(jnp.eye(3) + dt * K, u).sum()

    for derivative in (jax.grad, jax.jacfwd, jax.hessian):
        np.testing.assert_allclose(jax.jit(derivative(step))(0.1), derivative(dense)(0.1), rtol=1e-10)


def test_dtypes_are_promoted_as_those_of_jax():
    """Catches: a complex part dropped, or float32 made of a float64."""
    A = sparse(np.eye(2, dtype=np.float32))
    B = sparse(np.eye(2)[::-1] + np.eye(2))
    assert (A + B).dtype == (B - A).dtype == (A @ B).dtype == jnp.float64
    assert (A * 2.0).dtype == (2 * A).dtype == jnp.float32
    assert (A * 1j).dtype == (A * jnp.complex64(1j)).dtype == jnp.complex64
    assert eye(2).dtype == jnp.float64
    assert eye(2, dtype=jnp.complex64).dtype == jnp.complex64


def test_operands_that_do_not_fit_are_refused_in_three_parts():
    """Catches: a broadcast, a matrix of objects, or AttributeError: 'int' object has no attribute 'pattern'."""
    A = eye(2)
    batch = A.with_values(jnp.ones((3, 2)))
    summand = r"must have a SparseMatrix as X; got"
    cases = [
        (TypeError, rf"A \+ X {summand} the number 1\. .*shift the diagonal by", lambda: A + 1),
        (TypeError, rf"A - X {summand} ArrayImpl of shape \(2, 2\)\..*add a dense one", lambda: jnp.eye(2) - A),
        (TypeError, rf"A - X {summand} BCOO of shape .*from_bcoo or from_scipy",
         lambda: A - BCOO.fromdense(jnp.eye(2))),
        (ValueError, r"A \+ X must have two matrices of one shape, .*; got \(2, 2\) and \(3, 3\)", lambda: A + eye(3)),
        (ValueError, r"A - X must have .* of one size; got \(3, 2, 2\) and \(2, 2, 2\)",
         lambda: batch - batch.with_values(jnp.ones((2, 2)))),
        (ValueError, r"A @ X must have as many rows of X as columns of A, .*; got \(2, 2\) and \(3, 3\)",
         lambda: A @ eye(3)),
        (TypeError, r"A \* s must have a number as s, .*; got ArrayImpl of shape \(2,\)\.", lambda: A * jnp.ones(2)),
        (TypeError, r"A \* s must have a number as s, .*; got SparseMatrix of shape \(2, 2\)\.", lambda: A * A),
        (TypeError, r"unsupported operand type\(s\) for \+", lambda: A + "A"),
        (TypeError, r"n must be a whole number, not negative; got 2\.0", lambda: eye(2.0)),
    ]  # fmt: skip
    for error, message, call in cases:
        with pytest.raises(error, match=message):
            call()
