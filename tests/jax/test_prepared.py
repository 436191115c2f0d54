"""A method prepared for one matrix, used by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tsgu_jax

ROW = np.array([0, 0, 1])
COL = np.array([0, 1, 1])
DENSE = np.array([[2.0, 1.0], [0.0, 4.0]])


def matrix(values=(2.0, 1.0, 4.0)):
    return tsgu_jax.SparseMatrix.from_coo(ROW, COL, jnp.asarray(values), (2, 2))


@pytest.fixture(params=["direct", "gmres"])
def method(request):
    return getattr(tsgu_jax, request.param)


def test_it_solves_with_the_matrix_and_its_transpose(method):
    """Catches: a transpose that is that of the transpose; a batch that the callback takes for columns."""
    prepared = method.prepare(matrix())
    B = jnp.array([[4.0, 1.0, 0.0], [8.0, 0.0, 1.0]])
    np.testing.assert_allclose(prepared.solve(B), np.linalg.solve(DENSE, B), atol=1e-12)
    np.testing.assert_allclose(jax.vmap(prepared.solve)(B.T), np.linalg.solve(DENSE, B).T, atol=1e-12)
    np.testing.assert_allclose(prepared.solve_transpose(B[:, 0]), np.linalg.solve(DENSE.T, B[:, 0]), atol=1e-12)
    assert repr(prepared) == f"<{method.name} prepared for a matrix of shape (2, 2), dtype float64>"


@pytest.mark.parametrize("transform", [jax.grad, jax.jacfwd], ids=["reverse", "forward"])
@pytest.mark.parametrize("argument", ["B", "A"])
def test_a_derivative_of_it_is_refused_with_the_remedy(method, transform, argument):
    """Catches: a gradient of zero: the words of 64 bits that reach the host pass for constants."""
    b = jnp.array([4.0, 8.0])
    prepared = method.prepare(matrix())
    by_hand = {
        "B": lambda v: prepared.solve_transpose(v[:2]).sum(),
        "A": lambda v: method.prepare(matrix(v)).solve(b).sum(),
    }[argument]
    with pytest.raises(TypeError, match=r"must not be differentiated; .* Pass the prepared object as solve="):
        transform(by_hand)(jnp.array([2.0, 1.0, 4.0]))
    with pytest.raises(TypeError, match="must not be differentiated"):
        jax.jit(transform(by_hand))(jnp.array([2.0, 1.0, 4.0]))


def test_it_is_differentiated_by_the_rule_where_it_is_given_as_solve(method):
    """Catches: the refusal in the way of the gradient, of one prepared inside of what is differentiated too."""
    values, b = jnp.array([2.0, 1.0, 4.0]), jnp.array([4.0, 8.0])
    prepared = method.prepare(matrix())

    def made_before(v, b):
        return (tsgu_jax.solve(matrix(v), b, solve=prepared) ** 2).sum()

    def made_inside(v, b):
        return (tsgu_jax.solve(matrix(v), b, solve=method.prepare(matrix(v))) ** 2).sum()

    def dense(v, b):
        return (jnp.linalg.solve(jnp.zeros((2, 2)).at[ROW, COL].add(v), b) ** 2).sum()

    for loss in (made_before, made_inside):
        for transform in (lambda f: jax.grad(f, (0, 1)), jax.hessian):
            got, expected = jax.jit(transform(loss))(values, b), transform(dense)(values, b)
            jax.tree.map(lambda g, e: np.testing.assert_allclose(g, e, rtol=1e-10), got, expected)


def test_an_array_of_numpy_may_change_once_it_is_given():
    """Catches: values read when XLA gets round to it, from memory that the next step of a loop has written to by
    then."""
    n = 100_000
    i = np.arange(n)
    pattern = tsgu_jax.Pattern(i, i, (n, n))
    for _ in range(300):
        values = np.full(n, 2.0)
        A = tsgu_jax.SparseMatrix(values, pattern)
        values[:] = 3
        kept = np.asarray(A.values)
        assert kept.min() == kept.max() == 2.0
