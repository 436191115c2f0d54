"""Pattern and SparseMatrix against dense arithmetic, on whatever hypothesis thinks of."""

import gc
import weakref

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tsgu
from tsgu._matrix._pattern import pattern_of


@st.composite
def matrices(draw):
    """Coordinates, values and shape, with repeats, empty rows, explicit zeros, rectangular and empty matrices."""
    m, n, size = draw(st.integers(1, 5)), draw(st.integers(1, 5)), draw(st.integers(0, 12))
    index = draw(st.sampled_from([torch.int32, torch.int64]))
    row = torch.tensor([draw(st.integers(0, m - 1)) for _ in range(size)], dtype=index)
    col = torch.tensor([draw(st.integers(0, n - 1)) for _ in range(size)], dtype=index)
    values = torch.tensor([draw(st.sampled_from([0.0, 1.0, -2.0, 0.5])) for _ in range(size)], dtype=torch.float64)
    if draw(st.booleans()):
        values = values * (1 + 2j)
    return row, col, values, (m, n)


def dense(row, col, values, shape):
    D = torch.zeros(shape, dtype=values.dtype)
    return D.index_put((row.long(), col.long()), values, accumulate=True)


@given(matrices())
@settings(deadline=None)
def test_products_transposes_and_conversions_agree_with_dense_ones(matrix):
    """Catches: any confusion of rows and columns, order, repeats, layout or index dtype."""
    D = dense(*matrix)
    A = tsgu.SparseMatrix.from_coo(*matrix)
    n = D.shape[1]
    generator = torch.Generator().manual_seed(0)
    for k in (None, 1, 3, 19):
        shape = (n,) if k is None else (n, k)
        X = torch.randn(shape, dtype=D.dtype, generator=generator)
        torch.testing.assert_close(A @ X, D @ X)
    torch.testing.assert_close(A.to_dense(), D)
    torch.testing.assert_close(A.T.to_dense(), D.T)
    torch.testing.assert_close(A.mH.to_dense(), D.mH.resolve_conj())
    torch.testing.assert_close(A.T.T.values, A.values)
    for layout in (torch.sparse_coo, torch.sparse_csr):
        tensor = A.to_tensor(layout)
        assert tensor.layout == layout
        torch.testing.assert_close(tensor.to_dense(), D)
        again = tsgu.SparseMatrix.from_tensor(tensor)
        torch.testing.assert_close(again.values, A.values)
        assert torch.equal(again.pattern.col, A.pattern.col)
    row, col, values, shape = matrix
    uncoalesced = torch.sparse_coo_tensor(torch.stack([row, col]).long(), values, shape)
    torch.testing.assert_close(tsgu.SparseMatrix.from_tensor(uncoalesced).to_dense(), D)
    torch.testing.assert_close(tsgu.SparseMatrix.from_tensor(D).to_dense(), D)
    batch = A.with_values(torch.stack([A.values, 2 * A.values]))
    torch.testing.assert_close(batch.to_dense(), torch.stack([D, 2 * D]))
    X = torch.randn(2, n, 3, dtype=D.dtype, generator=generator)
    torch.testing.assert_close(batch @ X, batch.to_dense() @ X)


def test_indices_are_32_bit_inside():
    """Catches: 64-bit indices, which torch's CPU product converts at every call."""
    pattern = tsgu.Pattern(torch.tensor([0, 1]), torch.tensor([1, 0]), (2, 2))
    assert {t.dtype for t in (pattern.crow, pattern.row, pattern.col, pattern.transposition)} == {torch.int32}


def test_gradients_pass_through_construction_and_conversion():
    """Catches: a constructor that cuts the graph."""
    row, col = torch.tensor([1, 0, 1]), torch.tensor([0, 1, 0])
    values = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64, requires_grad=True)
    A = tsgu.SparseMatrix.from_coo(row, col, values, (2, 2))
    w = torch.tensor([[1.0, 10.0], [100.0, 1000.0]], dtype=torch.float64)
    for tensor in (A.to_dense(), A.to_tensor(torch.sparse_coo).to_dense(), A.to_tensor().to_dense(), A.T.T.to_dense()):
        (g,) = torch.autograd.grad((tensor * w).sum(), values, retain_graph=True)
        torch.testing.assert_close(g, torch.tensor([100.0, 10.0, 100.0], dtype=torch.float64))
    leaf = torch.tensor([[0.0, 2.0], [3.0, 0.0]], dtype=torch.float64, requires_grad=True)
    (g,) = torch.autograd.grad((tsgu.SparseMatrix.from_tensor(leaf).values * torch.tensor([1.0, 2.0])).sum(), leaf)
    torch.testing.assert_close(g, torch.tensor([[0.0, 1.0], [2.0, 0.0]], dtype=torch.float64))


