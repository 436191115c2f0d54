"""Where a warning points, and how often Python shows it, in eager calls and from compiled programs."""

import inspect
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tsgu_jax
from tests.jax.cases import waited

N = 60


def laplacian():
    dense = 2 * np.eye(N) - np.eye(N, k=1) - np.eye(N, k=-1)
    row, col = np.nonzero(dense)
    return tsgu_jax.SparseMatrix.from_coo(row, col, jnp.asarray(dense[row, col]), (N, N))


def here():
    return inspect.currentframe().f_back.f_lineno


@pytest.fixture
def shown():
    """What Python shows of the warnings of a test, under its own rule."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        yield caught


def places(shown):
    return sorted((w.message.info.transposed, w.filename, w.lineno) for w in shown)


def test_one_text_is_shown_once_for_a_line_and_again_for_another(shown):
    """Catches: a warning in every step of a loop; or a second solve that fails in silence, since a first one did
    elsewhere."""
    A, b = laplacian(), jnp.ones(N)
    for _ in range(20):
        one, _ = here(), tsgu_jax.linear_cg(A, b, maxiter=2)
        two, _ = here(), tsgu_jax.linear_cg(A, b, maxiter=2)
    assert places(shown) == [(False, __file__, one), (False, __file__, two)]
    assert len({str(w.message) for w in shown}) == 1


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_derivatives_point_at_the_line_where_the_solve_was_traced(shown, wrap):
    """Catches: a line of JAX, or none, for the reports that come from a thread of its runtime; and one in every
    step."""
    A, b = laplacian(), jnp.ones(N)
    lines = [0, 0]

    def loss(values):
        lines[0], x = here(), tsgu_jax.linear_cg(A.with_values(values), b, maxiter=2)
        lines[1], y = here(), tsgu_jax.linear_cg(A.with_values(values), x, maxiter=2)
        return y.sum()

    gradient = wrap(jax.grad(loss))
    for step in range(5):
        waited(gradient, A.values * 2.0**step)
    assert set(places(shown)) == {(adjoint, __file__, line) for adjoint in (False, True) for line in lines}
    assert len({(str(w.message), w.lineno) for w in shown}) == len(shown)


def test_another_line_compiles_nothing_again(shown, monkeypatch):
    """Catches: a place that is part of a program's structure: each line of a model would compile a solve of its own."""
    A, b = laplacian(), jnp.ones(N)
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, duration, **_: compiled.append(event) if event.endswith("backend_compile_duration") else None
    )
    try:
        one = jax.grad(lambda b: tsgu_jax.linear_cg(A, b, maxiter=2).sum())
        two = jax.grad(lambda b: tsgu_jax.linear_cg(A, b, maxiter=2).sum())
        waited(one, b)
        count = len(compiled)
        waited(two, b)
    finally:
        jax.monitoring.clear_event_listeners()
    assert count > 0
    assert len(compiled) == count
    assert len({w.lineno for w in shown}) == 2


def test_batches_and_least_squares_point_at_the_line_of_the_solve(shown):
    """Catches: the line of vmap, or of nothing."""
    A = laplacian()
    two = jnp.stack([jnp.ones(N), 2 * jnp.ones(N)])
    lines = [0, 0]

    def member(values, b):
        lines[0], x = here(), tsgu_jax.gmres(A.with_values(values), b, maxiter=2)
        return x

    waited(jax.jit(jax.vmap(member)), jnp.stack([A.values, 2 * A.values]), two)
    assert {place[1:] for place in places(shown)} == {(__file__, lines[0])}
    shown.clear()

    def fitted(values):
        lines[1], x = here(), tsgu_jax.lstsq(A.with_values(values), two[0], maxiter=2)
        return (x**2).sum()

    waited(jax.grad(fitted), A.values)
    assert {place[1:] for place in places(shown)} == {(__file__, lines[1])}
    assert {place[0] for place in places(shown)} == {False, True}


def test_a_triangle_and_what_was_prepared_point_at_the_line_of_the_solve(shown):
    """Catches: two ways past the frontend that all other solves take."""
    L = tsgu_jax.SparseMatrix.from_coo(np.array([0, 1, 1]), np.array([0, 0, 1]), jnp.array([1e-200, 1.0, 1.0]), (2, 2))
    lines = [0, 0]

    def triangle(b):
        lines[0], x = here(), tsgu_jax.triangular_solve(L, b, upper=False)
        return x

    waited(jax.jit(triangle), jnp.array([1e200, 0.0]))
    prepared = tsgu_jax.linear_cg.prepare(laplacian(), maxiter=2)

    def by_hand(b):
        lines[1], x = here(), prepared.solve(b)
        return x

    waited(jax.jit(by_hand), jnp.ones(N))
    assert [(w.filename, w.lineno) for w in shown] == [(__file__, line) for line in lines]
