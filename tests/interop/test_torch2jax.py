"""Torch functions that solve sparse systems, turned into JAX functions by the package torch2jax."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import tsgu
import tsgu_jax
import tsgu_jax.interop
from tests.contract.systems import METHODS
from tsgu_jax.interop import jax_solver, to_jax

torch2jax = pytest.importorskip("torch2jax", reason="needs torch2jax")

N = 6
ROW, COL = np.nonzero(np.eye(N) + np.eye(N, k=1) + np.eye(N, k=-2))
PLACE = torch.from_numpy(np.stack([ROW, COL]))
ROWS, COLS = PLACE
CROW = torch.from_numpy(np.searchsorted(ROW, np.arange(N + 1)))
PATTERN = tsgu.Pattern(*PLACE, (N, N))
FIXED = torch.eye(N).to_sparse() * 3


def assembled(how, values):
    shape = (N, N)
    match how:
        case "coo":
            return torch.sparse_coo_tensor(PLACE, values, shape).coalesce()
        case "stacked":
            return torch.sparse_coo_tensor(torch.stack([ROWS, COLS]), values, shape).to_sparse_csr()
        case "csr":
            return torch.sparse_csr_tensor(CROW, COLS, values, shape, check_invariants=False)
        case "pattern":
            return tsgu.SparseMatrix(values, PATTERN)
        case "matrix":
            return tsgu.SparseMatrix.from_coo(ROWS, COLS, values, shape)


def inputs(seed=0):
    rng = np.random.default_rng(seed)
    values = rng.standard_normal(ROW.size) / 2 + 3 * (ROW == COL)
    return values.astype(np.float32), rng.standard_normal(N).astype(np.float32)


def dense_loss(values, b):
    """The same loss in jnp.linalg alone."""
    return (jnp.linalg.solve(jnp.zeros((N, N), values.dtype).at[ROW, COL].set(values), b) ** 2).sum()


@pytest.mark.parametrize("how", ["coo", "stacked", "csr", "matrix", "pattern"])
def test_a_torch_function_becomes_a_jax_function_with_the_right_gradient(how):
    """Catches: a constructor that is not known, values in another order, a transposed pattern."""

    def loss(values, b):
        return (tsgu.sparse_generic_solve(assembled(how, values), b, solve=tsgu.bicgstab, rtol=1e-6) ** 2).sum()

    values, b = map(jnp.asarray, inputs())
    f = torch2jax.t2j(loss)
    value, grads = jax.jit(jax.value_and_grad(f, (0, 1)))(values, b)
    expected, expected_grads = jax.value_and_grad(dense_loss, (0, 1))(values, b)
    np.testing.assert_allclose(value, expected, rtol=1e-4)
    for got, truth in zip(grads, expected_grads, strict=True):
        np.testing.assert_allclose(got, truth, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", [*METHODS, None])
def test_every_method_becomes_its_counterpart(name):
    """Catches: a method of torch that is called with arrays of JAX, or another method in its place."""
    row, col = map(torch.from_numpy, np.nonzero(np.eye(N) + np.eye(N, k=1) + np.eye(N, k=-1)))
    values = jnp.where(jnp.asarray(row == col), 3.0, -1.0)

    def function(values, b):
        A = tsgu.SparseMatrix.from_coo(row, col, values, (N, N))
        return tsgu.sparse_generic_solve(A, b, None if name is None else getattr(tsgu, name))

    b = jnp.asarray(inputs()[1])
    with tsgu_jax.record() as log:
        x = torch2jax.t2j(function)(values, b)
        jax.effects_barrier()
    assert [info.method for info in log] == [name or "minres"]
    dense = np.zeros((N, N), np.float32)
    dense[row, col] = values
    np.testing.assert_allclose(x, np.linalg.solve(dense, b), rtol=1e-3, atol=1e-4)


def test_keyword_arguments_reach_the_counterpart():
    """Catches: a tolerance, a start or a preconditioner that is left behind."""
    values, b = map(jnp.asarray, inputs())
    inverse = np.linalg.inv(dense_matrix(values))

    def function(values, b, x0, M):
        A = assembled("matrix", values)
        return tsgu.sparse_generic_solve(A, b, tsgu.gmres, tsgu.gmres, verify=None, x0=x0, M=M, restart=4, rtol=1e-5)

    with tsgu_jax.record() as log:
        torch2jax.t2j(function)(values, b, jnp.zeros(N), jnp.asarray(inverse))
        exact = jnp.asarray(np.linalg.solve(dense_matrix(values), b))
        torch2jax.t2j(function)(values, b, exact, jnp.eye(N))
        jax.effects_barrier()
    assert [info.iterations for info in log] == [1, 0]


def dense_matrix(values):
    dense = np.zeros((N, N), np.float32)
    dense[ROW, COL] = values
    return dense


def test_methods_alone_fixed_matrices_and_wrapped_methods_are_known_too():
    """Catches: a spelling of the same solve that falls through."""
    values, b = map(jnp.asarray, inputs())
    expected = np.linalg.solve(dense_matrix(values), b)
    alone = torch2jax.t2j(lambda v, b: tsgu.direct(assembled("matrix", v), b))
    wrapped = torch2jax.t2j(
        lambda v, b: tsgu.sparse_generic_solve(assembled("coo", v), b, jax_solver(tsgu_jax.bicgstab))
    )
    for f in (alone, wrapped):
        np.testing.assert_allclose(f(values, b), expected, rtol=1e-3, atol=1e-4)
    fixed = torch2jax.t2j(lambda b: tsgu.sparse_generic_solve(FIXED, b))
    np.testing.assert_allclose(fixed(b), b / 3, rtol=1e-4)


def test_triangular_systems_and_least_squares_are_known_too():
    """Catches: a solve that is run by torch on arrays of JAX, or the wrong triangle."""
    rng = np.random.default_rng(5)
    dense = np.tril(rng.standard_normal((N, N)) + 3 * np.eye(N)).astype(np.float32)
    row, col = map(torch.from_numpy, np.nonzero(dense))
    values, b = jnp.asarray(dense[row, col]), jnp.asarray(inputs()[1])

    def triangular(values, b):
        A = tsgu.SparseMatrix.from_coo(row, col, values, (N, N))
        return tsgu.sparse_triangular_solve(A, b, upper=False, transpose=True)

    np.testing.assert_allclose(torch2jax.t2j(triangular)(values, b), np.linalg.solve(dense.T, b), rtol=1e-4, atol=1e-5)

    narrow = torch.stack([row, col % 3])

    def least_squares(values, b):
        A = torch.sparse_coo_tensor(narrow, values, (N, 3)).coalesce()
        return tsgu.sparse_generic_lstsq(A, b, atol=1e-7), tsgu.lsmr(A, b, damp=0.1)

    tall = np.zeros((N, 3), np.float32)
    np.add.at(tall, (row, col % 3), values)
    plain = torch2jax.t2j(lambda v, b: least_squares(v, b)[0])
    np.testing.assert_allclose(plain(values, b), np.linalg.lstsq(tall, b)[0], rtol=1e-3, atol=1e-4)
    damped = torch2jax.t2j(lambda v, b: least_squares(v, b)[1])
    expected = np.linalg.solve(tall.T @ tall + 0.01 * np.eye(3), tall.T @ b)
    np.testing.assert_allclose(damped(values, b), expected, rtol=1e-3, atol=1e-4)


def test_matrices_have_what_lies_between_assembling_and_solving():
    """Catches: a transpose or a product that is the one of the other matrix."""
    values, b = map(jnp.asarray, inputs())
    dense = dense_matrix(values)
    for how in ("coo", "matrix"):

        def function(values, b, how=how):
            A = assembled(how, values)
            assert A.shape == (N, N)
            assert A.dtype == torch.float32
            return torch.stack([A @ b, A.T @ b, A.to_dense() @ b])

        got = torch2jax.t2j(function)(values, b)
        np.testing.assert_allclose(got, np.stack([dense @ b, dense.T @ b, dense @ b]), rtol=1e-4, atol=1e-5)
    got = torch2jax.t2j(lambda v: assembled("matrix", v).with_values(torch.div(torch.neg(v), 2)).values)(values)
    np.testing.assert_allclose(got, -values / 2, rtol=1e-6)


def test_vmap_over_parameters_equals_a_loop():
    """Catches: a batch that is taken for columns."""

    def function(values, b):
        return tsgu.sparse_generic_solve(assembled("coo", values), b, tsgu.direct)

    pairs = [inputs(seed) for seed in range(3)]
    values, b = (jnp.stack([pair[i] for pair in pairs]) for i in (0, 1))
    got = jax.vmap(torch2jax.t2j(function))(values, b)
    for index in range(3):
        np.testing.assert_allclose(
            got[index], np.linalg.solve(dense_matrix(values[index]), b[index]), rtol=1e-3, atol=1e-4
        )


class Conductivity(torch.nn.Module):
    """A network for the coefficients of a matrix. Its indices are no buffer, which torch2jax makes a parameter."""

    def __init__(self):
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.Tanh(), torch.nn.Linear(4, ROW.size))
        self.place = PLACE
        self.register_buffer("diagonal", torch.from_numpy(4.0 * (ROW == COL)).float())

    def forward(self, features, b):
        values = torch.tanh(self.net(features)) + self.diagonal
        A = torch.sparse_coo_tensor(self.place, values, (N, N)).coalesce()
        return tsgu.sparse_generic_solve(A, b, solve=tsgu.gmres, rtol=1e-6)


def test_a_module_with_a_solve_inside_trains_in_jax():
    """Catches: parameters that receive no gradient, or that of another order of entries."""
    torch.manual_seed(0)
    module = Conductivity()
    features, b = torch.tensor([0.3, -0.7]), torch.from_numpy(inputs()[1])
    (module(features, b) ** 2).sum().backward()
    state = {name: to_jax(value) for name, value in module.state_dict().items()}
    f = torch2jax.t2j(module)

    def loss(state, features, b):
        return (f(features, b, state_dict=state) ** 2).sum()

    grads = jax.jit(jax.grad(loss))(state, to_jax(features), to_jax(b))
    for name, parameter in module.named_parameters():
        np.testing.assert_allclose(grads[name], parameter.grad, rtol=2e-3, atol=1e-5, err_msg=name)


@pytest.mark.parametrize(
    ("function", "error", "message"),
    [
        (
            lambda A, b: tsgu.sparse_generic_solve(A, b, lambda A, b: b),
            TypeError,
            "solve must be a method of tsgu inside",
        ),
        (lambda A, b: tsgu.sparse_generic_solve(A, b, M=torch.nn.Identity()), TypeError, "M must be a matrix inside"),
        (lambda A, b: tsgu.sparse_generic_solve(A, b, tol=1.0), TypeError, "minres accepts the keyword arguments"),
        (lambda A, b: tsgu.sparse_generic_solve(b, b), TypeError, "A must be a sparse tensor or a SparseMatrix"),
        (lambda A, b: tsgu.sparse_generic_solve(A, A), TypeError, r"B must be dense \(strided\)"),
    ],
)
def test_what_has_no_counterpart_is_refused_with_a_reason(function, error, message):
    """Catches: a foreign callable that is run on tracers, an argument that is dropped."""
    values, b = map(jnp.asarray, inputs())
    with pytest.raises(error, match=message):
        torch2jax.t2j(lambda v, b: function(assembled("coo", v), b))(values, b)


def test_options_of_a_constructor_are_not_dropped_silently():
    """Catches: requires_grad=True that means nothing in JAX."""
    values, _ = map(jnp.asarray, inputs())
    with pytest.raises(TypeError, match=r"torch\.sparse_coo_tensor has no counterpart of requires_grad=True"):
        torch2jax.t2j(lambda v: torch.sparse_coo_tensor(PLACE, v, (N, N), requires_grad=True).to_dense())(values)
    inferred = torch2jax.t2j(lambda v: torch.sparse_coo_tensor(PLACE, v).to_dense())(values)
    np.testing.assert_allclose(inferred, dense_matrix(values))


def test_a_mode_that_is_not_ours_leaves_a_solve_as_it_is():
    """Catches: a dispatch to functions that a device context does not know."""
    A = torch.eye(3, dtype=torch.float64).to_sparse().requires_grad_()
    with torch.device("cpu"):
        x = tsgu.sparse_generic_solve(A, torch.ones(3, dtype=torch.float64))
        M = tsgu.SparseMatrix.from_coo(torch.arange(3), torch.arange(3), torch.ones(3), (3, 3))
        y = tsgu.linear_cg(M, M @ M.pattern.gather(torch.ones(3)))
    x.sum().backward()
    torch.testing.assert_close(x.detach(), torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(y, torch.ones(3))
    assert A.grad is not None
