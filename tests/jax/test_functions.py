"""What only JAX can do to a solve with a function: transpose it without differentiating it, map, scan, and trees."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import tsgu_jax
from tsgu_jax._program import _host

N = 6
RNG = np.random.default_rng(0)
C = 4 * np.eye(N) + 0.3 * RNG.standard_normal((N, N))
B, G = RNG.standard_normal((2, N))

general = pytest.mark.parametrize("method", [tsgu_jax.bicgstab, tsgu_jax.gmres], ids=lambda method: method.name)


def product(v):
    return jnp.asarray(C) @ v


def opaque(v):
    return _host.call("a function of the host", lambda v: C @ v, v, v, vmap_method="sequential")


def linear_map(b, *, A, method, **kwargs):
    return method(A, b, rtol=1e-12, **kwargs)


@general
def test_the_transpose_of_a_solve_with_a_function_solves_with_its_transpose(method):
    """Catches: a for A^T, where a solve is transposed that was not differentiated before."""
    solve = functools.partial(linear_map, A=product, method=method)
    (got,) = jax.linear_transpose(solve, jnp.asarray(B))(jnp.asarray(G))
    np.testing.assert_allclose(got, np.linalg.solve(C.T, G), rtol=1e-9)


@pytest.mark.parametrize("of", ["A", "M", "prepared M"])
def test_a_solve_is_not_transposed_where_its_parts_cannot_be(of):
    """Catches: a for A^T, or M for M^T, in a derivative that JAX takes by transposing alone."""
    matrix = tsgu_jax.SparseMatrix.from_coo(*np.nonzero(C), C[np.nonzero(C)], (N, N))
    solve = {
        "A": functools.partial(linear_map, A=opaque, method=tsgu_jax.gmres),
        "M": functools.partial(linear_map, A=matrix, method=tsgu_jax.gmres, M=opaque),
        "prepared M": lambda b: tsgu_jax.solve(matrix, b, tsgu_jax.gmres.prepare(matrix, M=opaque)),
    }[of]
    with pytest.raises(TypeError, match=f"{of[-1]} must have a transpose where gmres is differentiated"):
        jax.linear_transpose(solve, jnp.asarray(B))(jnp.asarray(G))


def test_forward_mode_needs_no_transpose():
    """Catches: a refusal of what could be had."""
    solve = functools.partial(linear_map, A=opaque, method=tsgu_jax.gmres)
    _, tangent = jax.jvp(solve, (jnp.asarray(B),), (jnp.asarray(G),))
    np.testing.assert_allclose(tangent, np.linalg.solve(C, G), rtol=1e-9)


@general
def test_a_bare_function_as_preconditioner_is_transposed(method):
    """Catches: M for M^T: with the inverse as M, the adjoint would take more than one step."""
    matrix = tsgu_jax.SparseMatrix.from_coo(*np.nonzero(C), C[np.nonzero(C)], (N, N))
    inverse = jnp.asarray(np.linalg.inv(C))
    with tsgu_jax.record() as log:
        got = jax.grad(lambda b: (G * method(matrix, b, M=lambda r: inverse @ r)).sum())(jnp.asarray(B))
    np.testing.assert_allclose(got, np.linalg.solve(C.T, G), rtol=1e-8)
    assert [(info.transposed, info.iterations) for info in log] == [(False, 1), (True, 1)]


def test_a_root_differentiated_implicitly_solves_with_the_transpose():
    """Catches: custom_root in reverse mode, which transposes the tangent solve that it is given."""

    def root(t):
        def equation(u):
            return product(u) + 0.1 * u**3 - t * B

        def newton(f, u):
            return lax.fori_loop(0, 8, lambda _, u: u - jnp.linalg.solve(jax.jacfwd(f)(u), f(u)), u)

        tangent = functools.partial(linear_map, method=tsgu_jax.gmres)
        return lax.custom_root(equation, jnp.zeros(N), newton, lambda A, b: tangent(b, A=A))

    def loss(t):
        return (G * root(t)).sum()

    step = 1e-5
    expected = (loss(1 + step) - loss(1 - step)) / (2 * step)
    np.testing.assert_allclose(jax.jit(jax.grad(loss))(1.0), expected, rtol=1e-8)


def test_a_parameter_of_a_function_is_mapped_and_scanned():
    """Catches: a function of which one member serves all, or which is compiled for one."""
    shifts = jnp.linspace(0.0, 2.0, 3)

    def solved(t):
        return tsgu_jax.bicgstab(lambda v: product(v) + t * v, jnp.asarray(B), rtol=1e-13)

    expected = np.stack([np.linalg.solve(C + t * np.eye(N), B) for t in np.asarray(shifts)])
    np.testing.assert_allclose(jax.vmap(solved)(shifts), expected, rtol=1e-9)
    np.testing.assert_allclose(lax.scan(lambda _, t: (None, solved(t)), None, shifts)[1], expected, rtol=1e-9)
    slopes = np.stack(
        [-np.linalg.solve(C + t * np.eye(N), x) for t, x in zip(np.asarray(shifts), expected, strict=True)]
    )
    np.testing.assert_allclose(jax.jit(jax.vmap(jax.jacfwd(solved)))(shifts), slopes, rtol=1e-8)
    np.testing.assert_allclose(jax.vmap(jax.jacrev(solved))(shifts), slopes, rtol=1e-8)


def test_a_stored_matrix_inside_a_function_is_differentiated_twice():
    """Catches: the product with a SparseMatrix, which has a derivative rule of its own, transposed without that."""
    row, col = np.nonzero(C)

    def ours(values):
        A = tsgu_jax.SparseMatrix.from_coo(row, col, values, (N, N))
        return (tsgu_jax.gmres(lambda v: A @ v, jnp.asarray(B), rtol=1e-13) ** 2).sum()

    def dense(values):
        return (jnp.linalg.solve(jnp.zeros((N, N)).at[row, col].set(values), jnp.asarray(B)) ** 2).sum()

    values, along = jnp.asarray(C[row, col]), jnp.asarray(RNG.standard_normal(row.size))
    got, expected = (jax.jvp(jax.grad(f), (values,), (along,)) for f in (ours, dense))
    np.testing.assert_allclose(got[0], expected[0], rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(got[1], expected[1], rtol=1e-7, atol=1e-11)


def test_trees_are_vectors():
    """Catches: leaves that are solved with apart, or come back in another shape; a start or M that is not taken
    apart."""
    b = {"u": jnp.asarray(B[:4].reshape(2, 2)), "p": jnp.asarray(B[4:])}

    def tree(v):
        return {"u": v[:4].reshape(2, 2), "p": v[4:]}

    def flat(t):
        return jnp.concatenate([t["u"].ravel(), t["p"]])

    def solved(scale, b):
        return tsgu_jax.gmres(
            lambda t: tree(scale * product(flat(t))), b, x0=b, M=lambda t: tree(flat(t) / 4), rtol=1e-12
        )

    x = solved(1.0, b)
    np.testing.assert_allclose(x["u"], np.linalg.solve(C, B)[:4].reshape(2, 2), rtol=1e-9)
    np.testing.assert_allclose(x["p"], np.linalg.solve(C, B)[4:], rtol=1e-9)
    slope, grad = jax.grad(lambda scale, b: (G * flat(solved(scale, b))).sum(), (0, 1))(1.0, b)
    np.testing.assert_allclose(slope, -(G * np.linalg.solve(C, B)).sum(), rtol=1e-9)
    np.testing.assert_allclose(flat(grad), np.linalg.solve(C.T, G), rtol=1e-9)


@pytest.mark.parametrize(
    ("b", "error", "message"),
    [
        ((np.ones(2), 1.0), ValueError, "B must be an array, or a pytree of arrays .*; got float"),
        ((np.ones(2), np.ones(2, np.float32)), TypeError, "B must have leaves, all of one dtype.*float32, float64"),
        ((), TypeError, "B must have leaves, all of one dtype, as a pytree; got none"),
        ((np.ones(2), np.ones(3)), ValueError, "The result of A must have the structure and the shapes of B"),
    ],
)
def test_trees_that_are_no_vectors_are_refused(b, error, message):
    """Catches: a dtype that is changed without a word."""
    with pytest.raises(error, match=message):
        tsgu_jax.gmres(lambda t: (t[0], t[0]), b)


def test_a_function_that_is_not_linear_is_nan_and_reported_inside_of_jit():
    """Catches: an error that only comes where values are known."""
    solve = jax.jit(lambda b: tsgu_jax.gmres(lambda v: product(v) + 1.0, b))
    with pytest.warns(tsgu_jax.ConvergenceWarning, match="not linear"):
        x = np.asarray(jax.block_until_ready(solve(jnp.asarray(B))))
    assert np.isnan(x).all()


def test_a_block_reaches_a_function_as_it_is():
    """Catches: groups of columns, where the function was written for all of them."""
    shapes, b = set(), jnp.ones((N, 14))

    def seen(v):
        shapes.add(v.shape)
        return product(v)

    for method in (tsgu_jax.minres, tsgu_jax.gmres):
        tsgu_jax.solve(seen if method is tsgu_jax.gmres else lambda v: (shapes.add(v.shape), 2 * v)[1], b, method)
    assert shapes == {(N, 14)}


def test_a_loop_of_solves_with_new_functions_is_compiled_once():
    """Catches: a program for every function object, or one that does not hear of new numbers."""
    from tsgu_jax._rule import _run

    sizes = []
    for factor in (2.0, 3.0, 4.0):
        diagonal = factor * jnp.arange(1.0, N + 1)
        x = tsgu_jax.linear_cg(lambda v: diagonal * v, jnp.ones(N), rtol=1e-12)  # noqa: B023
        np.testing.assert_allclose(x, 1 / np.asarray(diagonal), rtol=1e-10)
        sizes.append(_run._compiled_primal._cache_size())
    assert sizes[0] == sizes[1] == sizes[2]
    one, two = (tsgu_jax.linear_cg(lambda v: factor * v, jnp.ones(N)) for factor in (2.0, 3.0))  # noqa: B023
    np.testing.assert_allclose([one[0], two[0]], [1 / 2, 1 / 3])
