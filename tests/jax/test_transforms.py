"""Derivatives and transformations of JAX against those of a dense solve."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

import tsgu_jax
from tests.jax.cases import METHODS, case, often, options

CLOSE = {"rtol": 1e-9, "atol": 1e-10}


@pytest.mark.parametrize("name", often(METHODS, "bicgstab", "direct"))
def test_derivatives_agree_with_differences_to_second_order_in_both_modes(name):
    """Catches: a tangent with the wrong sign, an adjoint differentiated with the solvers swapped."""
    c, method = case(name), getattr(tsgu_jax, name)

    @jax.jit
    def solution(parameters, b):
        return tsgu_jax.solve(c.matrix(c.values(parameters)), b, method, **options(name))

    check_grads(solution, (jnp.asarray(c.parameters), jnp.asarray(c.b)), 2, ("fwd", "rev"), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", often(["gmres", "direct"], "direct"))
def test_jacobians_and_hessian_equal_the_dense_ones(name):
    """Catches: a second derivative with respect to A that is transposed; a forward mode that differs from the
    reverse."""
    c, method = case(name), getattr(tsgu_jax, name)
    args = jnp.asarray(c.values(c.parameters)), jnp.asarray(c.b)

    def ours(values, b):
        return tsgu_jax.solve(c.matrix(values), b, method, **options(name))

    for transform in (jax.jacfwd, jax.jacrev):
        for got, expected in zip(transform(ours, (0, 1))(*args), transform(c.truth, (0, 1))(*args), strict=True):
            np.testing.assert_allclose(got, expected, **CLOSE)
    got = jax.hessian(lambda v, b: (ours(v, b) ** 3).sum(), (0, 1))(*args)
    expected = jax.hessian(lambda v, b: (c.truth(v, b) ** 3).sum(), (0, 1))(*args)
    for g, e in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(g, e, **CLOSE)


@pytest.mark.parametrize("columns", [None, 3])
def test_a_complex_gradient_follows_the_convention_of_jax(columns):
    """Catches: a conjugate too many or too few: off by 1.4."""
    c = case("bicgstab", columns=columns)
    rng = np.random.default_rng(5)
    values = c.values(c.parameters) + 1j * rng.standard_normal(c.row.size)
    b = c.b + 1j * rng.standard_normal(c.b.shape)

    def loss(solve):
        return lambda v, b: (
            (jnp.abs(solve(v, b)) ** 2 * jnp.arange(1, c.n + 1)).sum()
            if columns is None
            else (jnp.abs(solve(v, b)) ** 2).sum()
        )

    ours = loss(lambda v, b: tsgu_jax.solve(c.matrix(v), b, tsgu_jax.bicgstab, rtol=1e-13))
    got = jax.grad(ours, (0, 1))(values, b)
    for g, e in zip(got, jax.grad(loss(c.truth), (0, 1))(values, b), strict=True):
        np.testing.assert_allclose(g, e, **CLOSE)


@pytest.mark.parametrize("kind", ["bcoo", "bcsr", "matrix"])
@pytest.mark.parametrize("columns", [None, 2])
def test_a_matrix_as_argument_of_a_compiled_function_gives_the_same_as_one_closed_over(kind, columns):
    """Catches: traced indices that are read as concrete, or taken in another order than the values."""
    c = case("bicgstab", columns=columns)
    values, b = jnp.asarray(c.values(c.parameters)), jnp.asarray(c.b)
    A = {"bcoo": c.bcoo, "bcsr": lambda v: c.matrix(v).to_bcsr(), "matrix": c.matrix}[kind](values)

    @jax.jit
    def argument(A, b):
        def loss(leaf, b):
            matrix = A.with_values(leaf) if kind == "matrix" else _with_data(A, leaf)
            return (tsgu_jax.solve(matrix, b, tsgu_jax.bicgstab, rtol=1e-13) ** 2).sum()

        return jax.value_and_grad(loss, (0, 1))(A.values if kind == "matrix" else A.data, b)

    expected = jax.value_and_grad(lambda v, b: (c.truth(v, b) ** 2).sum(), (0, 1))(values, b)
    for g, e in zip(jax.tree.leaves(argument(A, b)), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(g, e, **CLOSE)


def _with_data(A, data):
    leaves, structure = jax.tree.flatten(A)
    return jax.tree.unflatten(structure, [data, *leaves[1:]])


@pytest.mark.parametrize("name", ["linear_cg", "direct"])
def test_a_gradient_through_vmap_equals_a_loop(name):
    """Catches: a batching rule that is right for values and wrong for the adjoint."""
    c, method = case(name), getattr(tsgu_jax, name)
    scales = jnp.array([1.0, 2.0, 0.5])
    values, b = c.values(c.parameters) * scales[:, None], c.b * scales[::-1, None]

    def loss(v, b):
        return (tsgu_jax.solve(c.matrix(v), b, method, **options(name)) ** 2).sum()

    got = jax.vmap(jax.grad(loss, (0, 1)))(values, b)
    for i in range(3):
        expected = jax.grad(lambda v, b: (c.truth(v, b) ** 2).sum(), (0, 1))(values[i], b[i])
        for g, e in zip(got, expected, strict=True):
            np.testing.assert_allclose(g[i], e, **CLOSE)


def test_a_batch_of_values_in_a_matrix_is_a_batch_of_systems():
    """Catches: a batch taken for columns."""
    c = case("gmres")
    values = jnp.stack([c.values(c.parameters), 2.0 * c.values(c.parameters)])
    b = jnp.stack([c.b, c.b[::-1]])
    A = c.matrix(values)
    assert A.shape == (2, c.n, c.n)
    with tsgu_jax.record() as log:
        x = tsgu_jax.solve(A, b, tsgu_jax.gmres, rtol=1e-13)
    assert [info.status for info in log] == ["converged"] * 2
    for i in range(2):
        np.testing.assert_allclose(x[i], c.truth(values[i], b[i]), **CLOSE)
        np.testing.assert_allclose((A @ b)[i], c.dense(values[i]) @ b[i], **CLOSE)


@pytest.mark.parametrize("name", ["bicgstab", "direct"])
def test_a_gradient_through_checkpoint_and_scan_equals_the_dense_one(name):
    """Catches: implicit steps of a time integration; a callback that cannot be rematerialised."""
    c, method = case(name), getattr(tsgu_jax, name)
    values, b = jnp.asarray(c.values(c.parameters)), jnp.asarray(c.b)

    def loss(solve):
        step = jax.checkpoint(lambda v, x: solve(v, x) * 3.0)
        return lambda v, b: (jax.lax.scan(lambda x, _: (step(v, x), None), b, length=3)[0] ** 2).sum()

    ours = loss(lambda v, x: tsgu_jax.solve(c.matrix(v), x, method, **options(name)))
    got = jax.jit(jax.grad(ours, (0, 1)))(values, b)
    for g, e in zip(got, jax.grad(loss(c.truth), (0, 1))(values, b), strict=True):
        np.testing.assert_allclose(g, e, **CLOSE)


def test_a_start_reaches_neither_tangent_nor_adjoint_solves():
    """Catches: x0 reused where the right-hand side is a tangent: a derivative off by what the start is off."""
    c = case("linear_cg")
    values, b = jnp.asarray(c.values(c.parameters)), jnp.asarray(c.b)
    x0 = jnp.asarray(1e3 * np.random.default_rng(1).standard_normal(c.n))

    def ours(p, b):
        return tsgu_jax.solve(c.matrix(c.values(p)), b, tsgu_jax.linear_cg, x0=x0, maxiter=12)

    args = (jnp.asarray(c.parameters), b), (jnp.cos(jnp.arange(c.parameters.size)), jnp.ones(c.n))
    got = jax.jvp(ours, *args)[1]
    expected = jax.jvp(lambda p, b: c.truth(c.values(p), b), *args)[1]
    np.testing.assert_allclose(got, expected, rtol=1e-6)
    got = jax.jit(jax.hessian(lambda b: (ours(c.parameters, b) ** 2).sum()))(b)
    inverse = jnp.linalg.inv(c.dense(values))
    np.testing.assert_allclose(got, 2 * inverse.T @ inverse, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("transform", [jax.jacfwd, jax.jacrev])
def test_bicgstab_breaking_down_on_unit_vectors_gives_a_finite_jacobian(transform):
    """Catches: the first step of BiCGSTAB on a unit vector of a bidiagonal matrix: 0 / 0, and NaN in every
    derivative."""
    n = 6
    row, col = np.concatenate([np.arange(n), np.arange(n - 1)]), np.concatenate([np.arange(n), np.arange(1, n)])
    values = jnp.concatenate([jnp.full(n, 2.0), jnp.full(n - 1, 1.0)])
    A = tsgu_jax.SparseMatrix.from_coo(row, col, values, (n, n))
    dense = np.diag(np.full(n, 2.0)) + np.diag(np.ones(n - 1), 1)
    got = transform(lambda b: tsgu_jax.bicgstab(A, b, rtol=1e-12))(jnp.eye(n)[2])
    np.testing.assert_allclose(got, np.linalg.inv(dense), rtol=1e-9, atol=1e-10)


def test_a_callable_passes_gradients_to_what_it_closes_over():
    """Catches: a derivative that silently stops at the operator."""
    c = case("linear_cg")
    inverse_free = jnp.asarray(c.dense(c.values(c.parameters)))

    def ours(t):
        return tsgu_jax.linear_cg(lambda v: inverse_free @ v + t * v, jnp.asarray(c.b), rtol=1e-13).sum()

    def truth(t):
        return jnp.linalg.solve(inverse_free + t * jnp.eye(c.n), c.b).sum()

    np.testing.assert_allclose(ours(0.5), truth(0.5), rtol=1e-10)
    for transform in (jax.grad, lambda f: jax.jit(jax.grad(f)), lambda f: jax.grad(jax.jit(f)), jax.jacfwd):
        np.testing.assert_allclose(transform(ours)(0.5), jax.grad(truth)(0.5), rtol=1e-9)
