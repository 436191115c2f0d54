"""Solvers of one framework inside the other."""

import inspect
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse.linalg
import torch
from jax.experimental.sparse import BCOO

import tsgu
import tsgu_jax
from tests.contract import jax_adapter, torch_adapter, truth
from tests.contract.cases import RTOL, direction
from tests.contract.compare import assert_close, tolerance
from tests.contract.systems import BY_NAME, right_hand_side
from tests.jax.cases import waited
from tsgu_jax.interop import jax_solver, torch_solver


def jax_dense(A, B, **kwargs):
    return jnp.linalg.solve(A.to_dense() if isinstance(A, tsgu_jax.SparseMatrix) else A.todense(), B)


def torch_dense(A, B):
    return torch.linalg.solve(A.to_dense(), B), "info"


def options(solver):
    return {"rtol": RTOL} if getattr(solver, "name", "") in ("linear_cg", "bicgstab", "gmres") else {}


CASES = [("complex general", None), ("general", 2)]
cases = pytest.mark.parametrize(("name", "columns"), CASES)


@cases
@pytest.mark.parametrize(
    ("inner", "layout"), [(tsgu_jax.direct, "coo"), (tsgu_jax.gmres, "csr"), (jax_dense, "coo"), (jax_dense, "values")]
)
def test_a_jax_solver_has_the_right_gradients_in_torch(inner, layout, name, columns):
    """Catches: the matrix of the adjoint system, or its conjugate, lost on the way."""
    assert not jax.config.read("jax_enable_x64")
    system = BY_NAME[name]
    b, w = right_hand_side(system, columns), right_hand_side(system, columns, seed=4)
    problem = torch_adapter.Problem(system, b, layout)
    solver = jax_solver(inner)
    tol = tolerance(system.condition, np.float64, RTOL, order=2)
    assert_close(problem.solve(solver, **options(inner)), truth.solution(system, b), tol, "x")
    for got, expected in zip(
        problem.gradients(w, solver, **options(inner)), truth.gradients(system, b, w), strict=True
    ):
        assert_close(got, expected, tol, "gradient")
    assert not jax.config.read("jax_enable_x64")


def test_a_jax_solver_has_the_right_second_derivatives_in_torch():
    """Catches: an adjoint that is not differentiable itself."""
    system = BY_NAME["complex general"]
    b, w = right_hand_side(system, 2), right_hand_side(system, 2, seed=4)
    along = direction(system, b)
    got = torch_adapter.Problem(system, b).hessian_products(w, along, jax_solver(tsgu_jax.direct))
    tol = tolerance(system.condition, np.float64, RTOL, order=4)
    for g, expected in zip(got, truth.hessian_products(system, b, w, along), strict=True):
        assert_close(g, expected, tol, "second derivative")


def test_a_jax_method_reports_and_refuses_like_one_of_torch():
    """Catches: a solve that shows up twice in the log, or not at all; an argument that is accepted and ignored."""
    system = BY_NAME["general"]
    problem = torch_adapter.Problem(system, right_hand_side(system, None))
    with tsgu.record() as log:
        problem.gradients(right_hand_side(system, None, seed=4), jax_solver(tsgu_jax.bicgstab), x0=problem.b.detach())
    assert [(info.method, info.transposed, info.status) for info in log] == [
        ("bicgstab", False, "converged"),
        ("bicgstab", True, "converged"),
    ]
    assert all(info.iterations > 0 and info.seconds > 0 for info in log)
    with pytest.warns(tsgu.ConvergenceWarning, match="bicgstab on the forward system: iteration limit"):
        problem.solve(jax_solver(tsgu_jax.bicgstab), maxiter=1)
    with pytest.raises(TypeError, match=r"bicgstab accepts the keyword arguments .*; got tol"):
        problem.solve(jax_solver(tsgu_jax.bicgstab), tol=1e-3)
    with pytest.raises(TypeError, match="A must be a sparse tensor or a SparseMatrix for jax_solver"):
        jax_solver(tsgu_jax.gmres)(lambda v: v, problem.b)


def test_an_absolute_tolerance_stops_the_forward_solve_of_a_jax_method_alone():
    """Catches: in the adjoint: a gradient of zero where the loss is small."""
    system = BY_NAME["poisson"]
    b, w = right_hand_side(system, None), 1e-6 * right_hand_side(system, None, seed=4)
    atol = 1e-2 * np.linalg.norm(b)
    with tsgu.record() as log:
        problem = torch_adapter.Problem(system, b)
        grads = problem.gradients(w, jax_solver(tsgu_jax.linear_cg), atol=atol, rtol=RTOL)
    assert 1e-6 < log[0].residual <= 1e-2
    assert_close(grads[1], truth.gradients(system, b, w)[1], tolerance(system.condition, np.float64, RTOL), "gradient")


