"""Factors of ``direct`` as a preconditioner inside compiled programs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tsgu_jax
from tests.jax.cases import case, waited
from tests.jax.test_cost import _compiled
from tsgu_jax._program import _factors, _store

C = case("gmres", 12)
OLD = np.asarray(C.values(C.parameters))
NEW = OLD * (1 + 0.01 * np.arange(OLD.size) / OLD.size)


def prepared(values=OLD):
    return tsgu_jax.direct.prepare(C.matrix(jnp.asarray(values)))


def test_they_are_an_argument_of_a_program_or_part_of_it_and_made_once(monkeypatch):
    """Catches: factors as constants of the program, so that others compile anew; new factors in every step."""
    made = []
    original = _factors.Factorisation
    monkeypatch.setattr(_factors, "Factorisation", lambda *args: made.append(1) or original(*args))
    A, b = C.matrix(jnp.asarray(NEW)), jnp.asarray(C.b)
    M, other = prepared(), prepared(1.5 * OLD)
    jitted = jax.jit(lambda values, b, M: tsgu_jax.gmres(A.with_values(values), b, M=M, rtol=1e-10))
    closed = jax.jit(lambda b: tsgu_jax.gmres(A, b, M=M.T.T, rtol=1e-10))
    expected = np.linalg.solve(C.dense(jnp.asarray(NEW)), C.b)
    np.testing.assert_allclose(waited(jitted, A.values, b, M), expected, rtol=1e-8)
    np.testing.assert_allclose(waited(closed, b), expected, rtol=1e-8)
    before = _compiled[0]
    np.testing.assert_allclose(waited(jitted, A.values, b, other), expected, rtol=1e-8)
    assert _compiled[0] == before
    assert len(made) == 2


def test_they_take_one_step_for_their_own_matrix_under_jit_and_vmap():
    """Catches: a member of a batch that is preconditioned by the factors of another; a transpose under jit."""
    A, b = C.matrix(jnp.asarray(OLD)), jnp.asarray(C.b)
    sizes = jnp.array([1.0, -2.0, 4.0])

    @jax.jit
    @jax.vmap
    def solved(size):
        own = A.with_values(size * A.values)
        M = tsgu_jax.direct.prepare(own)
        x = tsgu_jax.gmres(own, b, M=M, rtol=1e-6, maxiter=1)
        return x, tsgu_jax.gmres(own.T, b, M=M.T, rtol=1e-6, maxiter=1)

    x, y = waited(solved, sizes)
    dense = np.asarray(C.dense(jnp.asarray(OLD)))
    for index, size in enumerate(sizes):
        np.testing.assert_allclose(x[index], np.linalg.solve(size * dense, C.b), rtol=1e-9)
        np.testing.assert_allclose(y[index], np.linalg.solve(size * dense.T, C.b), rtol=1e-9)
    M = prepared()
    many = jnp.stack([b, 2 * b])
    x = waited(jax.jit(jax.vmap(lambda b: tsgu_jax.gmres(A, b, M=M, rtol=1e-6, maxiter=1))), many)
    np.testing.assert_allclose(x[1], np.linalg.solve(dense, 2 * C.b), rtol=1e-9)


def test_no_gradient_flows_through_them():
    """Catches: a derivative of a callback, which JAX refuses; one that goes by way of the factors."""
    b = jnp.asarray(C.b)

    def loss(values):
        A = C.matrix(values)
        return tsgu_jax.gmres(A, b, M=prepared_inside(A), rtol=1e-12).sum()

    def prepared_inside(A):
        return tsgu_jax.direct.prepare(A.with_values(jax.lax.stop_gradient(A.values)))

    dense = np.asarray(C.dense(jnp.asarray(NEW)))
    x, adjoint = np.linalg.solve(dense, C.b), np.linalg.solve(dense.T, np.ones(C.n))
    got = waited(jax.jit(jax.grad(loss)), jnp.asarray(NEW))
    np.testing.assert_allclose(got, -(adjoint[C.row] * x[C.col]), rtol=1e-8)


def test_factors_that_were_dropped_are_made_again(monkeypatch):
    """Catches: a preconditioner that fails, or is that of another matrix, once many were prepared after it."""
    monkeypatch.setattr(_store, "_LEAST", 1)
    monkeypatch.setattr(_store.store, "limit", 0)
    A, b = C.matrix(jnp.asarray(OLD)), jnp.asarray(C.b)
    made = [prepared(scale * OLD) for scale in (1.0, 2.0, 3.0, 4.0)]
    x = waited(lambda: tsgu_jax.gmres(A, b, M=made[0], rtol=1e-6, maxiter=1))
    np.testing.assert_allclose(x, np.linalg.solve(C.dense(A.values), C.b), rtol=1e-9)
    assert len(_store.store) <= 1


def test_a_singular_matrix_is_reported_by_the_solve():
    """Catches: NaN that come back without a word."""
    M = prepared(0 * OLD)
    with pytest.warns(tsgu_jax.ConvergenceWarning):
        waited(lambda: tsgu_jax.gmres(C.matrix(jnp.asarray(OLD)), jnp.asarray(C.b), M=M))
