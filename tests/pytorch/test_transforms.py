"""What torch's own checkers and ``torch.func`` say, for values on a pattern and for right-hand sides."""

import itertools

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.func import grad, hessian, jacfwd, jacrev, vjp, vmap

import tsgu
from tests.contract.systems import METHODS
from tsgu._core.methods import _registry

HERMITIAN = ("linear_cg", "minres")
N = 5


def system(method, dtype):
    """Values, a function from values to a matrix that suits the method, and the dense twin of that function."""
    generator = torch.Generator().manual_seed(1)
    dense = torch.randn(N, N, dtype=dtype, generator=generator)
    dense = dense * (torch.rand(N, N, generator=generator) < 0.5)
    if method in HERMITIAN:
        dense = dense + dense.mH
    dense = dense + 6 * torch.eye(N, dtype=dtype)
    row, col = dense.nonzero(as_tuple=True)
    pattern = tsgu.Pattern(row, col, (N, N))

    def matrix(values):
        A = tsgu.SparseMatrix(values, pattern)
        return A.with_values((A.values + A.mH.values) / 2) if method in HERMITIAN else A

    def twin(values):
        D = torch.zeros(N, N, dtype=dtype).index_put((row, col), values)
        return (D + D.mH) / 2 if method in HERMITIAN else D

    return dense[row, col], matrix, twin


def rhs(dtype, *shape):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(2))


def options(method):
    return {"rtol": 1e-14} if _registry.method(method).iterative else {}


@pytest.mark.parametrize("columns", [(), (2,)], ids=["vector", "block"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=["real", "complex"])
@pytest.mark.parametrize("method", METHODS)
def test_first_and_second_derivatives_pass_gradcheck_in_both_modes(method, dtype, columns):
    """Catches: any wrong sign, transpose or conjugate in a derivative; a backward pass that cannot be batched."""
    values, matrix, _ = system(method, dtype)
    values, b = values.requires_grad_(), rhs(dtype, N, *columns).requires_grad_()

    def solve(values, b):
        return tsgu.sparse_generic_solve(matrix(values), b, solve=getattr(tsgu, method), **options(method))

    assert gradcheck(solve, (values, b), check_forward_ad=True, check_batched_grad=True)
    assert gradgradcheck(solve, (values, b), check_fwd_over_rev=True, check_batched_grad=True)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=["real", "complex"])
def test_products_pass_gradcheck_in_both_modes(dtype):
    """Catches: A @ X with a wrong adjoint."""
    values, matrix, _ = system("direct", dtype)
    values, x = values.requires_grad_(), rhs(dtype, N, 2).requires_grad_()

    def product(values, x):
        A = matrix(values)
        return A @ x, A.T @ x, A.mH @ x[:, 0]

    assert gradcheck(product, (values, x), check_forward_ad=True, check_batched_grad=True)
    assert gradgradcheck(product, (values, x), check_fwd_over_rev=True)


def test_a_batch_of_matrices_passes_gradcheck():
    """Catches: a batch whose members share one factorisation or one gradient."""
    values, matrix, _ = system("direct", torch.float64)
    values = (values * torch.tensor([[1.0], [1.5], [-2.0]])).requires_grad_()
    b = rhs(torch.float64, 3, N, 2).requires_grad_()

    def solve(values, b):
        return tsgu.sparse_generic_solve(matrix(values), b, solve=tsgu.direct)

    assert gradcheck(solve, (values, b))
    assert gradgradcheck(solve, (values, b))


def losses(method):
    values, matrix, twin = system(method, torch.float64)
    b, w = rhs(torch.float64, N), rhs(torch.float64, 2, N)[1]

    def sparse(values, b):
        x = tsgu.sparse_generic_solve(matrix(values), b, solve=getattr(tsgu, method), **options(method))
        return (w * x * x).sum()

    def dense(values, b):
        x = torch.linalg.solve(twin(values), b)
        return (w * x * x).sum()

    return sparse, dense, values, b


