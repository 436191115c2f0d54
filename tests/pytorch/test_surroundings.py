"""What usually surrounds a solve in PyTorch: autocast, inference mode, modules, checkpoints."""

import pytest
import torch

import tsgu

N = 40


def tridiagonal(dtype=torch.float32):
    i, j = torch.arange(N), torch.arange(N - 1)
    row, col = torch.cat([i, j, j + 1]), torch.cat([i, j + 1, j])
    values = torch.cat([torch.full((N,), 2.5), -torch.ones(N - 1), -0.5 * torch.ones(N - 1)])
    return tsgu.Pattern(row, col, (N, N)), values.to(dtype)


def autocast():
    return torch.autocast("cpu", dtype=torch.bfloat16)


SOLVES = {
    "bicgstab": lambda A, b: tsgu.bicgstab(A, b),
    "gmres": lambda A, b: tsgu.gmres(A, b),
    "direct": lambda A, b: tsgu.direct(A, b),
    "auto": lambda A, b: tsgu.auto(A, b),
    "gmres with ilu": lambda A, b: tsgu.gmres(A, b, M=tsgu.precond.ilu(A)),
    "gmres with block_jacobi": lambda A, b: tsgu.gmres(A, b, M=tsgu.precond.block_jacobi(A, 4)),
    "gmres with amg": lambda A, b: tsgu.gmres(A, b, M=tsgu.precond.amg(A)),
    "gmres with a dense M": lambda A, b: tsgu.gmres(A, b, M=torch.eye(N) / 2.5),
    "a callable from outside": lambda A, b: tsgu.sparse_generic_solve(
        A.to_tensor(), b, solve=lambda A, B: torch.linalg.solve(A.to_dense(), A @ (B * 0) + B)
    ),
    "a function": lambda A, b: tsgu.gmres(Function(A.detach().to_dense()), b),
    "least squares": lambda A, b: tsgu.sparse_generic_lstsq(A, b),
    "a product": lambda A, b: A @ b,
    "a triangle": lambda A, b: tsgu.sparse_triangular_solve(LOWER, b + A @ b, upper=False),
}


class Function:
    def __init__(self, D):
        self.D = D

    def __call__(self, x):
        return self.D @ x

    @property
    def T(self):  # noqa: N802
        return Function(self.D.T)


LOWER = tsgu.SparseMatrix.from_tensor(torch.eye(N) * 2 + torch.eye(N).roll(1, 0).tril())


@pytest.mark.parametrize("name", SOLVES)
@pytest.mark.parametrize("shape", [(N,), (N, 12)])
def test_autocast_changes_nothing_of_a_solve_and_of_its_gradient(name, shape):
    """Catches: products in bfloat16 inside of a solve: a dtype that does not fit, or three digits that are right."""
    pattern, values = tridiagonal()
    b = torch.linspace(-1, 1, shape[0] * (12 if len(shape) == 2 else 1)).reshape(shape)

    def run():
        v, rhs = values.clone().requires_grad_(), b.clone().requires_grad_()
        x = SOLVES[name](pattern.matrix(v), rhs)
        grads = torch.autograd.grad(x.square().sum(), (v, rhs), allow_unused=True)
        return x, *(g for g in grads if g is not None)

    expected = run()
    with autocast():
        found = run()
    for f, e in zip(found, expected, strict=True):
        assert f.dtype == torch.float32
        torch.testing.assert_close(f, e, rtol=0, atol=0)


def test_what_was_prepared_and_preconditioners_are_the_same_under_autocast():
    """Catches: a multigrid cycle in bfloat16, which is another preconditioner in every step."""
    pattern, values = tridiagonal()
    A, B = pattern.matrix(values), torch.linspace(-1, 1, 3 * N).reshape(N, 3)
    build = (
        tsgu.precond.amg,
        lambda A: tsgu.precond.block_jacobi(A, 3),
        tsgu.precond.ilu,
        lambda A: tsgu.gmres.prepare(A).solve,
        lambda A: tsgu.direct.prepare(A).solve_transpose,
        lambda A: tsgu.lsmr.prepare(A).solve,
    )
    for make in build:
        expected = make(A)(B)
        with autocast():
            torch.testing.assert_close(make(A)(B), expected, rtol=0, atol=0)


