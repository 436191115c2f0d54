"""Where a warning points, and how often Python shows it."""

import inspect
import threading
import warnings

import numpy as np
import pytest
import torch

import tsgu


def laplacian(n=60):
    i = torch.arange(n)
    row, col = torch.cat([i, i[1:], i[:-1]]), torch.cat([i, i[:-1], i[1:]])
    values = torch.cat([torch.full((n,), 2.0), torch.full((2 * n - 2,), -1.0)]).double()
    A = tsgu.SparseMatrix.from_coo(row, col, values, (n, n))
    return A.with_values(A.values.requires_grad_())


def tall(n=60):
    A = laplacian(n)
    row, col = (torch.cat([t, t + offset]) for t, offset in ((A.pattern.row, n), (A.pattern.col, 0)))
    return tsgu.SparseMatrix.from_coo(row, col, torch.cat([A.values, 2 * A.values]), (2 * n, n))


def here():
    return inspect.currentframe().f_back.f_lineno


def right_hand_side(n, seed):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(n))


@pytest.fixture
def shown():
    """What Python shows of the warnings of a test, under its own rule."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        yield caught


def places(shown):
    return [(w.message.info.transposed, w.filename, w.lineno) for w in shown]


def test_twenty_steps_of_a_loop_warn_once_for_each_system(shown):
    """Catches: figures in the text: a warning in every step of a training loop."""
    A = laplacian()
    for step in range(20):
        line, x = here(), tsgu.linear_cg(A, right_hand_side(60, step), maxiter=4)
        x.square().sum().backward()
    steps = {(w.message.info.transposed, str(w.message)) for w in shown}
    assert len(steps) == len(shown) <= 4, "two systems, whose residual may lie in two decades"
    assert set(places(shown)) == {(False, __file__, line), (True, __file__, line)}


def test_one_text_is_shown_once_for_a_line_and_again_for_another(shown):
    """Catches: a second solve that fails in silence, since a first one did elsewhere."""
    A, b = laplacian(), torch.ones(60, dtype=torch.float64)
    for _ in range(20):
        one, _ = here(), tsgu.linear_cg(A, b, maxiter=2)
        two, _ = here(), tsgu.linear_cg(A, b, maxiter=2)
    assert places(shown) == [(False, __file__, one), (False, __file__, two)]
    assert len({str(w.message) for w in shown}) == 1


def test_a_warning_of_the_backward_pass_points_at_the_line_of_the_solve(shown):
    """Catches: the line of backward(), the same for every solve of a model; or a line of PyTorch."""
    A, b = laplacian(), torch.ones(60, dtype=torch.float64)
    x0 = torch.linalg.solve(A.to_dense().detach(), b)
    first, x = here(), tsgu.linear_cg(A, b, x0=x0, maxiter=2)
    second, y = here(), tsgu.sparse_generic_solve(A, b, solve=tsgu.gmres, x0=x0, maxiter=2)
    loss = (x - 2 * y).square().sum()
    thread = threading.Thread(target=loss.backward)  # as the backward pass of an accelerator
    thread.start()
    thread.join()
    assert sorted(places(shown)) == [(True, __file__, first), (True, __file__, second)]


@pytest.mark.parametrize("batched", [False, True])
def test_least_squares_and_batches_point_at_the_line_of_the_solve(shown, batched):
    """Catches: the innards of vmap, of which the user knows nothing."""
    A, b = tall(), right_hand_side(120, 0)
    if batched:
        A, b = A.with_values(torch.stack([A.values, 3 * A.values])), torch.stack([b, b])
    line, x = here(), tsgu.sparse_generic_lstsq(A, b, maxiter=2)
    assert set(places(shown)) == {(False, __file__, line)}
    x.square().sum().backward()
    assert {place[1:] for place in places(shown)} == {(__file__, line)}
    assert {place[0] for place in places(shown)} == {False, True}


def test_a_triangle_points_at_the_line_of_the_solve(shown):
    """Catches: the same, in the one solver that no method stands behind."""
    L = torch.tensor([[1e-200, 0.0], [1.0, 1.0]], dtype=torch.float64).to_sparse().requires_grad_()
    line, x = here(), tsgu.sparse_triangular_solve(L, torch.tensor([1e200, 0.0], dtype=torch.float64), upper=False)
    assert places(shown) == [(False, __file__, line)]
    x[1].backward()
    assert {place[1:] for place in places(shown)} == {(__file__, line)}


def test_torch_func_and_modules_point_at_the_line_of_the_solve(shown):
    """Catches: the first frame outside of the package, which is one of PyTorch."""
    A, b = laplacian(), torch.ones(60, dtype=torch.float64)

    class Layer(torch.nn.Module):
        line = 0

        def forward(self, values):
            self.line, x = here(), tsgu.minres(A.with_values(values), b, maxiter=2)
            return x.sum()

    layer = Layer()
    torch.func.grad(layer)(A.values.detach())
    assert places(shown) == [(False, __file__, layer.line), (True, __file__, layer.line)]


def test_other_warnings_point_at_the_users_line_too(shown):
    """Catches: a mixture of dtypes, reported at a line of the package."""
    line, _ = here(), tsgu.direct(laplacian(), torch.ones(60))
    assert [(w.category, w.filename, w.lineno) for w in shown] == [(UserWarning, __file__, line)]


def test_the_filter_of_a_module_knows_the_users_module(shown):
    """Catches: a filter by module that never matches, since the warning claims to come from elsewhere."""
    warnings.filterwarnings("ignore", category=tsgu.ConvergenceWarning, module=__name__)
    x = tsgu.linear_cg(laplacian(), torch.ones(60, dtype=torch.float64), maxiter=2)
    x.sum().backward()
    assert shown == []
