"""auto in PyTorch: what was found out in the forward solve serves the adjoint."""

import numpy as np
import pytest
import torch

import tsgu
from tests.contract.test_auto import indefinite
from tsgu._core.factors import _superlu
from tsgu._core.methods import _choice


def tensors(system):
    place = torch.from_numpy(np.stack([system.row, system.col]))
    A = torch.sparse_coo_tensor(place, torch.from_numpy(system.values), system.shape, check_invariants=False)
    return A.requires_grad_(), torch.ones(system.n, dtype=A.dtype, requires_grad=True)


def test_the_adjoint_begins_with_what_solved_the_forward_system(monkeypatch):
    """Catches: a method known to fail that is tried again in every backward pass."""
    monkeypatch.setattr(_choice, "_cost_of_direct", lambda traits, library: 1e6)
    A, b = tensors(indefinite())
    with tsgu.record() as log:
        tsgu.sparse_generic_solve(A, b, solve=tsgu.auto).sum().backward()
    assert log[0].method == "linear_cg + jacobi"
    assert not log[0].converged
    assert [info.transposed for info in log] == [False] * (len(log) - 1) + [True]
    assert log[-1].method == log[-2].method


def test_factors_are_made_once_for_both_systems(monkeypatch):
    """Catches: auto prepared anew for the adjoint."""
    made, factored = [], _superlu._factored
    monkeypatch.setattr(_superlu, "_factored", lambda *args: made.append(1) or factored(*args))
    A, b = tensors(indefinite())
    tsgu.auto(A, b).sum().backward()
    assert len(made) == 1


def test_a_preconditioner_that_cannot_be_built_is_passed_over(monkeypatch):
    """Catches: a ValueError about levels from a call that never asked for any."""
    monkeypatch.setattr(_choice, "SMALL", 0)
    monkeypatch.setattr(_choice, "_cost_of_direct", lambda traits, library: 1e6)

    def refuse(A, **options):
        raise ValueError("no levels")

    monkeypatch.setattr(tsgu.precond, "jacobi", refuse)
    A, b = tensors(indefinite())
    with tsgu.record() as log:
        x = tsgu.auto(A, b)
    assert log[-1].converged
    assert "linear_cg + jacobi cannot be built: no levels" in log[-1].note
    torch.testing.assert_close(x, torch.linalg.solve(A.detach().to_dense(), b), rtol=1e-5, atol=1e-6)


def test_a_singular_matrix_is_an_error():
    """Catches: a fallback that divides by zero in another way."""
    A = torch.tensor([[1.0, 1.0], [1.0, 1.0]], dtype=torch.float64).to_sparse()
    with pytest.raises(torch.linalg.LinAlgError):
        tsgu.auto(A, torch.ones(2, dtype=torch.float64))


def test_a_batch_of_values_and_a_vmap_choose_for_each_member():
    """Catches: a choice made for the first member alone."""
    i = torch.arange(3)
    values = torch.tensor([[1.0, 2.0, 3.0], [4.0, -5.0, 6.0]], dtype=torch.float64)
    pattern = tsgu.Pattern(i, i, (3, 3))
    b = torch.ones(2, 3, dtype=torch.float64)
    expected = 1 / values
    torch.testing.assert_close(
        tsgu.sparse_generic_solve(tsgu.SparseMatrix(values, pattern), b, solve=tsgu.auto), expected
    )
    mapped = torch.func.vmap(lambda v: tsgu.auto(tsgu.SparseMatrix(v, pattern), b[0]))(values)
    torch.testing.assert_close(mapped, expected)


def test_gradcheck_passes_in_both_modes():
    """Catches: a choice made inside the graph."""
    A, b = tensors(indefinite())
    pattern = tsgu.SparseMatrix.from_tensor(A.detach()).pattern
    values = tsgu.SparseMatrix.from_tensor(A.detach()).values.requires_grad_()

    def solve(values, b):
        return tsgu.auto(tsgu.SparseMatrix(values, pattern), b)

    assert torch.autograd.gradcheck(solve, (values, b), check_forward_ad=True, atol=1e-6)


def test_a_callable_is_refused():
    """Catches: a matrix that cannot be looked at."""
    with pytest.raises(TypeError, match="for auto, which looks at it; got Function"):
        tsgu.auto(lambda v: v, torch.ones(3))
