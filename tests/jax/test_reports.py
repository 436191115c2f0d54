"""Status, log and warnings in eager calls, under jit and under vmap."""

import warnings
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tsgu_jax
from tests.jax.cases import case, waited
from tsgu_jax._program import _ffi


def capped(c, maxiter=2):
    return lambda b: tsgu_jax.linear_cg(c.matrix(jnp.asarray(c.values(c.parameters))), b, maxiter=maxiter)


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_a_capped_solve_warns(wrap):
    """Catches: a compiled solve that misses its target without a word."""
    c = case("linear_cg")
    with pytest.warns(tsgu_jax.ConvergenceWarning, match="linear_cg on the forward system: iteration limit"):
        waited(wrap(capped(c)), jnp.asarray(c.b))


@pytest.mark.parametrize("mapped", [False, True])
def test_a_sound_solve_does_not_call_the_host(monkeypatch, mapped):
    """Catches: a callback at each solve, which would slow every training loop; of a batch one for each member."""
    heard, named = [], _ffi._function
    monkeypatch.setattr(_ffi, "_function", lambda text: heard.append(text) or named(text))
    c = case("linear_cg")
    for maxiter, count in ((None, 0), (2, 1)):
        solve, b = capped(c, maxiter), jnp.asarray(c.b)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", tsgu_jax.ConvergenceWarning)
            waited(jax.jit(jax.vmap(solve)), jnp.stack([b, -b, 2 * b])) if mapped else waited(jax.jit(solve), b)
        assert len(heard) == count


def test_under_vmap_only_the_members_that_fail_are_reported():
    """Catches: the host is called for all of them if for one: warnings for the sound members too."""
    c = case("linear_cg")
    b = jnp.stack([jnp.zeros(c.n), jnp.asarray(c.b)])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        jax.block_until_ready(jax.vmap(capped(c))(b))
        jax.effects_barrier()
    assert len(caught) == 1
    assert "iteration limit" in str(caught[0].message)


@pytest.mark.parametrize("method", ["linear_cg", "gmres"])
@pytest.mark.parametrize("given", ["vectors", "blocks", "starts"])
def test_a_batch_of_right_hand_sides_is_told_of_member_by_member(method, given):
    """Catches: they are columns of one solve: steps, residuals and histories that end up with another member."""
    c = case(method)
    rng = np.random.default_rng(1)
    A = c.matrix(jnp.asarray(c.values(c.parameters)))
    b = rng.standard_normal((3, c.n, 2) if given == "blocks" else (3, c.n))
    b[1] = 0
    x0 = rng.standard_normal(b.shape) if given == "starts" else None

    def solve(b, x0):
        return getattr(tsgu_jax, method)(A, b, x0=x0, rtol=1e-10)

    b, x0 = jax.tree.map(jnp.asarray, (b, x0))
    with tsgu_jax.record() as log:
        x = jax.block_until_ready(jax.vmap(solve)(b, x0))
        jax.effects_barrier()
        expected = [solve(b[i], None if x0 is None else x0[i]) for i in range(3)]
    np.testing.assert_allclose(x, jnp.stack(expected), rtol=0, atol=1e-7)
    mapped, alone = sorted(log[:3], key=_steps), sorted(log[3:], key=_steps)
    assert [_steps(info) for info in mapped] == [_steps(info) for info in alone]
    assert len(set(map(_steps, mapped))) > 1
    for one, other in zip(mapped, alone, strict=True):
        for column, twin in zip(one.columns, other.columns, strict=True):
            assert column.status == twin.status
            np.testing.assert_allclose(column.history, twin.history, rtol=1e-2, atol=1e-9)


def _steps(info):
    return tuple(column.iterations for column in info.columns)


def test_a_warning_turned_into_an_error_carries_its_text_out_of_a_compiled_function():
    """Catches: an exception lost between the callback and the caller."""
    c = case("linear_cg")
    with warnings.catch_warnings():
        warnings.simplefilter("error", tsgu_jax.ConvergenceWarning)
        with pytest.raises(tsgu_jax.ConvergenceWarning, match="iteration limit"):
            capped(c)(jnp.asarray(c.b))
        with ThreadPoolExecutor(1) as thread:  # since JAX raises it again wherever this thread waits for reports
            failed = thread.submit(jax.enable_x64(True)(waited), jax.jit(capped(c)), jnp.asarray(c.b)).exception()
    assert isinstance(failed, jax.errors.JaxRuntimeError)
    assert "linear_cg on the forward system: iteration limit" in str(failed)


def test_record_collects_forward_and_adjoint_with_counts_and_histories():
    """Catches: a log that lacks the adjoint, or that is read before the callbacks have come."""
    c = case("linear_cg")
    A, b = c.matrix(jnp.asarray(c.values(c.parameters))), jnp.asarray(c.b)
    with tsgu_jax.record() as log:
        tsgu_jax.linear_cg(A, b)
        jax.grad(lambda b: tsgu_jax.linear_cg(A, b).sum())(b)
        jax.jit(jax.grad(lambda b: tsgu_jax.linear_cg(A, b).sum()))(b)
    assert [info.transposed for info in log[:3]] == [False, False, True]
    assert sorted(info.transposed for info in log[3:]) == [False, True]  # of a linear loss: in either order
    assert log[0].seconds > 0
    assert [info.seconds for info in log[1:]] == [None] * 4
    dense = np.asarray(c.dense(c.values(c.parameters)))
    residual = np.linalg.norm(c.b - dense @ tsgu_jax.linear_cg(A, b)) / np.linalg.norm(c.b)
    for info in log:
        assert info.status == "converged"
        assert len(info.history) == info.iterations
        assert np.all(info.history[:-1] > 1e-8)
        assert info.history[-1] <= 1e-8
    assert abs(log[0].residual - residual) < 1e-12


