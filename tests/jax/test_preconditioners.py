"""Preconditioners under the transformations of JAX, and what they cost to compile."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.sparse import BCOO

import tsgu_jax
from tests.jax.cases import case, waited
from tests.jax.test_cost import _compiled
from tsgu_jax import precond
from tsgu_jax.precond import _incomplete

pytest.importorskip("pyamg", reason="needs pyamg")


def grid(n=12):
    """1-D Poisson as a pattern, and its values."""
    i = np.arange(n)
    row, col = np.concatenate([i, i[1:], i[:-1]]), np.concatenate([i, i[:-1], i[1:]])
    values = jnp.concatenate([jnp.full(n, 2.5), -jnp.ones(2 * n - 2)])
    return tsgu_jax.SparseMatrix.from_coo(row, col, values, (n, n))


BUILD = {
    "jacobi": precond.jacobi,
    "block_jacobi": lambda A: precond.block_jacobi(A, 3),
    "ilu": lambda A: precond.ilu(A, drop_tol=0.1),
    "amg": lambda A: precond.amg(A, "smoothed_aggregation", max_coarse=3),
}


@pytest.mark.parametrize(("name", "method"), [("block_jacobi", "minres"), ("ilu", "bicgstab"), ("amg", "linear_cg")])
def test_another_preconditioner_of_the_same_structure_compiles_nothing(name, method):
    """Catches: arrays of a preconditioner as constants of the program, or its identity in the key of the compiled
    one."""
    A, b, solve = grid(), jnp.arange(1.0, 13.0), getattr(tsgu_jax, method)
    jitted = jax.jit(lambda b, M: solve(A, b, M=M))
    one, other = BUILD[name](A), BUILD[name](A.with_values(1.5 * A.values))
    waited(solve, A, b)
    waited(lambda: (solve(A, b, M=one), jitted(b, one), one(b)))
    before = _compiled[0]
    x, y, z = waited(lambda: (solve(A, b, M=other), jitted(b, other), other(b)))
    assert _compiled[0] == before
    np.testing.assert_allclose(x, np.linalg.solve(A.to_dense(), b), rtol=1e-6)
    np.testing.assert_allclose(y, x, rtol=1e-6)
    np.testing.assert_allclose(1.5 * z, one(b), rtol=1e-12)


def test_a_compiled_function_holds_no_array_of_a_preconditioner_it_is_given():
    """Catches: a hierarchy in the text of the program: megabytes to compile, and the old one for ever."""
    A = grid(400)
    M = precond.amg(A, max_coarse=20)
    text = jax.jit(lambda v, M: M(v)).lower(jnp.ones(400), M).as_text()
    assert len(jax.tree.leaves(M)) > 20
    assert max(map(len, text.splitlines())) < 4000
    assert "dense<" not in text or max(len(line) for line in text.splitlines() if "dense<" in line) < 500


def test_jacobi_and_blocks_are_built_from_traced_values():
    """Catches: a host copy of a tracer, a gradient that flows into M, padding or repeats of a traced BCOO counted."""
    c = case("bicgstab")
    values, b = jnp.asarray(c.values(c.parameters)), jnp.asarray(c.b)
    dense = np.asarray(c.dense(values))
    indices = jnp.stack([jnp.asarray(c.row), jnp.asarray(c.col)], 1)
    padded = jnp.concatenate([indices, indices[:4], jnp.full((2, 2), c.n)])
    data = jnp.concatenate([values.at[:4].multiply(0.25), 0.75 * values[:4], jnp.full(2, 7.0)])

    @jax.jit
    def applied(data, indices):
        A = BCOO((data, indices), shape=(c.n, c.n))
        return precond.jacobi(A)(b), precond.block_jacobi(A, 4)(b)

    diagonal, blocks = applied(data, padded)
    np.testing.assert_allclose(diagonal, b / np.diag(dense), rtol=1e-12)
    together = np.arange(c.n) // 4
    expected = np.linalg.solve(np.where(together[:, None] == together, dense, 0), b)
    np.testing.assert_allclose(blocks, expected, rtol=1e-12)

    def norm(values):
        return jnp.sum(precond.jacobi(c.matrix(values))(b) ** 2 + precond.block_jacobi(c.matrix(values), 2)(b) ** 2)

    assert not jax.grad(norm)(values).any()
    assert not jax.jit(jax.grad(norm))(values).any()


def test_ilu_of_a_traced_matrix_is_factored_when_the_program_runs(monkeypatch):
    """Catches: factors of another call, or new factors in every step; a singular member of a batch that spoils the
    rest."""
    c = case("bicgstab")
    made = []
    original = _incomplete.IncompleteFactors
    monkeypatch.setattr(_incomplete, "IncompleteFactors", lambda *args: made.append(1) or original(*args))
    values, b = jnp.asarray(c.values(c.parameters)), jnp.asarray(c.b)
    batch = jnp.stack([values, 2 * values, 0 * values])

    @jax.jit
    @jax.vmap
    def applied(values):
        M = precond.ilu(c.matrix(values), drop_tol=0, fill_factor=50)
        return M(b), M.T(jnp.stack([b, 2 * b], 1))

    x, y = waited(applied, batch)
    dense = np.asarray(c.dense(values))
    for index, scale in enumerate((1, 2)):
        np.testing.assert_allclose(x[index], np.linalg.solve(scale * dense, b), rtol=1e-11)
        np.testing.assert_allclose(y[index, :, 1], np.linalg.solve(scale * dense.T, 2 * b), rtol=1e-11)
    assert np.isnan(x[2]).all()
    assert len(made) <= 6  # a product and its transpose each

    made.clear()
    gradient = jax.jit(jax.grad(lambda v: tsgu_jax.bicgstab(c.matrix(v), b, M=precond.ilu(c.matrix(v))).sum()))
    got = waited(gradient, values)
    expected = -np.outer(np.linalg.solve(dense.T, np.ones(c.n)), np.linalg.solve(dense, b))[c.row, c.col]
    np.testing.assert_allclose(got, expected, rtol=1e-6)
    assert 1 <= len(made) <= 2


def test_factors_that_were_dropped_are_made_again(monkeypatch):
    """Catches: a preconditioner that fails, or takes the factors of another, once many have been made after it."""
    from tsgu_jax._program import _store

    monkeypatch.setattr(_store, "_LEAST", 1)
    monkeypatch.setattr(_store.store, "limit", 0)
    c = case("bicgstab")
    values, b = jnp.asarray(c.values(c.parameters)), jnp.asarray(c.b)
    made = [precond.ilu(c.matrix(s * values), drop_tol=0, fill_factor=50) for s in (1.0, 2.0, 3.0, 4.0)]
    for scale, M in zip((1, 2, 3, 4), made, strict=True):
        np.testing.assert_allclose(M(b), np.linalg.solve(scale * np.asarray(c.dense(values)), b), rtol=1e-11)
    assert len(_store.store) <= 2


def test_amg_of_a_traced_matrix_names_the_remedy_and_works_inside_grad():
    """Catches: a ConcretizationTypeError; and a refusal where the values are concrete, as in an eager gradient."""
    A, b = grid(), jnp.arange(1.0, 13.0)
    with pytest.raises(TypeError, match=r"concrete for amg.* outside of jit and pass it in"):
        jax.jit(lambda values: precond.amg(A.with_values(values))(b))(A.values)

    def loss(values):
        matrix = A.with_values(values)
        return precond.amg(matrix, max_coarse=3)(b).sum()

    assert not jax.grad(loss)(A.values).any()
    assert np.isfinite(jax.jit(lambda b: precond.amg(A, max_coarse=3)(b))(b)).all()


def test_a_batch_of_values_builds_its_own_jacobi_under_vmap():
    """Catches: a preconditioner made of the first member for all."""
    A, b = grid(), jnp.arange(1.0, 13.0)
    batch = jnp.stack([A.values, A.values + jnp.arange(A.nnz) / A.nnz])
    got = jax.vmap(lambda v: precond.jacobi(A.with_values(v))(b))(batch)
    for index in range(2):
        np.testing.assert_allclose(got[index], b / np.diag(A.with_values(batch[index]).to_dense()), rtol=1e-12)


def test_a_recipe_names_what_to_do_instead():
    """Catches: a function of precond called with a vector, and an error about its layout."""
    A, b = grid(), jnp.arange(1.0, 13.0)
    for recipe, name in ((precond.amg, "amg"), (functools.partial(precond.block_jacobi, block=2), "block_jacobi")):
        with pytest.raises(TypeError, match=rf"M must be built in JAX; got the recipe {name}.*M\.refresh\(A\)"):
            tsgu_jax.linear_cg(A, b, M=recipe)
        with pytest.raises(TypeError, match="M must be built in JAX"):
            jax.jit(lambda b, M=recipe: tsgu_jax.solve(A, b, tsgu_jax.gmres, M=M))(b)
