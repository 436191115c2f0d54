"""What a solve costs: compilations, factorisations, memory."""

import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tsgu_jax
from tests.jax.cases import case, methods, options
from tsgu_jax._program import _factors, _store

_compiled = [0]


def _count(name, duration, **kwargs):
    if name == "/jax/core/compile/backend_compile_duration":
        _compiled[0] += 1


jax.monitoring.register_event_duration_secs_listener(_count)


@methods
def test_new_values_of_the_same_shapes_compile_nothing(name):
    """Catches: an eager call in a loop that compiles each time, a jitted one keyed on values or on the matrix
    object."""
    c, method = case(name), getattr(tsgu_jax, name)
    values, b = jnp.asarray(c.values(c.parameters)), jnp.asarray(c.b)

    def solution(values, b):
        return tsgu_jax.solve(c.bcoo(values), b, method, **options(name))

    loss = jax.grad(lambda v, b: (solution(v, b) ** 2).sum(), (0, 1))
    calls = (solution, loss, jax.jit(loss))
    others = 1.5 * values, 2.0 * b
    for call in calls:
        call(values, b)
    before = _compiled[0]
    for call in calls:
        jax.block_until_ready(call(*others))
    assert _compiled[0] == before
    solution(jnp.asarray(np.float32(values)), jnp.asarray(np.float32(b)))
    assert _compiled[0] > before  # so the count counts


@pytest.mark.parametrize("name", ["linear_cg", "direct", "auto"])
def test_what_is_prepared_compiles_nothing_after_its_first_solve(name):
    """Catches: a loop traced in each call: a thousand times the time of a solve, and memory that is never given
    back."""
    c = case("linear_cg")
    A, b = c.matrix(jnp.asarray(c.values(c.parameters))), jnp.asarray(c.b)
    prepared = getattr(tsgu_jax, name).prepare(A)
    calls = (
        prepared.solve,
        prepared.solve_transpose,
        lambda b: tsgu_jax.solve(A, b, solve=prepared),
        jax.grad(lambda b: tsgu_jax.solve(A, b, solve=prepared).sum()),
    )
    for call in calls:
        call(b)
    before = _compiled[0]
    for call in calls:
        jax.block_until_ready(call(2.0 * b))
    assert _compiled[0] == before


@methods
def test_the_gradient_of_64_columns_needs_less_than_50_megabytes(name):
    """Catches: a temporary of shape (nnz, 64), or the states of all columns at once."""
    n = 20_000
    row = np.repeat(np.arange(n), 5)
    col = (row + np.tile([-150, -1, 0, 1, 150], n)) % n
    A = tsgu_jax.SparseMatrix.from_coo(row, col, np.tile([-1.0, -1, 4.5, -1, -1], n), (n, n))

    def loss(values, B):
        return (tsgu_jax.solve(A.with_values(values), B, getattr(tsgu_jax, name)) ** 2).sum()

    program = jax.jit(jax.grad(loss, (0, 1))).lower(A.values, jnp.zeros((n, 64))).compile()
    assert program.memory_analysis().temp_size_in_bytes < 50e6


@pytest.fixture
def factored(monkeypatch):
    """The number of factorisations so far."""
    made = []
    original = _factors.Factorisation

    def factorise(*args):
        made.append(threading.get_ident())
        return original(*args)

    monkeypatch.setattr(_factors, "Factorisation", factorise)
    return made


def test_one_factorisation_serves_forward_adjoint_and_every_derivative(factored):
    """Catches: a factorisation per direction, per column, or per member of a batch of right-hand sides."""
    c = case("direct")
    values, b = jnp.asarray(c.values(c.parameters)), jnp.asarray(c.b)
    batch = jnp.stack([b, 2 * b, b[::-1]])

    def solution(v, b):
        return tsgu_jax.direct(c.matrix(v), b)

    def loss(v, b):
        return (solution(v, b) ** 2).sum()

    for call, count in (
        (lambda: jax.grad(loss, (0, 1))(values, b), 1),
        (lambda: jax.jit(jax.value_and_grad(loss, (0, 1)))(values, b), 1),
        (lambda: jax.hessian(loss)(values, b), 1),
        (lambda: jax.vmap(jax.grad(loss, 1), (None, 0))(values, batch), 1),
        (lambda: jax.vmap(jax.grad(loss, (0, 1)))(jnp.stack([values, 2 * values]), batch[:2]), 2),
    ):
        factored.clear()
        _store.store.clear()
        jax.block_until_ready(call())
        assert len(factored) == count
    got = jax.vmap(jax.vmap(solution, (None, 0)), (0, None))(jnp.stack([values, 2 * values]), batch)
    expected = jax.vmap(jax.vmap(c.truth, (None, 0)), (0, None))(jnp.stack([values, 2 * values]), batch)
    np.testing.assert_allclose(got, expected, rtol=1e-11)


def test_many_factors_in_flight_are_dropped_and_made_again(factored, monkeypatch):
    """Catches: an adjoint solved with the factors of another matrix, or memory that grows with the number of solves."""
    monkeypatch.setattr(_store, "_LEAST", 1)
    monkeypatch.setattr(_store.store, "limit", 0)
    c = case("direct")
    values = [jnp.asarray(s * c.values(c.parameters)) for s in (1.0, 2.0, 3.0, 4.0, 5.0)]
    solved = [jax.vjp(lambda v: tsgu_jax.direct(c.matrix(v), jnp.asarray(c.b)), v) for v in values]
    assert len(factored) == 5
    for v, (x, back) in zip(values, solved, strict=True):
        dense = np.asarray(c.dense(v))
        np.testing.assert_allclose(x, np.linalg.solve(dense, c.b), rtol=1e-11)
        expected = -np.outer(np.linalg.solve(dense.T, np.ones(c.n)), x)[c.row, c.col]
        np.testing.assert_allclose(back(jnp.ones(c.n))[0], expected, rtol=1e-11)
    assert len(factored) > 5
    assert len(_store.store) <= 1


def test_threads_do_not_take_each_others_factors():
    """Catches: numbers handed out twice, a factor improved while another thread solves with it."""
    c = case("direct")
    gradient = jax.jit(jax.grad(lambda v: tsgu_jax.direct(c.matrix(v), jnp.asarray(c.b)).sum()))
    base = c.values(c.parameters)
    expected = -np.outer(np.linalg.solve(np.asarray(c.dense(base)).T, np.ones(c.n)), c.truth(base, c.b))[c.row, c.col]
    wrong = []

    def work(scale):
        with jax.enable_x64(True):
            for _ in range(5):
                got = gradient(jnp.asarray(scale * base))
                if not np.allclose(got * scale**2, expected, rtol=1e-10):
                    wrong.append(scale)

    threads = [threading.Thread(target=work, args=(scale,)) for scale in (1.0, 2.0, 4.0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
