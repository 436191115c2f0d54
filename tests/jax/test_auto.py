"""auto in JAX: chosen by the pattern where values are traced, and by what is seen when the program runs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp

import tsgu_jax
from tests.contract.systems import BY_NAME
from tests.contract.test_auto import indefinite
from tests.core.test_choice import laplacian
from tsgu._core.methods import _choice
from tsgu_jax._program import _factors


@pytest.fixture
def no_shortcut(monkeypatch):
    monkeypatch.setattr(_choice, "_cost_of_direct", lambda traits, library: 1e6)


def assembled(system):
    """Values to matrix, with the indices known."""
    return lambda values: tsgu_jax.SparseMatrix.from_coo(system.row, system.col, values, system.shape)


@pytest.mark.parametrize(
    ("system", "expected"),
    [(BY_NAME["poisson"], "linear_cg + jacobi"), (BY_NAME["convection"], "bicgstab + jacobi"), (indefinite(), None)],
    ids=["definite", "not symmetric", "indefinite"],
)
def test_a_traced_matrix_is_judged_when_the_program_runs(no_shortcut, system, expected):
    """Catches: conjugate gradients compiled for a matrix that is not symmetric; a fallback that is never reached."""
    matrix, b = assembled(system), jnp.ones(system.n)

    @jax.jit
    def both(values):
        x, back = jax.vjp(lambda v: tsgu_jax.auto(matrix(v), b, rtol=1e-10), values)
        return x, back(jnp.cos(jnp.arange(system.n)))[0]

    with tsgu_jax.record() as log:
        x, gradient = jax.block_until_ready(both(jnp.asarray(system.values)))
    truth = np.linalg.solve(system.dense, np.ones(system.n))
    adjoint = np.linalg.solve(system.dense.T, np.cos(np.arange(system.n)))
    np.testing.assert_allclose(x, truth, rtol=0, atol=1e-7 * np.abs(truth).max())
    expected_gradient = -adjoint[system.row] * truth[system.col]
    np.testing.assert_allclose(gradient, expected_gradient, rtol=0, atol=1e-7 * np.abs(expected_gradient).max())
    assert {info.transposed for info in log} == {False, True}
    assert all(info.converged and "traced" in info.note for info in log)
    assert expected is None or {info.method for info in log} == {expected}
    unsuited = "linear_cg + jacobi was for another matrix, or missed the target"
    assert all((unsuited in info.note) == (info.method != "linear_cg + jacobi") for info in log)


def test_traced_indices_are_taken_too():
    """Catches: a pattern that is asked for its width when there is none."""
    system = BY_NAME["general"]

    @jax.jit
    def solve(row, col, values):
        return tsgu_jax.auto(tsgu_jax.SparseMatrix.from_coo(row, col, values, system.shape), jnp.ones(system.n))

    x = solve(jnp.asarray(system.row), jnp.asarray(system.col), jnp.asarray(system.values))
    np.testing.assert_allclose(system.dense @ np.asarray(x), np.ones(system.n), rtol=1e-8)


@pytest.mark.parametrize(("sides", "expected"), [((80, 80), "direct"), ((14, 14, 14), "linear_cg + jacobi")], ids=str)
@pytest.mark.parametrize("known", [True, False], ids=["pattern known", "pattern an argument"])
def test_a_plane_is_factored_and_a_cube_is_not(sides, expected, known):
    """Catches: every pattern that is an argument taken for a plane: the factors of a cube take a hundred times the
    steps."""
    A = laplacian(*sides)
    matrix, b = tsgu_jax.SparseMatrix.from_scipy(A), jnp.ones(A.shape[0])
    pattern = matrix.pattern

    def solve(values, pattern):
        return tsgu_jax.auto(tsgu_jax.SparseMatrix(values, pattern), b)

    with tsgu_jax.record() as log:
        if known:
            x = jax.block_until_ready(jax.jit(lambda values: solve(values, pattern))(matrix.values))
        else:
            x = jax.block_until_ready(jax.jit(solve)(matrix.values, pattern))
    assert log[0].method == expected
    np.testing.assert_allclose(A @ np.asarray(x), b, rtol=0, atol=1e-8 * np.linalg.norm(b))


def test_a_matrix_of_traced_indices_is_first_taken_for_a_cube():
    """Catches: a plane that is never factored, or a cube that is, because nothing is known of either."""
    for sides, expected in (((14, 14, 14), "linear_cg + jacobi"), ((4000,), "direct")):
        A = sp.coo_array(laplacian(*sides))
        row, col = (jnp.asarray(index) for index in A.coords)

        @jax.jit
        def solve(row, col, values, shape=A.shape):
            return tsgu_jax.auto(tsgu_jax.SparseMatrix.from_coo(row, col, values, shape), jnp.ones(shape[0]))

        with tsgu_jax.record() as log:
            x = jax.block_until_ready(solve(row, col, jnp.asarray(A.data)))
        assert log[0].method == expected
        np.testing.assert_allclose(A @ np.asarray(x), np.ones(A.shape[0]), rtol=0, atol=1e-8 * A.shape[0] ** 0.5)


def test_a_matrix_that_is_exactly_singular_gives_nan(no_shortcut):
    """Catches: the last iterate of a method that broke down, and its advice to use direct."""
    matrix = assembled(BY_NAME["poisson"])

    def heard(x):
        jax.effects_barrier()
        return x

    values = jnp.zeros(BY_NAME["poisson"].values.size)
    for solve in (tsgu_jax.auto, jax.jit(tsgu_jax.auto)):
        with pytest.warns(tsgu_jax.ConvergenceWarning, match="direct on the forward system: singular"):
            x = heard(jax.block_until_ready(solve(matrix(values), jnp.ones(25))))
        assert np.isnan(x).all()


def test_vmap_over_values_judges_each_member(no_shortcut):
    """Catches: one member's method for all: a symmetric and a nonsymmetric matrix side by side."""
    system = BY_NAME["poisson"]
    skew = np.where(system.row > system.col, 1.3, 1.0) * system.values
    values = jnp.stack([jnp.asarray(system.values), jnp.asarray(skew)])
    matrix, b = assembled(system), jnp.ones(system.n)
    x = jax.vmap(lambda v: tsgu_jax.auto(matrix(v), b, rtol=1e-10))(values)
    for member, v in zip(np.asarray(x), np.asarray(values), strict=True):
        dense = np.zeros(system.shape)
        dense[system.row, system.col] = v
        np.testing.assert_allclose(dense @ member, np.ones(system.n), rtol=1e-8)


