"""Triangular solves in JAX alone: traced indices, levels for accelerators, what is compiled, what is reported."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.sparse import BCOO, BCSR
from jax.test_util import check_grads

import tsgu_jax
from tests.jax.cases import waited
from tsgu_jax._methods import _levels, _substitution

N = 7


def lower(unit=False, seed=1):
    rng = np.random.default_rng(seed)
    dense = np.tril(rng.standard_normal((N, N)), -1) * (rng.random((N, N)) < 0.5)
    return dense if unit else dense + np.diag(2 + rng.random(N))


def padded(dense):
    """Unsorted, with a repeat and padding."""
    row, col = np.nonzero(dense)
    values = dense[row, col]
    order = np.random.default_rng(2).permutation(row.size)
    place = np.stack([row, col], 1)[order]
    indices = np.concatenate([place, place[:1], [[N, N]]])
    data = np.concatenate([values[order], [0.5], [7.0]])
    data[0] -= 0.5
    return BCOO((jnp.asarray(data), jnp.asarray(indices)), shape=dense.shape)


@pytest.mark.parametrize("kind", ["bcoo", "bcsr", "matrix", "unit"])
def test_traced_indices_give_the_same_results_and_gradients(kind):
    """Catches: rows out of order, padding read as an entry, a repeat on the diagonal taken once."""
    dense = lower(unit=kind == "unit")
    A = padded(dense)
    if kind == "bcsr":
        A = BCSR.fromdense(jnp.asarray(dense))
    if kind == "matrix":
        A = tsgu_jax.SparseMatrix.from_bcoo(A)
    b, w = jnp.asarray(np.random.default_rng(3).standard_normal((2, N)))
    T = dense + (np.eye(N) if kind == "unit" else 0)

    @jax.jit
    def both(A, b, w):
        x, back = jax.vjp(lambda A, b: tsgu_jax.triangular_solve(A, b, False, kind == "unit"), A, b)
        return x, back(w)

    x, (grad_a, grad_b) = both(A, b, w) if kind == "matrix" else both_by_data(A, b, w, kind == "unit")
    np.testing.assert_allclose(x, np.linalg.solve(T, b), rtol=1e-12)
    adjoint = np.linalg.solve(T.T, w)
    np.testing.assert_allclose(grad_b, adjoint, rtol=1e-12)
    expected = -np.outer(adjoint, np.linalg.solve(T, b))
    if kind == "matrix":
        np.testing.assert_allclose(grad_a.values, expected[A.pattern.row, A.pattern.col], rtol=1e-11)
    elif kind == "bcsr":
        np.testing.assert_allclose(grad_a, expected[np.nonzero(dense)], rtol=1e-11)
    else:
        row, col = np.asarray(A.indices)[:-1].T
        np.testing.assert_allclose(grad_a[:-1], expected[row, col], rtol=1e-11)
        assert grad_a[-1] == 0


def both_by_data(A, b, w, unit):
    leaves, structure = jax.tree.flatten(A)

    @jax.jit
    def run(leaves, b, w):
        def solution(data, b):
            matrix = jax.tree.unflatten(structure, [data, *leaves[1:]])
            return tsgu_jax.triangular_solve(matrix, b, False, unit)

        x, back = jax.vjp(solution, leaves[0], b)
        return x, back(w)

    return run(leaves, b, w)


def test_a_traced_batch_gives_the_same_results():
    """Catches: members that run into each other where indices are arguments."""
    dense = np.stack([lower(seed=s) for s in (1, 2, 3)])
    b = np.random.default_rng(3).standard_normal((3, N))
    for A in (BCOO.fromdense(dense), BCSR.fromdense(dense, n_batch=1)):
        got = jax.jit(lambda A, b: tsgu_jax.triangular_solve(A, b, upper=False))(A, b)
        np.testing.assert_allclose(got, np.linalg.solve(dense, b[..., None])[..., 0], rtol=1e-12)


def test_what_cannot_be_raised_under_jit_is_nan_and_reported():
    """Catches: a wrong triangle read in silence because its indices are traced; a zero pivot that gives inf without a
    word."""
    A = BCOO.fromdense(jnp.asarray(lower()))
    b = jnp.ones(N)
    wrong = jax.jit(lambda A: tsgu_jax.triangular_solve(A, b, upper=True))
    with pytest.warns(tsgu_jax.ConvergenceWarning, match="triangular on the forward system: not triangular"):
        assert np.isnan(waited(wrong, A)).all()
    zero = jax.jit(lambda d: tsgu_jax.triangular_solve(BCOO((d, A.indices), shape=A.shape), b, upper=False))
    with pytest.warns(tsgu_jax.ConvergenceWarning, match="triangular on the forward system: singular"):
        assert np.isnan(waited(zero, A.data.at[0].set(0.0))).all()


@pytest.mark.parametrize(("unit", "transpose"), [(False, True), (True, False)])
def test_levels_give_the_same_results_and_gradients(monkeypatch, unit, transpose):
    """Catches: the path of accelerators, which a test on the CPU would otherwise never take."""
    monkeypatch.setattr(jax, "default_backend", lambda: "accelerator")
    dense = lower(unit)
    A, T = BCOO.fromdense(jnp.asarray(dense)), dense + (np.eye(N) if unit else 0)
    T = T.T if transpose else T
    b, w = np.random.default_rng(3).standard_normal((2, N, 2))
    taken = []
    original = _levels.substitute
    monkeypatch.setattr(_levels, "substitute", lambda *args: taken.append(1) or original(*args))

    def solution(data, b):
        return tsgu_jax.triangular_solve(BCOO((data, A.indices), shape=A.shape), b, False, unit, transpose)

    x, back = jax.vjp(solution, A.data, b)
    grad_a, grad_b = back(w)
    assert taken
    adjoint = np.linalg.solve(T.T, w)
    np.testing.assert_allclose(x, np.linalg.solve(T, b), rtol=1e-12)
    np.testing.assert_allclose(grad_b, adjoint, rtol=1e-12)
    expected = -adjoint @ np.linalg.solve(T, b).T
    expected = expected.T if transpose else expected
    np.testing.assert_allclose(grad_a, expected[tuple(np.asarray(A.indices).T)], rtol=1e-11)


def test_derivatives_pass_check_grads_in_both_modes():
    """Catches: a tangent and an adjoint that disagree with finite differences, or with each other."""
    A, b = BCOO.fromdense(jnp.asarray(lower())), np.random.default_rng(3).standard_normal(N)

    def solution(data, b):
        return tsgu_jax.triangular_solve(BCOO((data, A.indices), shape=A.shape), b, upper=False)

    check_grads(jax.jit(solution), (A.data, b), order=1, rtol=1e-6, atol=1e-6)


def test_blocks_wider_than_a_group_and_batches_of_blocks_are_put_together_again():
    """Catches: columns in the wrong place where a block is cut into groups."""
    A, B = BCOO.fromdense(jnp.asarray(lower())), np.random.default_rng(3).standard_normal((2, N, 13))
    expected = np.linalg.solve(lower().T, B)
    solve = jax.vmap(lambda b: tsgu_jax.triangular_solve(A, b, upper=False, transpose=True))
    np.testing.assert_allclose(solve(B), expected, rtol=1e-11)


def test_the_loops_become_native_code_and_copy_no_vector():
    """Catches: turns that cost a microsecond each, or a copy of x each, where the loop grows too wide or is guarded."""
    A = tsgu_jax.SparseMatrix.from_bcoo(BCOO.fromdense(jnp.asarray(lower())))
    _, rows = _substitution.rows_of(A.pattern, False, False, 1)
    for dtype, columns in ((jnp.float64, 1), (jnp.float64, 20), (jnp.complex128, 5)):
        matrix, b = _substitution.prepared(rows, A.values.astype(dtype)), jnp.ones((N, columns), dtype)
        for transposed in (False, True):
            for function in (
                lambda m, b, t=transposed: _substitution.substitute(rows, m, b, t),
                lambda m, b, t=transposed: _substitution.product(m, b, t),
            ):
                text = jax.jit(function).lower(matrix, b).compile().as_text()
                loops = [line for line in text.splitlines() if " while(" in line]
                assert len(loops) == 2
                assert text.count('xla_cpu_small_call="true"') == len(loops)
                names = re.findall(r"body=(%[\w.]+)", text)
                bodies = [text[text.index(f"\n{name} (") :].split("\n}")[0] for name in names]
                assert len(bodies) == len(loops)
                copies = [line for body in bodies for line in body.splitlines() if " copy(" in line]
                assert not [line for line in copies if "[] copy(" not in line]


def test_the_rows_of_a_pattern_are_laid_out_once(monkeypatch):
    """Catches: checks and index arrays made anew in every step of a training loop."""
    made = []
    original = _substitution._concrete_rows
    monkeypatch.setattr(_substitution, "_concrete_rows", lambda t: made.append(1) or original(t))
    A, b = BCOO.fromdense(jnp.asarray(lower(seed=9))), jnp.ones(N)
    for factor in (1.0, 2.0):
        tsgu_jax.triangular_solve(BCOO((factor * A.data, A.indices), shape=A.shape), b, upper=False)
    assert len(made) == 1


@pytest.mark.parametrize("indices", ["traced", "concrete"])
def test_ones_that_are_stored_are_looked_at_under_jit_too(indices):
    """Catches: an entry that is not one, taken for one, or for itself, where it is traced."""
    strict = lower(unit=True)
    A = BCOO.fromdense(jnp.asarray(strict + np.eye(N)))
    b = jnp.arange(1.0, N + 1)
    off = jnp.asarray(A.indices[:, 0] != A.indices[:, 1])

    def solution(data, indices, b):
        return tsgu_jax.triangular_solve(BCOO((data, indices), shape=A.shape), b, upper=False, unitriangular=True)

    compiled = jax.jit(solution if indices == "traced" else lambda data, _, b: solution(data, A.indices, b))
    np.testing.assert_allclose(compiled(A.data, A.indices, b), np.linalg.solve(strict + np.eye(N), b), rtol=1e-12)
    gradient = jax.grad(lambda data: (compiled(data, A.indices, b) ** 2).sum())(A.data)
    dense = jax.grad(lambda T: (jnp.linalg.solve(T, b) ** 2).sum())(jnp.asarray(strict + np.eye(N)))
    np.testing.assert_allclose(gradient, jnp.where(off, dense[tuple(A.indices.T)], 0), rtol=1e-9, atol=1e-12)
    assert float(jnp.abs(dense.diagonal()).min()) > 0
    wrong = jnp.where(off, A.data, 1 + 1e-12)
    with pytest.warns(tsgu_jax.ConvergenceWarning, match="not triangular; .*holds something else"):
        assert np.isnan(waited(compiled, wrong, A.indices, b)).all()
