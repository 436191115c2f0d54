"""Programs that are kept, exported and mapped: what is in them, and what is not."""

import re
import warnings
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tsgu_jax
from tests.jax.cases import case
from tests.jax.child import run
from tsgu_jax import precond

KRYLOV = ("linear_cg", "minres", "bicgstab", "gmres")


def grid(n=8):
    """A plane, for which levels can be built."""
    i = np.arange(n * n)
    x, y = i % n, i // n
    right, up = i[x < n - 1], i[y < n - 1]
    row = np.concatenate([i, right, right + 1, up, up + n])
    col = np.concatenate([i, right + 1, right, up + n, up])
    values = np.concatenate([np.full(n * n, 4.5), np.full(2 * right.size + 2 * up.size, -1.0)])
    return tsgu_jax.SparseMatrix.from_coo(row, col, values, (n * n, n * n))


def dense(A, values):
    whole = np.zeros(A.shape)
    np.add.at(whole, (np.asarray(A.pattern.row), np.asarray(A.pattern.col)), np.asarray(values))
    return whole


def loss(A, method, M, policy, values, b):
    arguments = {} if M is None else {"M": M}
    x = tsgu_jax.solve(A.with_values(values), b, getattr(tsgu_jax, method), on_failure=policy, **arguments)
    return x @ x


def program(method, preconditioner, policy):
    """The value and both gradients of a function of a solution."""
    A = grid()
    M = None if preconditioner is None else getattr(precond, preconditioner)(A)
    return A, jax.jit(jax.value_and_grad(partial(loss, A, method, M, policy), (0, 1)))


def expected(A, values, b):
    whole = dense(A, values)
    x = np.linalg.solve(whole, b)
    adjoint = np.linalg.solve(whole.T, 2 * x)
    return x @ x, -adjoint[np.asarray(A.pattern.row)] * x[np.asarray(A.pattern.col)], adjoint


def right_side(n):
    return np.cos(np.arange(n))


EXPORTED = [(method, None, "nan") for method in KRYLOV]
EXPORTED += [("linear_cg", "jacobi", "ignore"), ("gmres", "jacobi", "nan"), ("linear_cg", "amg", "nan")]
WITHOUT_EXTRAS = EXPORTED[:-1]


@pytest.mark.parametrize(("method", "preconditioner", "policy"), EXPORTED)
def test_without_reports_no_host_is_in_the_program(method, preconditioner, policy):
    """Catches: a callback in a program that was asked to be without: it cannot be exported or moved."""
    if preconditioner == "amg":
        pytest.importorskip("pyamg", reason="needs pyamg")
    A, solve = program(method, preconditioner, policy)
    text = solve.lower(A.values, jnp.ones(A.shape[0])).as_text()
    assert "while" in text
    assert "custom_call" not in re.sub(r"custom_call @(Sharding|lapack\w+|blas\w+)", "", text)


def write(path):
    """Export programs to a folder. For a process of its own."""
    for index, chosen in enumerate(WITHOUT_EXTRAS):
        A, solve = program(*chosen)
        exported = jax.export.export(solve)(A.values, jnp.ones(A.shape[0]))
        with open(f"{path}/{index}", "wb") as file:
            file.write(exported.serialize())


def read(path):
    """Run the exported programs where nobody has made any. For a process of its own."""
    A = grid()
    values, b = np.asarray(A.values) * 1.5, right_side(A.shape[0])
    for index, chosen in enumerate(WITHOUT_EXTRAS):
        with open(f"{path}/{index}", "rb") as file:
            exported = jax.export.deserialize(bytearray(file.read()))
        value, gradients = exported.call(jnp.asarray(values), jnp.asarray(b))
        for got, right in zip((value, *gradients), expected(A, values, b), strict=True):
            np.testing.assert_allclose(got, right, rtol=1e-6, atol=1e-8, err_msg=str(chosen))
    print("done")


def test_an_exported_program_solves_in_another_process(tmp_path):
    """Catches: a program that refers to something in the process that made it."""
    run(write, str(tmp_path))
    assert run(read, str(tmp_path)).splitlines()[-1] == "done"


def solve_direct(A, b):
    return tsgu_jax.direct(A, b)


def solve_with_ilu(A, b):
    return tsgu_jax.gmres(A, b, M=precond.ilu(A), on_failure="nan")


def solve_with_reports(A, b):
    return tsgu_jax.linear_cg(A, b)


@pytest.mark.parametrize(
    ("solve", "who"),
    [(solve_direct, "direct"), (solve_with_ilu, "ilu"), (solve_with_reports, "the report of a solve")],
)
def test_what_needs_the_host_is_not_exported(solve, who):
    """Catches: a message about the target of a custom call, which nobody has heard of."""
    A = grid(3)
    with pytest.raises(ValueError, match=rf"must do without the host, which {who} calls.*on_failure=\"nan\""):
        jax.export.export(jax.jit(lambda values, b: solve(A.with_values(values), b)))(A.values, jnp.ones(9))


def compile_once(path, policy, method):
    """How often the compiler was asked for what is not in the cache. For a process of its own."""
    jax.config.update("jax_compilation_cache_dir", path)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    seen = []
    jax.monitoring.register_event_listener(lambda event, **_: seen.append(event))
    A, solve = program(method, None, policy)
    value, gradients = jax.block_until_ready(solve(A.values, jnp.asarray(right_side(A.shape[0]))))
    for got, right in zip((value, *gradients), expected(A, A.values, right_side(A.shape[0])), strict=True):
        np.testing.assert_allclose(got, right, rtol=1e-6, atol=1e-8)
    hits, misses = (seen.count(f"/jax/compilation_cache/cache_{what}") for what in ("hits", "misses"))
    print(hits, misses)