def test_what_is_solved_is_not_solved_again_under_vmap(no_shortcut, monkeypatch):
    """Catches: factors for every batch, since a condition becomes a choice between two results."""
    factored = []
    factor = _factors._factored
    monkeypatch.setattr(_factors, "_factored", lambda *args: factored.append(None) or factor(*args))
    definite, mixed = BY_NAME["poisson"], indefinite()
    for system, needed in ((definite, False), (mixed, True)):
        matrix, factored[:] = assembled(system), []
        solve = jax.jit(jax.vmap(lambda v, b: tsgu_jax.auto(matrix(v), b, rtol=1e-10), in_axes=(None, 0)))  # noqa: B023
        b = jnp.stack([jnp.ones(system.n), jnp.cos(jnp.arange(system.n))])
        x = jax.block_until_ready(solve(jnp.asarray(system.values), b))
        assert bool(factored) == needed
        np.testing.assert_allclose(x @ system.dense.T, b, rtol=0, atol=1e-7)


def test_levels_that_cannot_be_built_are_passed_over_with_a_word(no_shortcut, monkeypatch):
    """Catches: a ValueError about levels that nobody hears of."""
    pytest.importorskip("pyamg", reason="needs pyamg")

    def refuse(A, **options):
        raise ValueError("no levels")

    monkeypatch.setattr(_choice, "_iterative", lambda *args: [_choice.Candidate("linear_cg", "amg", 1.0, 25)])
    monkeypatch.setattr(tsgu_jax.precond, "amg", refuse)
    system = BY_NAME["poisson"]
    with tsgu_jax.record() as log:
        x = tsgu_jax.auto(assembled(system)(jnp.asarray(system.values)), jnp.ones(system.n))
    np.testing.assert_allclose(system.dense @ np.asarray(x), np.ones(system.n), rtol=1e-8)
    assert log[0].method == "direct"
    assert log[0].note.endswith("; linear_cg + amg cannot be built: no levels")