def test_an_absolute_tolerance_for_a_torch_method_in_jax_is_refused(x64):
    """Catches: JAX does not say which solve is the user's own: it would stop those of derivatives too."""
    system = BY_NAME["poisson"]
    problem = jax_adapter.Problem(system, right_hand_side(system, None))
    with pytest.raises(TypeError, match=r"atol must be zero for torch_solver\(linear_cg\).* use rtol, or tsgu_jax"):
        problem.solve(torch_solver(tsgu.linear_cg), atol=1e-3)
    with pytest.raises(TypeError, match="atol must be zero"):
        problem.solve(torch_solver(tsgu.bicgstab), settings=tsgu.BICGSTABSettings(abstol=1e-3))
    problem.solve(torch_solver(tsgu.linear_cg), atol=0.0)


def test_a_preconditioner_of_torch_reaches_the_jax_method_and_its_adjoint_transposed():
    """Catches: an M that is dropped, or not transposed for the adjoint."""
    system = BY_NAME["convection"]
    b, w = right_hand_side(system, None), right_hand_side(system, None, seed=4)
    inverse = np.linalg.inv(system.dense)
    problem = torch_adapter.Problem(system, b)
    for M in (torch.from_numpy(inverse), torch.from_numpy(inverse).to_sparse()):
        with tsgu.record() as log:
            problem.gradients(w, jax_solver(tsgu_jax.gmres), M=M)
        assert [info.iterations for info in log] == [1, 1]


def test_a_compiled_jax_function_and_its_info_are_accepted():
    """Catches: a tuple that crashes, a keyword that does not arrive."""
    system = BY_NAME["poisson"]
    b, w = right_hand_side(system, None), right_hand_side(system, None, seed=4)
    cg = jax.jit(lambda A, B, tol: jax.scipy.sparse.linalg.cg(A, B, tol=tol))
    got = torch_adapter.Problem(system, b, "coo").gradients(w, jax_solver(cg), tol=1e-12)
    tol = tolerance(system.condition, np.float64, 1e-12, order=2)
    for g, expected in zip(got, truth.gradients(system, b, w), strict=True):
        assert_close(g, expected, tol, "gradient")


@cases
@pytest.mark.parametrize(
    ("inner", "layout"), [(tsgu.direct, "coo"), (tsgu.gmres, "values"), (torch_dense, "csr"), (torch_dense, "values")]
)
def test_a_torch_solver_has_the_right_gradients_in_jax(x64, inner, layout, name, columns):
    """Catches: the matrix of the adjoint system, or its conjugate, lost on the way."""
    system = BY_NAME[name]
    b, w = right_hand_side(system, columns), right_hand_side(system, columns, seed=4)
    problem = jax_adapter.Problem(system, b, layout)
    solver = torch_solver(inner)
    tol = tolerance(system.condition, np.float64, RTOL, order=2)
    assert_close(problem.solve(solver, **options(inner)), truth.solution(system, b), tol, "x")
    for got, expected in zip(
        problem.gradients(w, solver, **options(inner)), truth.gradients(system, b, w), strict=True
    ):
        assert_close(got, expected, tol, "gradient")


def test_a_torch_solver_works_compiled_mapped_and_to_second_order(x64):
    """Catches: a callback that sees a batch it does not expect, or a tracer."""
    system = BY_NAME["complex general"]
    b, w = right_hand_side(system, 2), right_hand_side(system, 2, seed=4)
    solver, problem = torch_solver(tsgu.direct), jax_adapter.Problem(system, b)
    along = direction(system, b)
    tol = tolerance(system.condition, np.float64, RTOL, order=4)
    for g, expected in zip(
        problem.hessian_products(w, along, solver), truth.hessian_products(system, b, w, along), strict=True
    ):
        assert_close(g, expected, tol, "second derivative")
    values, rhs = np.stack([system.values, 2 * system.values]), np.stack([b, w])
    compiled = jax.jit(jax.vmap(lambda v, c: tsgu_jax.solve(problem.matrix(v), c, solver)))(values, rhs)
    assert_close(compiled[0], truth.solution(system, b), tol, "first")
    assert_close(compiled[1], truth.solution(system, w) / 2, tol, "second")


