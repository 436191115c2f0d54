"""``direct`` on a batch of values: derivatives equal to dense ones, one factorisation for all, nothing left behind."""

import gc
import weakref

import pytest
import torch

import tsgu
from tsgu._core.factors import _batch
from tsgu._core.factors._batch import Factorisations

N, COUNT = 12, 4
STORED = (torch.rand(N, N, generator=torch.Generator().manual_seed(0)) < 0.25) | torch.eye(N, dtype=torch.bool)
ROW, COL = STORED.nonzero().T
PATTERN = tsgu.Pattern(ROW, COL, (N, N))


def drawn(*shape, dtype=torch.float64, seed=1):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def values_of(dtype=torch.float64, count=COUNT):
    """Nonsymmetric, of moderate condition number."""
    return drawn(count, ROW.numel(), dtype=dtype) + 6 * (ROW == COL)


def sparse(values, b, **options):
    return tsgu.sparse_generic_solve(tsgu.SparseMatrix(values, PATTERN), b, solve=tsgu.direct, **options)


def dense(values, b):
    flat = torch.zeros(values.shape[0], N * N, dtype=values.dtype)
    A = flat.index_add(1, ROW * N + COL, values).reshape(-1, N, N)
    return torch.linalg.solve(A, b if b.dim() == 3 else b.unsqueeze(-1)).reshape(b.shape)


def loss(x):
    return (x.abs() ** 2 * torch.arange(1.0, x.numel() + 1, dtype=torch.float64).reshape(x.shape)).sum()


@pytest.fixture
def made(monkeypatch):
    """The batches that were factored, by the number of members."""
    counts, original = [], Factorisations.__init__
    monkeypatch.setattr(
        Factorisations, "__init__", lambda self, *args: (counts.append(len(args[2])), original(self, *args))[1]
    )
    return counts


