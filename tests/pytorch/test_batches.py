"""Batches of which one member fails: the others are solved, and the one is named."""

import warnings

import pytest
import torch

import tsgu

ROW, COL = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1])
PATTERN = tsgu.Pattern(ROW, COL, (2, 2))
VALUES = torch.tensor([[2.0, -1, -1, 2], [3, -1, -1, 3], [1, -1, -1, 1], [4, -1, -1, 4]], dtype=torch.float64)
ROUNDED = VALUES.clone()
ROUNDED[2] = torch.tensor([0.1, 0.3, 0.2, 0.6], dtype=torch.float64)  # no pivot of exactly zero
SOUND = [0, 1, 3]
B = torch.tensor([[1.0, 2.0], [3.0, 1.0], [1.0, 5.0], [0.0, 1.0]], dtype=torch.float64)


def batched(values, b, method, **kwargs):
    return tsgu.sparse_generic_solve(tsgu.SparseMatrix(values, PATTERN), b, solve=method, **kwargs)


def mapped(values, b, method, **kwargs):
    def one(v, b):
        return tsgu.sparse_generic_solve(tsgu.SparseMatrix(v, PATTERN), b, solve=method, **kwargs)

    return torch.func.vmap(one)(values, b)


def mapped_over_values(values, b, method, **kwargs):
    b = b[0]
    return torch.func.vmap(lambda v: method(tsgu.SparseMatrix(v, PATTERN), b, **kwargs))(values)


def heard(caught):
    return [str(one.message) for one in caught if one.category is tsgu.ConvergenceWarning]


@pytest.fixture
def caught():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield caught


@pytest.mark.parametrize("values", [VALUES, ROUNDED], ids=["zero pivot", "null vector"])
@pytest.mark.parametrize("method", [tsgu.direct, tsgu.auto], ids=["direct", "auto"])
@pytest.mark.parametrize("solve", [batched, mapped, mapped_over_values])
def test_a_singular_member_is_nan_and_named_and_the_others_are_solved(caught, solve, method, values):
    """Catches: three good systems lost with the fourth, and nothing said of which that is."""
    x = solve(values, B, method)
    sides = B[:1].expand(4, 2) if solve is mapped_over_values else B
    assert x[2].isnan().all()
    for index in SOUND:
        torch.testing.assert_close(x[index], torch.linalg.solve(values[index].reshape(2, 2), sides[index]))
    (text,) = heard(caught)
    assert text.startswith("direct on the forward system: singular; member 2 of 4")
    assert "fix one unknown for each vector that A maps to zero" in text


@pytest.mark.parametrize("method", [tsgu.direct, tsgu.auto], ids=["direct", "auto"])
@pytest.mark.parametrize("solve", [batched, mapped])
def test_its_gradients_are_nan_and_those_of_the_others_are_right(caught, solve, method):
    """Catches: NaN in every gradient, from a sum over the batch or from an error half way."""
    values, b = VALUES.clone().requires_grad_(), B.clone().requires_grad_()
    got = torch.autograd.grad(solve(values, b, method).square().sum(), (values, b))
    dense, side = VALUES[SOUND].clone().requires_grad_(), B[SOUND].clone().requires_grad_()
    x = torch.linalg.solve(dense.reshape(-1, 2, 2), side.unsqueeze(-1)).squeeze(-1)
    expected = torch.autograd.grad(x.square().sum(), (dense, side))
    for mine, its in zip(got, expected, strict=True):
        assert mine[2].isnan().all()
        torch.testing.assert_close(mine[SOUND], its)
    forward, adjoint = heard(caught)
    assert forward.startswith("direct on the forward system: singular; member 2 of 4")
    assert adjoint.startswith("direct on the adjoint system (A^T): singular; member 2 of 4")


@pytest.mark.parametrize("values", [VALUES, ROUNDED], ids=["zero pivot", "null vector"])
def test_a_single_system_is_an_error_all_the_same(values):
    """Catches: NaN with a warning, where there is nobody else to be spared."""
    A = tsgu.SparseMatrix(values[2], PATTERN)
    for solve in (
        lambda: tsgu.direct(A, B[0]),
        lambda: tsgu.auto(A, B[0]),
        lambda: tsgu.direct.prepare(A).solve(B[0]),
        lambda: torch.func.vmap(lambda b: tsgu.direct(A, b))(B),  # one matrix, whose right-hand sides are columns
    ):
        with pytest.raises(torch.linalg.LinAlgError, match="A must not be singular for direct"):
            solve()


