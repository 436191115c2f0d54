"""Inside lineax, and what is built on it."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tsgu_jax
from tests.jax.cases import case

lineax = pytest.importorskip("lineax", reason="needs lineax")

from tsgu_jax.lineax import Solver, SparseLinearOperator  # noqa: E402

METHODS = ("linear_cg", "minres", "bicgstab", "gmres", "direct", "auto")


def operator(c, values):
    return SparseLinearOperator(c.matrix(values))


@pytest.mark.parametrize("name", METHODS)
def test_solution_and_gradients_equal_the_dense_ones(name):
    """Catches: the transpose of another operator in the adjoint; a gradient that lineax does not see."""
    c = case(name)
    values, b = jnp.asarray(c.values(c.parameters)), jnp.asarray(c.b)
    solver = Solver(getattr(tsgu_jax, name), **({"rtol": 1e-12} if name not in ("direct",) else {}))

    def solve(values, b):
        return lineax.linear_solve(operator(c, values), b, solver).value

    dense, w = np.asarray(c.dense(values)), np.cos(np.arange(c.n))
    x, adjoint = np.linalg.solve(dense, b), np.linalg.solve(dense.T, w)
    got, back = jax.vjp(solve, values, b)
    np.testing.assert_allclose(got, x, rtol=1e-8)
    grad_values, grad_b = back(jnp.asarray(w))
    np.testing.assert_allclose(grad_b, adjoint, rtol=1e-8)
    np.testing.assert_allclose(grad_values, -adjoint[c.row] * x[c.col], rtol=1e-7, atol=1e-10)
    moved = jax.jit(lambda v, b: jax.jvp(lambda v: solve(v, b), (v,), (v,))[1])(values, b)
    np.testing.assert_allclose(moved, -x, rtol=1e-8)


def test_a_batch_of_matrices_equals_a_loop():
    """Catches: a state that vmap does not map."""
    c = case("gmres")
    values, b = jnp.asarray(c.values(c.parameters)) * jnp.array([[1.0], [2.0]]), jnp.asarray(c.b)
    solver = Solver(tsgu_jax.direct)
    x = jax.vmap(lambda v: lineax.linear_solve(operator(c, v), b, solver).value)(values)
    expected = np.linalg.solve(np.asarray(c.dense(values[0])), c.b)
    np.testing.assert_allclose(x, np.stack([expected, expected / 2]), rtol=1e-10)


def test_complex_operators_are_transposed_and_conjugated():
    """Catches: a conjugate where the transpose is meant, which real numbers do not show."""
    rng = np.random.default_rng(2)
    dense = rng.standard_normal((5, 5)) + 1j * rng.standard_normal((5, 5)) + 6 * np.eye(5)
    row, col = np.nonzero(dense)
    A = SparseLinearOperator(tsgu_jax.SparseMatrix.from_coo(row, col, jnp.asarray(dense[row, col]), (5, 5)))
    b = rng.standard_normal(5) + 1j * rng.standard_normal(5)
    solver = Solver(tsgu_jax.gmres, rtol=1e-12)
    state = solver.init(A, {})
    for expected, one in (
        (dense, state),
        (dense.T, solver.transpose(state, {})[0]),
        (dense.conj(), solver.conj(state, {})[0]),
        (dense.conj().T, solver.conj(solver.transpose(state, {})[0], {})[0]),
    ):
        np.testing.assert_allclose(solver.compute(one, jnp.asarray(b), {})[0], np.linalg.solve(expected, b), rtol=1e-8)
    np.testing.assert_allclose(lineax.conj(A).as_matrix(), dense.conj())
    np.testing.assert_allclose(A.T.as_matrix(), dense.T)
    np.testing.assert_allclose(lineax.diagonal(A), np.diag(dense))


def test_what_became_of_a_solve_is_its_result():
    """Catches: a failure that lineax takes for a success."""
    c = case("linear_cg")
    A, b = operator(c, jnp.asarray(c.values(c.parameters))), jnp.asarray(c.b)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        solver = Solver(maxiter=1, on_failure="ignore")
        solution = lineax.linear_solve(A, b, solver, throw=False)
        assert solution.result == lineax.RESULTS.max_steps_reached
        assert int(solution.stats["num_steps"]) == 1
        nothing = SparseLinearOperator(tsgu_jax.SparseMatrix.from_coo([0, 1], [0, 1], jnp.array([1.0, 0.0]), (2, 2)))
        solution = lineax.linear_solve(nothing, jnp.ones(2), Solver(tsgu_jax.direct, on_failure="nan"), throw=False)
    assert solution.result == lineax.RESULTS.singular
    assert np.isnan(solution.value).all()
    with pytest.raises(Exception, match="maximum number of solver steps"):
        jax.block_until_ready(lineax.linear_solve(A, b, solver).value)
    gradient = jax.grad(lambda v: b @ lineax.linear_solve(A, v, solver, throw=False).value)
    with pytest.raises(Exception, match="maximum number of solver steps"):  # of the adjoint, whatever throw is
        jax.block_until_ready(gradient(0 * b))


def test_an_operator_of_pytrees_is_solved_as_a_function():
    """Catches: a solver for sparse operators alone, where optimistix gives it a Jacobian."""
    like = {"u": jnp.zeros(3), "v": jnp.zeros((2, 2))}
    A = lineax.FunctionLinearOperator(
        lambda x: {"u": 3 * x["u"] + x["v"].sum(), "v": 2 * x["v"] - x["u"][0]}, jax.eval_shape(lambda: like)
    )
    b = {"u": jnp.arange(3.0), "v": jnp.ones((2, 2))}
    x = lineax.linear_solve(A, b, Solver(tsgu_jax.gmres, rtol=1e-12)).value
    back = A.mv(x)
    for key in b:
        np.testing.assert_allclose(back[key], b[key], atol=1e-10)


def test_what_cannot_be_honoured_is_refused():
    """Catches: options of another solver that are dropped in silence."""
    c = case("gmres")
    A, b = operator(c, jnp.asarray(c.values(c.parameters))), jnp.asarray(c.b)
    with pytest.raises(TypeError, match=r"options must be empty.*\['y0'\]"):
        lineax.linear_solve(A, b, Solver(tsgu_jax.gmres), options={"y0": b})
    with pytest.raises(TypeError, match="method must be a method of tsgu_jax for square systems"):
        Solver(tsgu_jax.lsmr)
    with pytest.raises(TypeError, match="restrat"):
        Solver(tsgu_jax.gmres, restrat=3)
    tall = tsgu_jax.SparseMatrix.from_coo([0, 1, 2], [0, 1, 1], jnp.ones(3), (3, 2))
    with pytest.raises(ValueError, match="square"):
        lineax.linear_solve(SparseLinearOperator(tall), jnp.ones(3), Solver(tsgu_jax.gmres))


def test_newton_of_optimistix_finds_a_root_with_gradients():
    """Catches: a Jacobian that is not solved with; an implicit derivative that goes astray."""
    optimistix = pytest.importorskip("optimistix", reason="needs optimistix")
    n = 20

    def equation(u, force):  # -u'' + u^3 = force
        padded = jnp.concatenate([jnp.zeros(1), u, jnp.zeros(1)])
        return (2 * u - padded[:-2] - padded[2:]) * n + u**3 - force

    newton = optimistix.Newton(1e-11, 1e-11, linear_solver=Solver(tsgu_jax.linear_cg, rtol=1e-12))
    adjoint = optimistix.ImplicitAdjoint(linear_solver=Solver(tsgu_jax.linear_cg, rtol=1e-12))

    def root(force):
        return optimistix.root_find(equation, newton, jnp.zeros(n), force, adjoint=adjoint).value

    force = jnp.ones(n)
    u = root(force)
    np.testing.assert_allclose(equation(u, force), 0, atol=1e-9)
    jacobian = np.asarray(jax.jacobian(equation)(u, force))
    np.testing.assert_allclose(
        jax.grad(lambda f: root(f).sum())(force), np.linalg.solve(jacobian.T, np.ones(n)), rtol=1e-6
    )


def test_an_implicit_step_of_diffrax_solves_a_stiff_equation():
    """Catches: a solver that cannot be part of another's loop."""
    diffrax = pytest.importorskip("diffrax", reason="needs diffrax")
    rates = jnp.array([1.0, 1e4])
    term = diffrax.ODETerm(lambda t, y, _: -rates * y)
    root_finder = diffrax.VeryChord(rtol=1e-8, atol=1e-8, linear_solver=Solver(tsgu_jax.gmres, rtol=1e-10))
    found = diffrax.diffeqsolve(
        term, diffrax.ImplicitEuler(root_finder=root_finder), 0.0, 1.0, 0.01, jnp.ones(2), max_steps=200
    )
    np.testing.assert_allclose(found.ys[0, 0], 1.01**-100, rtol=1e-6)
    assert abs(found.ys[0, 1]) < 1e-8