@pytest.mark.parametrize("columns", [(), (1,), (3,)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_gradients_of_a_batch_equal_the_dense_ones_by_one_factorisation(made, dtype, columns):
    """Catches: gradients of one member in the rows of another, a missing conjugate, factors made again."""
    values, b = values_of(dtype).requires_grad_(), drawn(COUNT, N, *columns, dtype=dtype, seed=2).requires_grad_()
    x, exact = sparse(values, b), dense(values, b)
    torch.testing.assert_close(x, exact)
    got, expected = (torch.autograd.grad(loss(y), (values, b)) for y in (x, exact))
    torch.testing.assert_close(got, expected)
    assert made == [COUNT]


def test_second_derivatives_of_a_batch_equal_the_dense_ones():
    """Catches: an adjoint of the adjoint by the members of another batch, or a product with the wrong block."""
    values, b = values_of().requires_grad_(), drawn(COUNT, N, seed=2).requires_grad_()
    along = drawn(*values.shape, seed=3), drawn(*b.shape, seed=4)

    def second(solve):
        first = torch.autograd.grad(loss(solve(values, b)), (values, b), create_graph=True)
        return torch.autograd.grad(sum((g * v).sum() for g, v in zip(first, along, strict=True)), (values, b))

    torch.testing.assert_close(second(sparse), second(dense))


def test_forward_mode_over_a_batch_equals_the_dense_tangent(made):
    """Catches: a tangent that is solved member by member, or by other factors."""
    values, b = values_of(), drawn(COUNT, N, 2, seed=2)
    along = drawn(*values.shape, seed=3), drawn(*b.shape, seed=4)
    got = torch.func.jvp(sparse, (values, b), along)
    expected = torch.func.jvp(dense, (values, b), along)
    torch.testing.assert_close(got, expected)
    assert made == [COUNT]


def test_vmap_over_any_dimension_and_of_gradients_is_one_batch(made):
    """Catches: a batch along the last dimension taken for entries; a loop where gradients are mapped over."""
    values, b = values_of(), drawn(N, seed=2)

    def gradient(solve):
        return lambda v, b: torch.func.grad(lambda v: loss(solve(v, b)))(v)

    one = torch.func.vmap(gradient(sparse), in_dims=(1, None))(values.T.contiguous(), b)
    every = torch.stack([gradient(lambda v, b: dense(v[None], b[None])[0])(v, b) for v in values])
    torch.testing.assert_close(one, every)
    assert set(made) == {COUNT}


def test_a_batch_of_batches_is_one_batch(made):
    """Catches: members of the outer batch in the place of the inner ones."""
    values, b = values_of(count=6), drawn(6, N, seed=2)
    nested = torch.func.vmap(sparse)(values.reshape(3, 2, -1), b.reshape(3, 2, N))
    torch.testing.assert_close(nested.reshape(6, N), dense(values, b))
    assert made == [6]


def test_products_of_a_batch_equal_the_dense_ones_with_their_gradients():
    """Catches: diagonal blocks of a rectangular pattern that overlap."""
    row, col = torch.tensor([0, 0, 2, 1]), torch.tensor([0, 4, 3, 1])
    pattern = tsgu.Pattern(row, col, (3, 5))
    values, x = drawn(COUNT, 4).requires_grad_(), drawn(COUNT, 5, 2, seed=2).requires_grad_()
    order = pattern.gather(torch.arange(4.0)).long()
    A = torch.zeros(COUNT, 15, dtype=values.dtype).index_add(1, (row * 5 + col)[order], values).reshape(-1, 3, 5)
    y = tsgu.SparseMatrix(values, pattern) @ x
    torch.testing.assert_close(y, A @ x)
    got, expected = (torch.autograd.grad(loss(z), (values, x)) for z in (y, A @ x))
    torch.testing.assert_close(got, expected)


def test_each_member_is_in_the_record_in_its_order():
    """Catches: a batch that is one line, or members that nobody can tell apart."""
    values, b = values_of(), drawn(COUNT, N, 2, seed=2)
    b[2] = 0
    with tsgu.record() as log:
        sparse(values.requires_grad_(), b).sum().backward()
    assert [(info.method, info.transposed, info.status) for info in log] == [
        ("direct", transposed, "converged") for transposed in (False, True) for _ in range(COUNT)
    ]
    assert [info.residual == 0 for info in log[:COUNT]] == [False, False, True, False]
    assert all(len(info.columns) == 2 and info.seconds > 0 for info in log)


@pytest.mark.parametrize("name", ["A", "B"])
def test_a_member_that_is_not_finite_is_named(name):
    """Catches: a count over the whole batch, which leaves it to be searched for."""
    values, b = values_of(), drawn(COUNT, N, seed=2)
    (values if name == "A" else b)[2, 3] = torch.nan
    for method in (tsgu.direct, tsgu.bicgstab):
        with pytest.raises(ValueError, match=f"member 2 of {name} must be finite; got 1 non-finite of"):
            tsgu.sparse_generic_solve(tsgu.SparseMatrix(values, PATTERN), b, solve=method)


def test_an_empty_batch_has_an_empty_solution(made):
    """Catches: the first member of none."""
    values, b = values_of()[:0].requires_grad_(), drawn(0, N)
    x = sparse(values, b)
    assert x.shape == (0, N)
    assert torch.autograd.grad(x.sum(), values)[0].shape == values.shape
    assert made == []


def test_factors_of_a_batch_end_with_its_solution(monkeypatch):
    """Catches: a cycle of references, by which each step of a training loop keeps the factors of the steps before."""
    kept, original = [], Factorisations.__init__
    monkeypatch.setattr(
        Factorisations, "__init__", lambda self, *args: (kept.append(weakref.ref(self)), original(self, *args))[1]
    )
    gc.disable()
    try:
        x = sparse(values_of().requires_grad_(), drawn(COUNT, N, seed=2))
        x.sum().backward()
        assert kept[0]() is not None
        del x
        assert kept[0]() is None
    finally:
        gc.enable()


def test_the_number_of_threads_is_that_of_torch(monkeypatch):
    """Catches: a thread for each core where the user asked for one."""
    asked = []
    monkeypatch.setattr(_batch, "threads_for", lambda threads: asked.append(threads) or 1)
    sparse(values_of(), drawn(COUNT, N))
    assert asked == [torch.get_num_threads()]