def test_half_precision_that_autocast_made_is_solved_with_in_single():
    """Catches: TypeError for the output of a layer, which torch.linalg.solve takes under autocast."""
    pattern, values = tridiagonal()
    with pytest.raises(TypeError, match=r"A must have dtype float32, .*; got torch\.bfloat16"):
        tsgu.gmres(pattern.matrix(values.bfloat16()), torch.ones(N))
    for call in (
        lambda A, b: tsgu.sparse_generic_solve(A, b, solve=tsgu.gmres),
        lambda A, b: tsgu.sparse_generic_solve(A.to_tensor(torch.sparse_coo), b, solve=tsgu.direct),
        tsgu.gmres,
        tsgu.sparse_generic_lstsq,
        lambda A, b: A @ b,
    ):
        v = values.bfloat16().requires_grad_()
        b = torch.linspace(-1, 1, N).bfloat16().requires_grad_()
        with autocast():
            x = call(pattern.matrix(v), b)
        single = [t.detach().float().requires_grad_() for t in (v, b)]
        expected = call(pattern.matrix(single[0]), single[1])
        torch.testing.assert_close(x, expected, rtol=0, atol=0)
        grads = torch.autograd.grad(x.sum(), (v, b))
        assert [g.dtype for g in grads] == [torch.bfloat16] * 2
        for g, e in zip(grads, torch.autograd.grad(expected.sum(), single), strict=True):
            torch.testing.assert_close(g, e.bfloat16(), rtol=0, atol=0)
    with autocast():
        assert tsgu.direct.prepare(pattern.matrix(values.bfloat16())).solve(b.detach()).dtype == torch.float32
        assert tsgu.precond.jacobi(pattern.matrix(values.bfloat16())).dtype == torch.float32


def test_what_is_made_under_inference_mode_serves_training_afterwards():
    """Catches: a preconditioner or factors whose tensors no gradient can be saved with."""
    pattern, values = tridiagonal(torch.float64)
    A, b = pattern.matrix(values), torch.linspace(-1, 1, N, dtype=torch.float64)
    with torch.inference_mode():
        made = [build(A) for build in (tsgu.precond.jacobi, tsgu.precond.ilu, tsgu.precond.amg)]
        factors = tsgu.direct.prepare(A)
        sums = (A + tsgu.SparseMatrix.eye(N, dtype=torch.float64)) @ A
    assert sums.values.is_inference()
    expected = torch.linalg.solve(A.to_dense().T, torch.ones(N, dtype=torch.float64))
    for options in (*({"solve": tsgu.gmres, "M": M, "rtol": 1e-12} for M in made), {"solve": factors}):
        v, rhs = values.clone().requires_grad_(), b.clone().requires_grad_()
        x = tsgu.sparse_generic_solve(pattern.matrix(v), rhs, **options)
        grads = torch.autograd.grad(x.sum(), (v, rhs))
        torch.testing.assert_close(grads[1], expected, rtol=1e-9, atol=1e-9)
    v = values.clone().requires_grad_()
    again = (pattern.matrix(v) + tsgu.SparseMatrix.eye(N, dtype=torch.float64)) @ pattern.matrix(v)
    assert again.pattern is sums.pattern
    (gradient,) = torch.autograd.grad(again.values.sum(), v)
    assert gradient.isfinite().all()


def test_a_loss_scale_scales_the_gradient_and_nothing_else():
    """Catches: a stopping rule in the units of the loss, under a GradScaler."""
    pattern, values = tridiagonal(torch.float64)
    grads = []
    for scale in (1.0, 2.0**16, 2.0**-40):
        v = values.clone().requires_grad_()
        x = tsgu.gmres(pattern.matrix(v), torch.ones(N, dtype=torch.float64))
        grads.append(torch.autograd.grad(scale * x.square().sum(), v)[0] / scale)
    torch.testing.assert_close(grads[1], grads[0], rtol=0, atol=0)
    torch.testing.assert_close(grads[2], grads[0], rtol=0, atol=0)