@pytest.mark.parametrize("method", [tsgu.linear_cg, tsgu.minres, tsgu.bicgstab, tsgu.gmres], ids=lambda m: m.name)
@pytest.mark.parametrize("solve", [batched, mapped])
def test_an_iteration_that_fails_names_its_member(caught, solve, method):
    """Catches: a warning that leaves four systems to look at."""
    x = solve(VALUES, B, method)
    for index in SOUND:
        expected = torch.linalg.solve(VALUES[index].reshape(2, 2), B[index])
        torch.testing.assert_close(x[index], expected, rtol=1e-6, atol=1e-6)
    (text,) = heard(caught)
    assert text.startswith(f"{method.name} on the forward system: ")
    assert "; member 2 of 4" in text


def test_members_of_a_batch_of_batches_are_numbered_through(caught):
    """Catches: the inner number alone, which two members share."""
    x = torch.func.vmap(lambda v: batched(v, B[:2], tsgu.direct))(VALUES.reshape(2, 2, 4))
    assert x[1, 0].isnan().all()
    torch.testing.assert_close(x[1, 1], torch.linalg.solve(VALUES[3].reshape(2, 2), B[1]))
    (text,) = heard(caught)
    assert "member 2 of 4" in text


def test_a_least_squares_problem_that_fails_names_its_member(caught):
    """Catches: the same where there is no square matrix."""
    values = torch.stack([VALUES[0], VALUES[1], VALUES[3]])
    with tsgu.record() as log:
        tsgu.sparse_generic_lstsq(tsgu.SparseMatrix(values, PATTERN), B[:3], maxiter=1)
    failed = [index for index, info in enumerate(log) if not info.converged]
    assert failed == [0, 1, 2]
    (text,) = heard(caught)
    assert "members 0, 1 and 2 of 3" in text


def test_what_is_prepared_for_one_member_is_told_of_the_others(caught):
    """Catches: factors of the first member believed for the whole batch."""
    factors = tsgu.direct.prepare(tsgu.SparseMatrix(VALUES[0], PATTERN))
    batched(VALUES[[0, 1]], B[:2], factors)
    (text,) = heard(caught)
    assert text.startswith("direct on the forward system: prepared for another matrix; member 1 of 2")


def of_values(dense):
    row, col = torch.tensor([0, 1, 1]), torch.tensor([0, 0, 1])
    return tsgu.SparseMatrix(dense[:, row, col], tsgu.Pattern(row, col, (2, 2)))


@pytest.mark.parametrize("layout", ["values", "coo", "csr"])
def test_a_singular_triangle_is_nan_and_named_and_the_others_are_solved(caught, layout):
    """Catches: an error for the whole batch, and gradients that are lost or NaN with it."""
    dense = torch.tensor([[[2.0, 0], [1, 3]], [[4, 0], [2, 0]], [[5, 0], [1, 2]]], dtype=torch.float64)
    if layout == "coo":  # which keeps the zero
        place = torch.tensor([[k, i, j] for k in range(3) for i, j in ((0, 0), (1, 0), (1, 1))]).T
        A = torch.sparse_coo_tensor(place, dense[tuple(place)], (3, 2, 2)).coalesce()
    elif layout == "csr":
        crow, col = torch.tensor([0, 1, 3]).expand(3, 3), torch.tensor([0, 0, 1]).expand(3, 3)
        A = torch.sparse_csr_tensor(crow, col, dense[:, [0, 1, 1], [0, 0, 1]], (3, 2, 2))
    else:
        A = of_values(dense)
    b = torch.tensor([[2.0, 4], [1, 1], [5, 3]], dtype=torch.float64, requires_grad=True)
    x = tsgu.sparse_triangular_solve(A, b, upper=False)
    (gradient,) = torch.autograd.grad(x[[0, 2]].sum(), b)
    assert x[1].isnan().all()
    for member in (0, 2):
        torch.testing.assert_close(x[member], torch.linalg.solve(dense[member], b[member]))
        torch.testing.assert_close(gradient[member], torch.linalg.solve(dense[member].T, torch.ones(2).double()))
    texts = heard(caught)
    assert len(texts) == 2
    assert texts[0].startswith("triangular on the forward system: singular; member 1 of 3")
    assert texts[1].startswith("triangular on the adjoint system (A^T): singular; member 1 of 3")
