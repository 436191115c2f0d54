"""Under the settings of JAX that refuse mixed dtypes and ranks, which are for the user's own code."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tsgu_jax
from tests.jax.cases import often
from tsgu_jax import precond

N = 12
LINE = np.diag(np.full(N, 2.5)) - np.diag(np.ones(N - 1), 1) - np.diag(np.ones(N - 1), -1)
ARROW = LINE.copy()
ARROW[0] = 0.5
ARROW[0, 0] = 9.0
TALL = np.vstack([ARROW, np.eye(N)])


def made(method, make):
    return lambda A, b: tsgu_jax.solve(A, b, method, M=make(A), rtol=1e-11)


CASES = {
    "linear_cg": (LINE, lambda A, b: tsgu_jax.linear_cg(A, b, rtol=1e-11)),
    "minres": (LINE, lambda A, b: tsgu_jax.minres(A, b, rtol=1e-11, M=jnp.eye(N, dtype=A.dtype))),
    "bicgstab": (ARROW, lambda A, b: tsgu_jax.bicgstab(A, b, rtol=1e-11)),
    "gmres": (ARROW, lambda A, b: tsgu_jax.gmres(A, b, rtol=1e-11, atol=1e-12, x0=jnp.ones_like(b))),
    "direct": (ARROW, lambda A, b: tsgu_jax.direct(A, b)),
    "auto": (ARROW, lambda A, b: tsgu_jax.auto(A, b)),
    "jacobi": (LINE, made(tsgu_jax.linear_cg, precond.jacobi)),
    "block_jacobi": (ARROW, made(tsgu_jax.bicgstab, lambda A: precond.block_jacobi(A, 5))),
    "ilu": (ARROW, made(tsgu_jax.gmres, precond.ilu)),
    "callable": (LINE, lambda A, b: tsgu_jax.solve(A, b, tsgu_jax.linear_cg, rtol=1e-11, M=lambda r: r / 2.5)),
    "foreign": (ARROW, lambda A, b: tsgu_jax.solve(A, b, lambda A, b: jnp.linalg.solve(A.to_dense(), b))),
    "bcoo": (ARROW, lambda A, b: tsgu_jax.solve(A.to_bcoo(), b, tsgu_jax.direct)),
    "bcsr": (ARROW, lambda A, b: tsgu_jax.solve(A.to_bcsr(), b, tsgu_jax.direct)),
    "triangular": (np.tril(ARROW), lambda A, b: tsgu_jax.triangular_solve(A, b, upper=False)),
    "lstsq": (TALL, lambda A, b: tsgu_jax.lstsq(A, b, atol=1e-14, btol=1e-14)),
    "damped": (TALL, lambda A, b: tsgu_jax.lstsq(A, b, damp=0.5, atol=1e-14, btol=1e-14)),
    "product": (ARROW, lambda A, x: A @ x + A.T @ x - A.mH.T @ x),
}


def truth(name, full, b):
    if name == "product":
        return full.T @ b
    if name == "damped":
        return jnp.linalg.solve(full.T @ full + 0.25 * jnp.eye(N), full.T @ b)
    return jnp.linalg.solve(full.T @ full, full.T @ b) if name == "lstsq" else jnp.linalg.solve(full, b)


def sparse(full):
    row, col = np.nonzero(full)
    return tsgu_jax.SparseMatrix.from_coo(row, col, jnp.asarray(full[row, col]), full.shape)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("columns", often([None, 3], 3))
def test_a_solve_and_its_derivatives_run_under_strict_promotion(name, columns):
    """Catches: int32 counters beside int64 ones, a scalar for each column beside a block: an error in the package's own
    work."""
    full, solve = CASES[name]
    A = sparse(full)
    rows = full.shape[1] if name == "product" else full.shape[0]
    b = jnp.asarray(np.random.default_rng(0).standard_normal((rows,) if columns is None else (rows, columns)))

    def dense(v):
        return jnp.zeros(full.shape).at[A.pattern.row, A.pattern.col].set(v)

    expected = jax.value_and_grad(lambda v, b: jnp.sum(truth(name, dense(v), b) ** 2), (0, 1))(A.values, b)
    mapped = jax.vmap(lambda b: truth(name, dense(A.values), b))(jnp.stack([b, -b]))
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"), tsgu_jax.record():
        loss = jax.value_and_grad(lambda v, b: jnp.sum(solve(A.with_values(v), b) ** 2), (0, 1))
        got = jax.jit(loss)(A.values, b)
        got_mapped = jax.jit(jax.vmap(lambda b: solve(A, b)))(jnp.stack([b, -b]))
    for one, other in zip(jax.tree.leaves((got, got_mapped)), jax.tree.leaves((expected, mapped)), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-8 * float(jnp.abs(other).max()))


def test_what_is_prepared_runs_under_strict_promotion():
    """Catches: prepared solvers and preconditioners, which are called by hand."""
    A, b = sparse(LINE), jnp.ones((N, 3))
    expected = np.linalg.solve(LINE, b)
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        for method in (tsgu_jax.direct, tsgu_jax.linear_cg):
            prepared = method.prepare(A)
            np.testing.assert_allclose(prepared.solve(b), expected, rtol=1e-6)
            np.testing.assert_allclose(prepared.solve_transpose(b), expected, rtol=1e-6)
        np.testing.assert_allclose(precond.jacobi(A)(b), np.asarray(b) / 2.5, rtol=1e-12)
        np.testing.assert_allclose(precond.block_jacobi(A, N)(b), expected, rtol=1e-10)
        np.testing.assert_allclose(A.to_dense(), LINE, rtol=0, atol=0)
        np.testing.assert_allclose(A.to_bcoo().todense(), LINE, rtol=0, atol=0)


def test_the_settings_of_the_user_are_as_before_afterwards():
    """Catches: a setting that a solve leaves behind, also where it ends in an error."""
    A = sparse(LINE)
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        tsgu_jax.direct(A, jnp.ones(N))
        with pytest.raises(ValueError, match="B must"):
            tsgu_jax.direct(A, jnp.ones(N + 1))
        with pytest.raises(jax.dtypes.TypePromotionError, match="promotion"):
            jnp.ones(3, jnp.float32) + jnp.ones(3, jnp.float64)
        with pytest.raises(ValueError, match="rank_promotion"):
            jnp.ones((3, 3)) + jnp.ones(3)
