"""What only torch can do to a function: modules, own autograd functions, changes between passes, writes in place."""

import re

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

import tsgu

N = 5
GENERATOR = torch.Generator().manual_seed(0)
C = 4 * torch.eye(N, dtype=torch.float64) + 0.3 * torch.randn(N, N, dtype=torch.float64, generator=GENERATOR)
B = torch.randn(N, dtype=torch.float64, generator=GENERATOR)
METHODS = (tsgu.linear_cg, tsgu.minres, tsgu.bicgstab, tsgu.gmres)

each = pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=["real", "complex"])
@each
def test_what_a_function_closes_over_passes_gradcheck_and_gradgradcheck(method, dtype):
    """Catches: a conjugate, a transpose or a term of the second derivative that is missing."""
    hermitian = method in METHODS[:2]
    noise = 0.3 * torch.randn(N, N, dtype=dtype, generator=torch.Generator().manual_seed(1))
    noise = noise + noise.mH if hermitian else noise
    k = (2 + torch.rand(N, generator=torch.Generator().manual_seed(2), dtype=torch.float64)).to(dtype)
    k, b = k.requires_grad_(), B.to(dtype).clone().requires_grad_()

    def solve(k, b):
        diagonal = (k * k.conj()).real.to(dtype) if hermitian else k * k
        return method(lambda v: diagonal * v + noise @ v, b, rtol=1e-14)

    assert gradcheck(solve, (k, b), check_forward_ad=True, check_batched_grad=True)
    assert gradgradcheck(solve, (k, b))


@pytest.mark.parametrize("kind", ["module", "bound method", "own function"])
def test_parameters_receive_gradients_whatever_the_function_is(kind):
    """Catches: a parameter that is found in one kind of function alone."""
    layer = torch.nn.Linear(N, N, bias=False).double()
    layer.weight.data = C.clone()

    class Product(torch.autograd.Function):
        @staticmethod
        def forward(ctx, weight, v):
            ctx.save_for_backward(weight, v)
            return weight @ v

        @staticmethod
        def backward(ctx, g):
            weight, v = ctx.saved_tensors
            return torch.outer(g, v), weight.T @ g

    A = {"module": layer, "bound method": layer.forward, "own function": lambda v: Product.apply(layer.weight, v)}[kind]
    tsgu.gmres(A, B, rtol=1e-12).square().sum().backward()
    dense = C.clone().requires_grad_()
    torch.linalg.solve(dense, B).square().sum().backward()
    torch.testing.assert_close(layer.weight.grad, dense.grad)


def test_a_tensor_that_is_no_leaf_receives_its_gradient_too():
    """Catches: leaves that are looked for, past the tensor that was asked about."""
    log_k = torch.linspace(0, 1, N, dtype=torch.float64).requires_grad_()
    k = log_k.exp()
    x = tsgu.linear_cg(lambda v: k * v, B, rtol=1e-12)
    for leaf, expected in ((k, -B / k**2), (log_k, -B / k)):
        torch.testing.assert_close(torch.autograd.grad(x.sum(), leaf, retain_graph=True)[0], expected.detach())


def test_a_function_whose_parameters_are_frozen_costs_nothing():
    """Catches: a module whose parameters are frozen that is differentiated all the same."""
    layer, calls = torch.nn.Linear(N, N, bias=False).double().requires_grad_(False), []
    layer.weight.data = C.clone()

    def counted(v):
        calls.append(v)
        return layer(v)

    assert not tsgu.gmres(counted, B).requires_grad
    frozen = len(calls)
    layer.requires_grad_(True)
    assert tsgu.gmres(counted, B).requires_grad
    assert len(calls) - frozen == frozen + 2  # b - f(x), and again where that leads


def test_one_adjoint_solve_serves_all_parameters():
    """Catches: a solve for each parameter, or for what rounding left of a gradient."""
    k, t, b = B.exp().requires_grad_(), torch.tensor(0.5, dtype=torch.float64, requires_grad=True), B.clone()
    with tsgu.record() as log:
        x = tsgu.gmres(lambda v: k * v + t * v.roll(1), b.requires_grad_())
        x.sum().backward()
    assert [info.transposed for info in log] == [False, True]


def test_a_function_that_has_changed_before_the_backward_pass_is_refused():
    """Catches: the variable of a loop: the adjoint of every solve with the function of the last."""
    b = B.clone().requires_grad_()
    loss = 0
    for k in (1.0, 2.0):
        loss = loss + tsgu.gmres(lambda v: k * (C @ v), b).sum()  # noqa: B023
    with pytest.raises(RuntimeError, match="A must be the same function in the backward pass as in the forward pass"):
        loss.backward()


@pytest.mark.parametrize(
    ("function", "error", "message"),
    [
        (
            lambda v: v.mul_(2),
            ValueError,
            "A must leave its argument as it is, as a function; got one that writes to it",
        ),
        (lambda v: (2 * v).float(), TypeError, "dtype torch.float64 on cpu, times a square matrix; got shape (5,) and"),
    ],
)
def test_what_a_function_must_not_do_is_named(function, error, message):
    """Catches: a vector of the method's own that is changed from outside."""
    with pytest.raises(error, match=re.escape(message)):
        tsgu.gmres(function, B)


@each
def test_results_that_share_memory_are_no_trouble(method):
    """Catches: a method that writes to the vector it was given, which is the argument, or the function's own buffer."""
    torch.testing.assert_close(method(lambda v: v, B), B)
    buffer, k = torch.empty(N, dtype=torch.float64), torch.arange(1, N + 1, dtype=torch.float64)
    torch.testing.assert_close(method(lambda v: torch.mul(k, v, out=buffer), B, rtol=1e-12), B / k)


def test_a_transpose_of_which_autograd_sees_a_part_is_refused():
    """Catches: the transpose of that part alone, in a gradient without a word."""
    b = B.clone().requires_grad_()
    x = tsgu.gmres(lambda v: 4 * v + v.detach().roll(1), b)
    with pytest.raises(TypeError, match="not all that it does to its argument is in the graph"):
        x.sum().backward()


def test_transforms_of_torch_func_go_through_b_and_stop_at_parameters():
    """Catches: a parameter that is lost inside of a transform, or a batch of vectors that reaches the function as a
    block."""
    k = torch.arange(2, N + 2, dtype=torch.float64)
    jacobian = torch.func.jacrev(lambda b: tsgu.gmres(lambda v: k * v, b, rtol=1e-12))(B)
    torch.testing.assert_close(jacobian, torch.diag(1 / k))
    batch = B + torch.arange(N, dtype=torch.float64)[:, None]  # as many members as unknowns
    torch.testing.assert_close(torch.func.vmap(lambda b: tsgu.gmres(lambda v: k * v, b))(batch), batch / k)
    with pytest.raises(NotImplementedError, match=r"A must not close over tensors that torch.func transforms"):
        torch.func.grad(lambda k: tsgu.gmres(lambda v: k * v, B).sum())(k)