@pytest.mark.parametrize("name", ["linear_cg", "direct"])
def test_a_column_that_is_not_finite_is_nan_alone_and_reported(name):
    """Catches: one NaN that spreads to every column of a compiled solve."""
    c = case(name, columns=3)
    c = c._replace(b=jnp.asarray(c.b))
    A = c.matrix(jnp.asarray(c.values(c.parameters)))
    with pytest.warns(tsgu_jax.ConvergenceWarning, match="non-finite") as heard:
        x = waited(jax.jit(lambda b: tsgu_jax.solve(A, b, getattr(tsgu_jax, name))), c.b.at[2, 1].set(jnp.inf))
    bad = [column.status == "non-finite" for column in heard[0].message.info.columns]
    np.testing.assert_array_equal(bad, [False, True, False])
    np.testing.assert_array_equal(np.isnan(x).any(axis=0), [False, True, False])
    expected = np.linalg.solve(np.asarray(c.dense(c.values(c.parameters))), c.b)
    np.testing.assert_allclose(x[:, ::2], expected[:, ::2], rtol=1e-7)


@pytest.mark.parametrize("name", ["linear_cg", "gmres", "direct"])
@pytest.mark.parametrize("columns", [None, 2])
def test_a_matrix_that_is_not_finite_gives_nan_and_a_warning_in_a_compiled_solve(name, columns):
    """Catches: an endless loop, or a start handed back as a solution."""
    c = case(name, columns=columns)

    def solution(v):
        return tsgu_jax.solve(c.matrix(v), jnp.asarray(c.b), getattr(tsgu_jax, name))

    with pytest.warns(tsgu_jax.ConvergenceWarning):
        x = waited(jax.jit(solution), jnp.asarray(c.values(c.parameters)).at[0].set(jnp.nan))
    assert np.isnan(x).all()


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_a_singular_matrix_gives_nan_and_a_warning(wrap):
    """Catches: a pivot of rounding size, and a solution of 1e16."""
    A = tsgu_jax.SparseMatrix.from_coo(np.array([0, 0]), np.array([0, 1]), np.array([1.0, 2.0]), (2, 2))
    with pytest.warns(tsgu_jax.ConvergenceWarning, match="direct on the forward system: singular"):
        x = waited(wrap(lambda b: tsgu_jax.direct(A, b)), jnp.ones(2))
    assert np.isnan(x).all()


def _warned(function, *args):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = waited(function, *args)
    return result, [str(warning.message) for warning in caught]


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["eager", "jit"])
@pytest.mark.parametrize("name", ["direct", "triangular"])
def test_a_singular_member_of_a_batch_is_nan_and_named_and_the_others_are_solved(wrap, name):
    """Catches: a batch that is lost for one of its members, or a warning that leaves the user to look for it."""
    i, j = np.array([0, 1, 1]), np.array([0, 0, 1])
    values = np.array([[2.0, -1.0, 3.0], [1.0, 1.0, 1.0], [3.0, -1.0, 0.0], [4.0, 2.0, 5.0]])
    A = tsgu_jax.SparseMatrix.from_coo(i, j, values, (2, 2))

    def solve(values):
        b = jnp.ones((4, 2))
        if name == "direct":
            return tsgu_jax.direct(A.with_values(values), b)
        return tsgu_jax.triangular_solve(A.with_values(values), b, upper=False)

    x, told = _warned(wrap(solve), A.values)
    gradient, told_too = _warned(wrap(jax.grad(lambda values: solve(values)[3].sum())), A.values)
    expected = [np.linalg.solve([[a, 0], [b, c]], np.ones(2)) for a, b, c in np.delete(values, 2, 0)]
    np.testing.assert_allclose(np.delete(x, 2, 0), expected, rtol=1e-12)
    assert np.isnan(x[2]).all()
    assert len(told) == 1
    assert any("adjoint" in text for text in told_too)
    for text in told + told_too:
        assert f"{name} on the " in text
        assert "singular; member 2 of 4" in text
    last = np.array([[4.0, 0.0], [2.0, 5.0]])
    adjoint = np.linalg.solve(last.T, np.ones(2))
    np.testing.assert_allclose(gradient[3], -np.outer(adjoint, np.linalg.solve(last, np.ones(2)))[i, j], rtol=1e-12)


def test_members_of_a_batch_that_stop_early_are_named_for_least_squares_too():
    """Catches: one warning for all, or one for each that says the same."""
    i = np.array([0, 1, 1, 2])
    A = tsgu_jax.SparseMatrix.from_coo(i, np.array([0, 0, 1, 1]), np.array([[1.0, 2, 3, 1], [1, 0, 1, 0]]), (3, 2))
    b = jnp.array([[1.0, 2.0, 3.0], [1.0, 1.0, 0.0]])
    _, told = _warned(jax.jit(lambda b: tsgu_jax.lstsq(A, b, maxiter=1, atol=1e-15, btol=1e-15)), b)
    assert len(told) == 1
    assert "iteration limit; member 0 of 2" in told[0]
