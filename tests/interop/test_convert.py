"""Arrays and matrices from one framework to the other, and back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax.experimental.sparse import BCOO, BCSR

import tsgu
import tsgu_jax
from tsgu_jax.interop import to_jax, to_torch

DTYPES = (torch.float32, torch.float64, torch.complex64, torch.complex128, torch.int32, torch.int64, torch.bool)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(5,), (3, 4), (0,), (0, 3)])
def test_dense_tensors_come_back_as_they_were(x64, dtype, shape):
    """Catches: a dtype that is narrowed, an empty array that loses its shape."""
    x = torch.from_numpy(np.random.default_rng(0).integers(0, 2, shape)).to(dtype)
    there = to_jax(x)
    np.testing.assert_array_equal(there, x.numpy())
    assert str(dtype) == f"torch.{there.dtype}".replace("torch.bool_", "torch.bool")
    back = to_torch(there)
    assert back.dtype == dtype
    assert back.shape == x.shape
    assert torch.equal(back, x)


def test_memory_is_shared_both_ways_without_a_copy_and_is_not_with_one():
    """Catches: a copy that nobody asked for, or one that was asked for and not made."""
    x = torch.arange(1000.0)
    there = to_jax(x)
    assert there.unsafe_buffer_pointer() == x.data_ptr()
    assert to_torch(there).data_ptr() == x.data_ptr()
    assert to_jax(x, copy=True).unsafe_buffer_pointer() != x.data_ptr()
    assert to_torch(there, copy=True).data_ptr() != x.data_ptr()
    assert to_jax(x, copy=False).unsafe_buffer_pointer() == x.data_ptr()
    A = torch.sparse_coo_tensor(torch.stack([torch.arange(1000)] * 2), x, check_invariants=False)
    assert to_jax(A).data.unsafe_buffer_pointer() == A._values().data_ptr()
    assert to_jax(A.coalesce().to_sparse_csr()).data.size == 1000
    with pytest.raises(ValueError, match=r"x must be contiguous to be shared; got strides \(1, 10\)"):
        to_jax(torch.ones(10, 10).T, copy=False)


def test_strides_and_lazy_conjugates_are_resolved():
    """Catches: memory read in the wrong order, or without its conjugation."""
    x = torch.randn(3, 4, dtype=torch.complex64)
    for view in (x.T, x.conj(), x[:, ::2], x.T.conj(), x.imag):
        np.testing.assert_array_equal(to_jax(view), view.resolve_conj().resolve_neg().numpy())


ROW, COL = torch.tensor([2, 0, 2, 0]), torch.tensor([1, 0, 1, 3])
VALUES = torch.tensor([1.0, 2.0, 3.0, 0.0], dtype=torch.float64)


def dense(row, col, values, shape):
    result = np.zeros(shape, values.dtype)
    np.add.at(result, (row, col), values)
    return result


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex64], ids=str)
@pytest.mark.parametrize("index", [torch.int64, torch.int32], ids=str)
def test_sparse_tensors_keep_their_entries(x64, dtype, index):
    """Catches: a duplicate or an explicit zero that is dropped, a transposed index."""
    values = VALUES.to(dtype) * (1 + 2j if dtype.is_complex else 1)
    expected = dense(ROW, COL, values.numpy(), (3, 4))
    coo = torch.sparse_coo_tensor(torch.stack([ROW, COL]).to(index), values, (3, 4), check_invariants=False)
    there = to_jax(coo)
    assert isinstance(there, BCOO)
    assert (there.nse, there.indices.dtype, there.unique_indices) == (4, jnp.int32, False)
    np.testing.assert_array_equal(there.todense(), expected)
    np.testing.assert_array_equal(to_torch(there).to_dense(), expected)
    assert not to_torch(there).is_coalesced()
    assert to_jax(coo.coalesce()).unique_indices
    assert to_torch(to_jax(coo.coalesce())).is_coalesced()

    csr = coo.coalesce().to_sparse_csr()
    csr = torch.sparse_csr_tensor(
        csr.crow_indices().to(index), csr.col_indices().to(index), csr.values(), (3, 4), check_invariants=False
    )
    there = to_jax(csr)
    assert isinstance(there, BCSR)
    np.testing.assert_array_equal(there.todense(), expected)
    back = to_torch(there)
    assert back.layout == torch.sparse_csr
    np.testing.assert_array_equal(back.to_dense(), expected)


def test_sparse_matrices_keep_pattern_values_and_batch(x64):
    """Catches: a pattern that is sorted anew, and values that no longer fit it."""
    batch = torch.stack([VALUES, 2 * VALUES])
    A = tsgu.SparseMatrix.from_coo(ROW, COL, batch, (3, 4))
    there = to_jax(A)
    assert isinstance(there, tsgu_jax.SparseMatrix)
    assert there.pattern is to_jax(A.with_values(3 * A.values)).pattern
    np.testing.assert_array_equal(there.to_dense(), A.to_dense().numpy())
    back = to_torch(there)
    assert isinstance(back, tsgu.SparseMatrix)
    assert torch.equal(back.to_dense(), A.to_dense())


def test_padding_of_a_sparse_array_is_left_out(x64):
    """Catches: padding that becomes an entry, or an index out of range."""
    indices = jnp.array([[0, 1], [3, 4], [2, 2], [3, 0]])
    A = to_torch(BCOO((jnp.array([1.0, 9.0, 2.0, 8.0]), indices), shape=(3, 4)))
    assert A._nnz() == 2
    np.testing.assert_array_equal(A.to_dense(), dense([0, 2], [1, 2], np.array([1.0, 2.0]), (3, 4)))
    B = BCSR((jnp.array([1.0, 2.0, 9.0]), jnp.array([1, 2, 4]), jnp.array([0, 1, 1, 2])), shape=(3, 4))
    assert to_torch(B)._nnz() == 2
    np.testing.assert_array_equal(to_torch(B).to_dense(), dense([0, 2], [1, 2], np.array([1.0, 2.0]), (3, 4)))


def test_a_matrix_without_entries_stays_one():
    """Catches: an empty index array without two columns."""
    A = torch.sparse_coo_tensor(torch.zeros(2, 0, dtype=torch.int64), torch.zeros(0), (3, 2), check_invariants=False)
    assert to_jax(A).shape == to_torch(to_jax(A)).shape == (3, 2)
    assert to_torch(to_jax(A.coalesce().to_sparse_csr()))._nnz() == 0


def test_gradients_are_not_carried_across():
    """Catches: a graph that is silently cut half way: what comes back is plain data."""
    x = torch.ones(3, requires_grad=True)
    assert not to_torch(to_jax(x)).requires_grad
    assert not to_torch(to_jax(torch.eye(2).to_sparse().requires_grad_())).requires_grad


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128, torch.int64], ids=str)
def test_double_precision_is_refused_while_jax_would_narrow_it(dtype):
    """Catches: single precision that nobody asked for; a global flag that is switched on import."""
    assert not jax.config.read("jax_enable_x64")
    with pytest.raises(TypeError, match=f"x must have a dtype that JAX keeps; got {dtype} .*jax_enable_x64"):
        to_jax(torch.ones(2).to(dtype))
    assert not jax.config.read("jax_enable_x64")


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: to_jax(np.ones(2)), TypeError, r"x must be a torch.Tensor or a tsgu.SparseMatrix; got ndarray"),
        (lambda: to_jax(torch.eye(2).to_sparse_csc()), TypeError, "got layout torch.sparse_csc"),
        (lambda: to_jax(torch.ones(2, 2, 2).to_sparse()), ValueError, r"two dimensions .* got \(2, 2, 2\)"),
        (lambda: to_torch(torch.ones(2)), TypeError, "x must be a jax.Array, a BCOO"),
        (lambda: jax.jit(lambda x: to_torch(x))(1.0), TypeError, "x must be concrete .*torch_solver"),
        (lambda: to_torch(BCOO.fromdense(jnp.ones((2, 2, 2)), n_batch=1)), ValueError, "got .* with n_batch=1"),
    ],
)
@pytest.mark.filterwarnings("ignore:Sparse CSC")
def test_what_cannot_be_converted_is_refused_with_a_reason(call, error, message):
    """Catches: an error from deep inside a framework."""
    with pytest.raises(error, match=message):
        call()


def test_a_matrix_that_a_compiled_function_made_keeps_its_entries():
    """Catches: indices that are sorted on their way, under values that are not."""
    row, col, values = np.array([1, 0, 1]), np.array([1, 0, 0]), np.array([10.0, 5.0, 3.0], dtype=np.float32)
    A = jax.jit(lambda *entries: tsgu_jax.SparseMatrix.from_coo(*entries, (2, 2)))(row, col, values)
    np.testing.assert_array_equal(to_torch(A).to_dense(), [[5, 0], [3, 10]])