@pytest.mark.parametrize("argument", [0, 1], ids=["values", "b"])
@pytest.mark.parametrize("method", METHODS)
def test_derivatives_of_torch_func_equal_the_dense_ones(method, argument):
    """Catches: a rule that functorch cannot see through, or that loses a level."""
    sparse, dense, values, b = losses(method)
    for transform in (grad, hessian, lambda f, argument: jacrev(jacrev(f, argument), argument)):
        expected = jacrev(jacrev(dense, argument), argument) if transform is hessian else transform(dense, argument)
        torch.testing.assert_close(transform(sparse, argument)(values, b), expected(values, b), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("method", METHODS)
def test_jacobians_equal_the_dense_ones(method):
    """Catches: jacfwd that returns NaN or zeros, jacrev of a block."""
    values, matrix, twin = system(method, torch.float64)
    b = rhs(torch.float64, N, 2)

    def sparse(values, b):
        return tsgu.sparse_generic_solve(matrix(values), b, solve=getattr(tsgu, method), **options(method))

    def dense(values, b):
        return torch.linalg.solve(twin(values), b)

    for argument in (0, 1):
        expected = jacrev(dense, argument)(values, b)
        for transform in (jacrev, jacfwd):
            torch.testing.assert_close(transform(sparse, argument)(values, b), expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(
    "modes",
    list(itertools.product((jacfwd, jacrev), repeat=3)),
    ids=lambda modes: " ".join(mode.__name__ for mode in modes),
)
def test_third_derivatives_are_right_in_any_mixture_of_modes(modes):
    """Catches: forward mode switched off inside a jvp rule: nested forward mode that is silently wrong.

    The truth is reverse over reverse over reverse of the dense solve; its own nested forward mode is wrong.
    """
    sparse, dense, values, b = losses("direct")
    outer, middle, inner = modes
    got = outer(middle(inner(sparse)))(values, b)
    expected = jacrev(jacrev(jacrev(dense)))(values, b)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dims", [(0, 0), (0, None), (None, 0)], ids=["both", "values", "b"])
def test_gradients_of_a_batch_equal_a_batch_of_gradients(dims):
    """Catches: vmap over grad and grad over vmap, which meet the rule on different sides."""
    sparse, dense, values, b = losses("direct")
    args = (
        torch.stack([values, 2 * values, -values]) if dims[0] == 0 else values,
        torch.stack([b, 3 * b, b.flip(0)]) if dims[1] == 0 else b,
    )
    for f in (sparse, dense):
        inside = vmap(grad(f, (0, 1)), dims)(*args)
        outside = grad(lambda *args, f=f: vmap(f, dims)(*args).sum(), (0, 1))(*args)
        if f is sparse:
            got = inside, outside
    torch.testing.assert_close(got, (inside, outside), rtol=1e-9, atol=1e-11)


def test_a_pattern_first_used_inside_a_transform_serves_after_it():
    """Catches: index tensors made and cached inside a transform, wrapped by it: an internal assertion in the next
    one."""
    sparse, dense, values, b = losses("direct")
    jacrev(hessian(sparse))(values, b)
    torch.testing.assert_close(
        jacfwd(jacrev(jacrev(sparse)))(values, b), jacrev(jacrev(jacrev(dense)))(values, b), rtol=1e-9, atol=1e-12
    )


def test_indices_mapped_by_vmap_are_refused():
    """Catches: a pattern per member of a batch, which would be the first one's for all."""
    row = torch.tensor([[0, 1], [1, 0]])
    with pytest.raises(TypeError, match="row and col must be the same for all members of a batch"):
        vmap(lambda row: tsgu.SparseMatrix.from_coo(row, row, torch.ones(2), (2, 2)).values)(row)


def test_a_batch_of_right_hand_sides_is_solved_with_one_factorisation(monkeypatch):
    """Catches: a factorisation per column of a Jacobian."""
    from tsgu._methods import _direct

    made = []
    original = _direct.Factorisation
    monkeypatch.setattr(_direct, "Factorisation", lambda *args: made.append(1) or original(*args))
    values, matrix, _ = system("direct", torch.float64)

    def solve(b):
        return tsgu.sparse_generic_solve(matrix(values), b, solve=tsgu.direct)

    _, pull = vjp(solve, rhs(torch.float64, N))
    vmap(pull)(torch.eye(N, dtype=torch.float64))
    assert len(made) == 1
    made.clear()
    hessian(lambda b: (solve(b) ** 3).sum())(rhs(torch.float64, N))
    assert len(made) == 1


@pytest.mark.filterwarnings("ignore::UserWarning:torch")  # of Dynamo, about what it does not trace
def test_torch_compile_compiles_what_is_around_a_solve_and_leaves_the_solve_alone():
    """Catches: a loop that is traced step by step: seconds to compile, and ten times the time of the solve ever
    after."""
    values, matrix, twin = system("linear_cg", torch.float64)
    b, graphs = rhs(torch.float64, N), []

    def loss(values):
        return tsgu.linear_cg(matrix(values.exp().log()), b.sin(), rtol=1e-14).square().sum()

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    values = values.abs().requires_grad_()
    torch.compile(loss, backend=backend)(values).backward()
    expected = grad(lambda values: torch.linalg.solve(twin(values), b.sin()).square().sum())(values.detach())
    torch.testing.assert_close(values.grad, expected, rtol=1e-10, atol=1e-12)
    names = {str(node.target) for graph in graphs for node in graph.graph.nodes}
    assert not names & {"dot", "vdot", "mv", "mm"}
    assert len(graphs) < 10
    torch._dynamo.reset()
