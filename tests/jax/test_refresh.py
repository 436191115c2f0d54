"""Refreshed preconditioners inside compiled programs: traced values, loops, batches, and what they cost."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tsgu_jax
from tests.contract.multigrid import cycle, levels_of, with_values
from tests.contract.systems import System
from tests.jax.cases import waited
from tests.jax.test_cost import _compiled
from tsgu_jax import precond

pytest.importorskip("pyamg", reason="needs pyamg")

N = 16
I = np.arange(N)  # noqa: E741 - as in mathematics
ROW, COL = np.nonzero(abs(I[:, None] - I) <= 1)
VALUES = np.array([-1.3, 2.5, -0.7])[COL - ROW + 1]
BATCH = np.stack([VALUES * np.exp(0.3 * np.random.default_rng(seed).standard_normal(VALUES.size)) for seed in (1, 2)])
B = np.arange(1.0, N + 1)


def matrix(values=VALUES):
    return tsgu_jax.SparseMatrix.from_coo(ROW, COL, jnp.asarray(values), (N, N))


def dense(values):
    A = np.zeros((N, N))
    A[ROW, COL] = values
    return A


def multigrid(values):
    levels = levels_of(System("", ROW, COL, VALUES, N), "smoothed_aggregation", 3)
    assert len(levels.levels) > 1
    return cycle(with_values(levels, dense(values), 1), 1)


def blocks(values):
    together = I[:, None] // 3 == I // 3
    return np.linalg.inv(np.where(together, dense(values), 0))


CASES = {
    "jacobi": (precond.jacobi, lambda values: np.diag(1 / values[ROW == COL])),
    "block_jacobi": (lambda A: precond.block_jacobi(A, 3), blocks),
    "ilu": (lambda A: precond.ilu(A, drop_tol=0, fill_factor=50), lambda values: np.linalg.inv(dense(values))),
    "amg": (lambda A: precond.amg(A, "smoothed_aggregation", max_coarse=3), multigrid),
}
names = pytest.mark.parametrize("name", CASES)


@names
def test_traced_values_refresh_under_jit_and_vmap_and_an_unfit_member_spoils_itself_alone(name):
    """Catches: a host copy of a tracer; values of the first member for all; an exception in the callback where one
    member is not finite; a transpose of the old values."""
    build, reference = CASES[name]
    M = build(matrix())
    A, b = matrix(), jnp.asarray(B)

    @jax.jit
    @jax.vmap
    def applied(values):
        refreshed = M.refresh(A.with_values(values))
        return refreshed(b), refreshed.T(jnp.stack([b, 2 * b], 1)), M.T.refresh(A.with_values(values).T)(b)

    x, y, z = waited(applied, jnp.asarray(np.stack([*BATCH, np.where(ROW == COL, np.nan, VALUES)])))
    for index, values in enumerate(BATCH):
        expected = reference(values)
        np.testing.assert_allclose(x[index], expected @ B, rtol=1e-11)
        np.testing.assert_allclose(y[index, :, 1], 2 * expected.T @ B, rtol=1e-11)
        np.testing.assert_allclose(z[index], expected.T @ B, rtol=1e-11)
    assert np.isnan(x[2]).all()


@names
def test_a_preconditioner_is_carried_through_scan(name):
    """Catches: a refreshed one of another structure or dtype, which a loop cannot carry."""
    build, reference = CASES[name]
    A, b = matrix(), jnp.asarray(B)

    @jax.jit
    def run(M, batch):
        def step(M, values):
            M = M.refresh(A.with_values(values))
            return M, M(b)

        return jax.lax.scan(step, M, batch)

    last, x = waited(run, build(A), jnp.asarray(BATCH))
    for got, values in zip(x, BATCH, strict=True):
        np.testing.assert_allclose(got, reference(values) @ B, rtol=1e-11)
    np.testing.assert_allclose(last.refresh(A)(b), reference(VALUES) @ B, rtol=1e-11)


@names
def test_a_refreshed_one_compiles_nothing_and_a_batch_lengthens_no_program(name):
    """Catches: a hierarchy in the text of the program; a copy of it for each member."""
    A, b, M = matrix(), jnp.asarray(B), CASES[name][0](matrix())

    def solved(values, M):
        A_new = A.with_values(values)
        return tsgu_jax.bicgstab(A_new, b, M=M.refresh(A_new))

    jitted = jax.jit(solved)
    first, second = map(jnp.asarray, BATCH)

    def eager(values):
        return tsgu_jax.bicgstab(A, b, M=M.refresh(A.with_values(values)))

    waited(lambda: (jitted(first, M), eager(second)))
    before = _compiled[0]
    x, y = waited(lambda: (jitted(second, M), eager(first)))
    assert _compiled[0] == before
    np.testing.assert_allclose(x, np.linalg.solve(dense(BATCH[1]), B), rtol=1e-6)
    np.testing.assert_allclose(y, np.linalg.solve(dense(VALUES), B), rtol=1e-6)

    def lines(size):
        batch = jnp.broadcast_to(first, (size, VALUES.size))
        text = jax.jit(jax.vmap(lambda values: M.refresh(A.with_values(values))(b))).lower(batch).as_text()
        return text.count("\n")

    assert lines(40) == lines(3)


@names
def test_no_gradient_flows_and_that_of_a_solve_is_right(name):
    """Catches: a derivative of a callback, which JAX refuses; a gradient that goes through M."""
    A, b, M = matrix(), jnp.asarray(B), CASES[name][0](matrix())
    values = jnp.asarray(BATCH[0])
    assert not jax.jit(jax.grad(lambda v: M.refresh(A.with_values(v))(b).sum()))(values).any()

    def loss(values):
        new = A.with_values(values)
        return tsgu_jax.gmres(new, b, M=M.refresh(new), rtol=1e-12).sum()

    x, adjoint = np.linalg.solve(dense(BATCH[0]), B), np.linalg.solve(dense(BATCH[0]).T, np.ones(N))
    np.testing.assert_allclose(waited(jax.jit(jax.grad(loss)), values), -(adjoint[ROW] * x[COL]), rtol=1e-8)


@names
def test_a_traced_pattern_is_compared_when_the_program_runs(name):
    """Catches: values of another pattern on this one, where neither is known before; those in another order refused,
    or taken for those in this one."""
    M = CASES[name][0](matrix())
    applied = jax.jit(lambda row, col, values: M.refresh(tsgu_jax.SparseMatrix.from_coo(row, col, values, (N, N)))(B))
    place, values = jnp.asarray(np.stack([ROW, COL])), jnp.asarray(BATCH[0])
    np.testing.assert_allclose(waited(applied, *place, values), CASES[name][1](BATCH[0]) @ B, rtol=1e-11)
    assert np.isnan(waited(applied, place[0], place[1].at[3].set(N - 1), values)).any()
    mixed = np.random.default_rng(0).permutation(ROW.size)
    np.testing.assert_allclose(
        waited(applied, *place[:, mixed], values[mixed]), CASES[name][1](BATCH[0]) @ B, rtol=1e-11
    )


def test_a_hierarchy_that_cannot_be_refreshed_is_reported_by_the_solve():
    """Catches: an old hierarchy, or one half made, that goes on in silence where the diagonal has become zero."""
    A, M = matrix(), CASES["amg"][0](matrix())

    @jax.jit
    def solved(values):
        new = A.with_values(values)
        return tsgu_jax.bicgstab(new, jnp.asarray(B), M=M.refresh(new))

    with pytest.warns(tsgu_jax.ConvergenceWarning):
        waited(solved, jnp.asarray(np.where((ROW == 4) & (COL == 4), 0, VALUES)))