def test_arrays_among_the_keywords_reach_a_torch_solver_as_tensors_of_its_own(x64):
    """Catches: a tracer handed to torch, or memory of JAX that torch writes to."""
    system = BY_NAME["poisson"]
    b = right_hand_side(system, None)
    seen = []

    def solver(A, B, shift, flag, x0=None):
        seen.append((A.layout, B.dtype, shift.dtype, x0.shape, flag))
        x = torch.from_numpy(scipy.sparse.linalg.spsolve(_scipy(A), (B * shift).numpy()))
        for tensor in (A._values(), B, shift, x0):
            tensor.zero_()
        return x

    problem = jax_adapter.Problem(system, b, "coo")
    A, x0, shift = problem.matrix(), jnp.ones(system.n), jnp.asarray(1.0)

    @jax.jit
    def run(A, c, x0, shift):
        return tsgu_jax.solve(A, c, torch_solver(solver), shift=shift, flag="kept", x0=x0)

    for _ in range(2):
        x = run(A, problem.b, x0, shift)
        assert_close(np.asarray(x), truth.solution(system, b), tolerance(system.condition, np.float64, RTOL), "x")
    assert seen[0] == (torch.sparse_coo, torch.float64, torch.float64, (system.n,), "kept")


def _scipy(A):
    A = A.coalesce()
    return scipy.sparse.csc_array((A.values().numpy().copy(), A.indices().numpy()), shape=A.shape)


def test_what_a_torch_solver_raises_or_misses_is_heard(x64):
    """Catches: an exception that is swallowed on the host, a solver that does not solve."""
    A, b = BCOO.fromdense(jnp.eye(3)), jnp.ones(3)

    def fails(A, B):
        raise RuntimeError("no solution today")

    with pytest.raises(jax.errors.JaxRuntimeError, match="no solution today"):
        jax.block_until_ready(jax.jit(lambda b: tsgu_jax.solve(A, b, torch_solver(fails)))(b))
    with pytest.raises(jax.errors.JaxRuntimeError, match=r"must return the solution as a tensor of shape \(3,\)"):
        jax.block_until_ready(tsgu_jax.solve(A, b, torch_solver(lambda A, B: None)))
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        tsgu_jax.solve(A, b, torch_solver(lambda A, B: 0 * B))
        jax.effects_barrier()
    assert [w.category for w in heard] == [tsgu.ConvergenceWarning]
    assert "torch_solver(<lambda>) on the forward system: residual above verify" in str(heard[0].message)


def test_a_torch_method_in_a_compiled_program_warns_at_the_line_of_the_user(x64):
    """Catches: a line of JAX's runtime, in whose thread the method runs, or one that waits for the program."""
    system = BY_NAME["poisson"]
    A = BCOO.fromdense(jnp.asarray(system.dense))

    lines = []

    @jax.jit
    def solution(b):
        lines.append(inspect.currentframe().f_lineno + 1)
        return tsgu_jax.solve(A, b, torch_solver(tsgu.linear_cg), maxiter=2)

    with pytest.warns(tsgu.ConvergenceWarning) as heard:
        waited(solution, jnp.asarray(right_hand_side(system, None)))
    assert {(w.filename, w.lineno) for w in heard} == {(__file__, lines[0])}
    assert any("linear_cg on the forward system: iteration limit" in str(w.message) for w in heard)


def test_least_squares_cross_the_frameworks_too(x64):
    """Catches: a solution of the length of the right-hand side."""
    rng = np.random.default_rng(0)
    dense = rng.standard_normal((9, 4)) * (rng.random((9, 4)) < 0.6) + 2 * np.eye(9, 4)
    b, w = rng.standard_normal(9), rng.standard_normal(4)
    A = torch.tensor(dense).to_sparse().requires_grad_()
    rhs = torch.tensor(b, requires_grad=True)
    x = tsgu.sparse_generic_lstsq(A, rhs, jax_solver(lambda A, B: jnp.linalg.lstsq(A.todense(), B)[0]))
    x.backward(torch.tensor(w))
    full = torch.tensor(dense, requires_grad=True)
    side = torch.tensor(b, requires_grad=True)
    truth = torch.linalg.solve(full.T @ full, full.T @ side)
    truth.backward(torch.tensor(w))
    tol = tolerance(np.linalg.cond(dense) ** 2, np.float64, 1e-13, order=2)
    stored = A.detach().coalesce().indices()
    assert_close(x.detach().numpy(), truth.detach().numpy(), tol, "x")
    assert_close(A.grad.to_dense()[*stored].numpy(), full.grad[*stored].numpy(), tol, "gradient of A")
    assert_close(rhs.grad.numpy(), side.grad.numpy(), tol, "gradient of b")

    J = BCOO.fromdense(jnp.asarray(dense))

    def solution(data, b):
        solver = torch_solver(lambda A, B: torch.linalg.lstsq(A.to_dense(), B.unsqueeze(1), driver="gelsd")[0][:, 0])
        return tsgu_jax.lstsq(BCOO((data, J.indices), shape=J.shape), b, solver)

    y, back = jax.vjp(jax.jit(solution), J.data, jnp.asarray(b))
    grads = back(jnp.asarray(w))
    jax.effects_barrier()
    assert_close(np.asarray(y), truth.detach().numpy(), tol, "x")
    place = np.asarray(J.indices).T
    assert_close(np.asarray(grads[0]), full.grad.numpy()[*place], tol, "gradient of A")
    assert_close(np.asarray(grads[1]), side.grad.numpy(), tol, "gradient of b")