def test_a_matrix_of_scipy_is_cut_from_the_graph():
    """Catches: an array that torch refuses to hand out, or the lazy conjugate that NumPy does not see."""
    values = torch.tensor([1 + 2j, 3 - 1j], dtype=torch.complex128, requires_grad=True)
    A = tsgu.SparseMatrix(values, tsgu.Pattern(torch.tensor([0, 1]), torch.tensor([1, 0]), (2, 2)))
    np.testing.assert_array_equal(A.to_scipy().toarray(), [[0, 1 + 2j], [3 - 1j, 0]])
    np.testing.assert_array_equal(A.mH.to_scipy().toarray(), [[0, 3 + 1j], [1 - 2j, 0]])
    with pytest.raises(TypeError, match=r"values must have dtype float32, .*; got torch\.float16"):
        A.with_values(torch.ones(2, dtype=torch.float16)).to_scipy()
    message = "must be concrete to become one of SciPy; got one that torch.func transforms. Convert it outside"
    for transform, v in ((torch.func.vmap, torch.ones(3, 2)), (torch.func.grad, torch.ones(2))):
        with pytest.raises(TypeError, match=message):
            transform(lambda v: A.with_values(v).to_scipy())(v)


def test_moving_and_casting_keep_the_pattern():
    """Catches: a pattern rebuilt, or a device forgotten."""
    A = tsgu.SparseMatrix.from_tensor(torch.eye(3))
    assert A.to(torch.complex64).dtype == torch.complex64
    assert A.to(torch.float64).pattern is A.pattern
    meta = A.to("meta")
    assert meta.device.type == meta.pattern.col.device.type == "meta"
    assert not A.with_values(A.values.requires_grad_()).detach().requires_grad


def test_what_does_not_fit_is_refused_in_three_parts():
    """Catches: values of another pattern that broadcast."""
    row = torch.tensor([0, 1])
    pattern = tsgu.Pattern(row, row, (2, 2))
    A = tsgu.SparseMatrix(torch.ones(2), pattern)
    cases = [
        (ValueError, r"values must be dense with shape \(2,\) or \(batch, 2\)", lambda: A.with_values(torch.ones(3))),
        (ValueError, "values must be a torch.Tensor; got list", lambda: A.with_values([1.0, 2.0])),
        (ValueError, "values must be on the device of the pat", lambda: A.with_values(torch.ones(2, device="meta"))),
        (ValueError, "row and col must be vectors of one length", lambda: tsgu.Pattern(row, row[:1], (2, 2))),
        (ValueError, "row indices must lie in 0..1; got 1 outside", lambda: tsgu.Pattern(row + 1, row, (2, 2))),
        (ValueError, r"values must have shape \(nse,\)", lambda: tsgu.SparseMatrix.from_coo(row, row, row[:1], (2, 2))),
        (ValueError, r"X must have shape \(2,\) or \(2, k\); got \(3,\)", lambda: A @ torch.ones(3)),
        (TypeError, "X must be a dense torch.Tensor; got ndarray", lambda: A @ np.ones(2)),
        (TypeError, "X must have the dtype and device of the matrix", lambda: A @ torch.ones(2, dtype=torch.float64)),
        (TypeError, "layout must be torch.sparse_coo or torch.sparse_csr", lambda: A.to_tensor(torch.sparse_csc)),
        (ValueError, r"values must have shape \(nnz,\) to become one sparse tensor",
         lambda: A.with_values(torch.ones(3, 2)).to_tensor()),
        (TypeError, "A must be sparse COO or CSR", lambda: tsgu.SparseMatrix.from_tensor(torch.eye(2).to_sparse_csc())),
    ]  # fmt: skip
    for error, message, call in cases:
        with pytest.raises(error, match=message):
            call()


def test_reprs_say_what_is_there():
    """Catches: <object at 0x7f...>"""
    A = tsgu.SparseMatrix.from_tensor(torch.eye(3))
    assert repr(A) == "SparseMatrix(shape=(3, 3), nnz=3, dtype=torch.float32, device=cpu)"
    assert repr(A.pattern) == "Pattern(shape=(3, 3), nnz=3, device=cpu)"
    assert repr(tsgu.gmres) == "<method tsgu.gmres>"


@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr])
def test_the_pattern_of_a_tensor_is_found_again_as_long_as_it_is_true(layout):
    """Catches: a loop that sorts in every step; a pattern that outlives its tensor, or a change of its indices."""
    A = torch.eye(3).to_sparse(layout=layout)
    seen = weakref.ref(pattern_of(A))
    assert pattern_of(A) is seen()
    column = A._indices()[1] if layout == torch.sparse_coo else A.col_indices()
    column[2] = 0
    assert pattern_of(A) is not seen()
    assert pattern_of(A).col.tolist() == [0, 1, 0]
    seen = weakref.ref(pattern_of(A))
    del A, column
    gc.collect()
    assert seen() is None