@pytest.mark.parametrize(("policy", "method"), [("nan", "linear_cg"), ("warn", "gmres"), ("warn", "direct")])
def test_a_second_process_compiles_nothing(tmp_path, policy, method):
    """Catches: the address of an object of Python in a program, which keeps it out of JAX's cache."""
    first, second = (run(compile_once, str(tmp_path), policy, method).split()[-2:] for _ in range(2))
    assert int(first[1]) > 0
    assert int(second[0]) > 0
    assert int(second[1]) == 0


BATCHED = {
    "linear_cg": lambda A, b: tsgu_jax.linear_cg(A, b),
    "gmres, one matrix": lambda A, b: tsgu_jax.gmres(grid(3), b),
    "direct": lambda A, b: tsgu_jax.direct(A, b),
    "ilu": lambda A, b: tsgu_jax.bicgstab(A, b, M=precond.ilu(A)),
    "triangular": lambda A, b: tsgu_jax.triangular_solve(_upper(A), b),
    "lsmr": lambda A, b: tsgu_jax.lsmr(A, b),
}


def _upper(A):
    row, col = np.asarray(A.pattern.row), np.asarray(A.pattern.col)
    keep = np.flatnonzero(row <= col)
    return tsgu_jax.SparseMatrix.from_coo(row[keep], col[keep], A.values[keep], A.shape)


@pytest.mark.parametrize("name", BATCHED)
def test_a_program_does_not_grow_with_the_batch(name):
    """Catches: a report, or a call of the host, for each member: minutes to compile for a thousand."""
    A = grid(3)

    def mapped(size):
        gradient = jax.vmap(jax.grad(lambda v, b: BATCHED[name](A.with_values(v), b).sum(), (0, 1)))
        text = jax.jit(gradient).lower(jnp.ones((size, A.nnz)), jnp.ones((size, 9))).as_text()
        return [len(text.splitlines()), text.count("tsgu_host")]

    assert mapped(4) == mapped(64)


SPELLINGS = {
    "closed over": lambda A: lambda u: tsgu_jax.direct(A, u),
    "prepared": lambda A: partial(tsgu_jax.solve, A, solve=tsgu_jax.direct.prepare(A)),
    "checkpointed": lambda A: jax.checkpoint(lambda u: tsgu_jax.direct(A, u)),
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_a_matrix_that_stays_the_same_in_a_loop_is_factored_once(monkeypatch, name):
    """Catches: a factorisation in each step of a scan, and in each step of its gradient."""
    from tsgu_jax._program import _factors

    made, factorise = [], _factors.Factorisation
    monkeypatch.setattr(_factors, "Factorisation", lambda *args: made.append(None) or factorise(*args))
    A = grid(3)

    def last(u):
        step = SPELLINGS[name](A)
        return jax.lax.scan(lambda u, _: (step(u), None), u, None, length=10)[0].sum()

    value, gradient = jax.jit(jax.value_and_grad(last))(jnp.ones(9))
    power = np.linalg.matrix_power(np.linalg.inv(dense(A, A.values)), 10)
    np.testing.assert_allclose(value, power.sum(), rtol=1e-10)
    np.testing.assert_allclose(gradient, power.sum(axis=0), rtol=1e-10)
    assert len(made) == 1


def test_factors_are_kept_within_a_bound_on_memory_and_can_be_seen_and_forgotten(monkeypatch):
    """Catches: a count of slots: a batch of small matrices that is factored again in the adjoint, or memory that a few
    large ones fill."""
    from tsgu_jax._program import _factors

    store = tsgu_jax.factor_store
    made, factorise = [], _factors.Factorisation
    monkeypatch.setattr(_factors, "Factorisation", lambda *args: made.append(None) or factorise(*args))
    monkeypatch.setattr(store, "limit", 2**30)
    A = grid(3)
    values, b = A.values * jnp.arange(1.0, 201.0)[:, None], jnp.ones((200, 9))
    gradient = jax.jit(jax.grad(lambda v: tsgu_jax.solve(A.with_values(v), b, tsgu_jax.direct).sum()))
    jax.block_until_ready(gradient(values))
    assert len(made) == len(store) == 200
    assert 200 * A.nnz * 8 < store.nbytes < 2**30
    assert "200 matrices" in repr(store)
    store.limit = store.nbytes // 2
    assert store.nbytes <= store.limit
    assert 90 <= len(store) <= 110
    store.clear()
    assert len(store) == store.nbytes == 0
    x = np.linalg.solve(dense(A, A.values), np.ones(9))
    entries = -np.outer(x, x)[np.asarray(A.pattern.row), np.asarray(A.pattern.col)]
    np.testing.assert_allclose(gradient(values), entries / np.arange(1.0, 201.0)[:, None] ** 2, rtol=1e-10)


def test_the_policy_is_that_of_the_block_in_which_a_solve_is_traced():
    """Catches: a choice that is looked up when the program runs, or that is forgotten in the adjoint."""
    c = case("linear_cg")
    A, b = c.matrix(jnp.asarray(c.values(c.parameters))), jnp.asarray(c.b)
    gradient = jax.jit(jax.grad(lambda b: tsgu_jax.linear_cg(A, b, maxiter=1).sum()))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with tsgu_jax.on_failure("nan"):
            first = jax.block_until_ready(gradient(b))
        second = jax.block_until_ready(gradient(b))
    assert np.isnan(first).all()
    assert np.isnan(second).all()