@pytest.mark.parametrize("wrap", [jax_solver, torch_solver])
def test_a_solver_must_be_callable(wrap):
    """Catches: a name that fails only when it is called."""
    with pytest.raises(TypeError, match=r"f must be a callable \(A, B, \*\*kwargs\) -> X; got the string 'linear_cg'"):
        wrap("linear_cg")
    with pytest.raises(TypeError, match="f must be a method for square systems; got lsmr"):
        wrap(tsgu.lsmr if wrap is torch_solver else tsgu_jax.lsmr)


def test_what_belongs_to_the_other_framework_is_refused_before_anything_runs():
    """Catches: a tracer in a preconditioner of torch, a tensor in one of JAX, or a method that is handed a foreign
    matrix."""
    A = tsgu.SparseMatrix.from_tensor(2 * torch.eye(3))
    b = torch.ones(3)
    A_jax = tsgu_jax.SparseMatrix.from_coo(np.arange(3), np.arange(3), 2 * np.ones(3, np.float32), (3, 3))
    b_jax = np.ones(3, np.float32)
    foreign = jax_solver(lambda A, B, M=None: tsgu_jax.gmres(A, B, M=M))
    m = r"M must be something that {} can compute with for {}\(.*\): a matrix, or a .* or a function of {}; got "
    into_jax, into_torch = m.format("JAX", "jax_solver", "JAX"), m.format("torch", "torch_solver", "torch")
    use = r"got gmres of {}, which is for {}\. Use {}\.gmres, or tsgu_jax\.interop\.{}\({}\.gmres\)"
    cases = [
        (lambda: tsgu.sparse_generic_solve(A, b, jax_solver(tsgu_jax.gmres), M=tsgu.precond.jacobi(A)),
         into_jax + "Jacobi of torch"),
        (lambda: tsgu.sparse_generic_solve(A, b, foreign, M=tsgu.precond.ilu(A)), into_jax + "ILU of torch"),
        (lambda: tsgu.sparse_generic_solve(A, b, foreign, M=tsgu.direct.prepare(A)),
         into_jax + "PreparedSolver of torch"),
        (lambda: tsgu_jax.solve(A_jax, b_jax, torch_solver(tsgu.gmres), M=tsgu_jax.precond.jacobi(A_jax)),
         into_torch + "Jacobi of JAX"),
        (lambda: tsgu.sparse_generic_solve(A, b, torch_solver(tsgu.gmres)),
         r"A and B must be of JAX for torch_solver\(gmres\), .*; got SparseMatrix and Tensor of torch"),
        (lambda: tsgu.sparse_generic_solve(A, b, tsgu_jax.gmres),
         use.format("tsgu_jax", "JAX", "tsgu", "jax_solver", "tsgu_jax")),
        (lambda: tsgu_jax.solve(A_jax, b_jax, tsgu.gmres),
         use.format("tsgu", "torch", "tsgu_jax", "torch_solver", "tsgu")),
        (lambda: tsgu.gmres(A_jax, b), r"got tsgu_jax\.SparseMatrix\. Convert it by tsgu_jax\.interop\.to_torch\(A\)"),
        (lambda: tsgu_jax.gmres(A, b_jax), r"got tsgu\.SparseMatrix\. Convert it by tsgu_jax\.interop\.to_jax\(A\)"),
    ]  # fmt: skip
    for call, message in cases:
        with pytest.raises((TypeError, ValueError), match=message):
            call()
    for M in (tsgu_jax.precond.jacobi(A_jax), torch.eye(3) / 2, np.eye(3, dtype=np.float32), A_jax, lambda r: r / 2):
        x = tsgu.sparse_generic_solve(A, b, jax_solver(tsgu_jax.gmres), M=M)
        np.testing.assert_allclose(x, np.full(3, 0.5), rtol=1e-5)
    for M in (tsgu.precond.jacobi(A), torch.eye(3) / 2, jnp.eye(3) / 2, A_jax, lambda r: r / 2):
        x = tsgu_jax.solve(A_jax, b_jax, torch_solver(tsgu.gmres), M=M)
        np.testing.assert_allclose(x, np.full(3, 0.5), rtol=1e-5)
