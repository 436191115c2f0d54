"""Matrices of SciPy become a SparseMatrix, and come back."""

import re

import numpy as np
import pytest
import scipy.sparse as sp

FORMATS = ("bsr", "coo", "csc", "csr", "dia", "dok", "lil")


def rectangular(dtype=np.float64):
    """With an empty row and an empty column."""
    dense = np.array([[0, 2, 0, 5, 0], [0, 0, 0, 0, 0], [-1, 0, 0, 3, 1], [4, 0, 0, 0, 7]])
    return (dense * (1 + 2j) if np.issubdtype(dtype, np.complexfloating) else dense).astype(dtype)


@pytest.mark.parametrize("kind", [sp.coo_array, sp.coo_matrix])
@pytest.mark.parametrize("name", FORMATS)
def test_every_format_becomes_the_same_matrix(package, name, kind):
    """Catches: a format whose entries are read by columns, or by another convention of its diagonals."""
    dense = rectangular()
    A = package.SparseMatrix.from_scipy(kind(dense).asformat(name))
    row, col = np.nonzero(dense)
    np.testing.assert_array_equal(A.pattern.row, row)
    np.testing.assert_array_equal(A.pattern.col, col)
    np.testing.assert_array_equal(A.values, dense[row, col])
    assert A.shape == dense.shape


@pytest.mark.parametrize("dtype", ["f4", "f8", "c8", "c16", "i1", "i8", "u2", "?"])
def test_values_keep_their_dtype_and_integers_become_double(package, dtype):
    """Catches: double precision that is rounded, integers that cannot be solved with."""
    dense = rectangular(np.dtype(dtype))
    A = package.SparseMatrix.from_scipy(sp.csr_array(dense))
    expected = np.dtype(dtype) if np.dtype(dtype).kind in "fc" else np.dtype("f8")
    assert np.asarray(A.values).dtype == expected
    np.testing.assert_array_equal(A.to_dense(), dense.astype(expected))
    back = A.to_scipy()
    assert isinstance(back, sp.csr_array)
    assert back.dtype == expected
    np.testing.assert_array_equal(back.toarray(), dense.astype(expected))


@pytest.mark.parametrize("name", ["coo", "csc", "csr"])
def test_repeated_unsorted_and_zero_entries_are_brought_into_order(package, name):
    """Catches: a repeated entry that overwrites another, a zero that is dropped, and A changed by being read."""
    row, col = np.array([2, 0, 2, 1, 0, 2]), np.array([1, 2, 0, 1, 0, 1])
    data = np.array([10.0, 2.0, 3.0, 0.0, 5.0, 0.5])
    given = sp.coo_array((data, (row, col)), shape=(3, 3))
    if name != "coo":  # unsorted within each row or column, and with the repeated entry
        major, minor = (row, col) if name == "csr" else (col, row)
        order = np.argsort(major, kind="stable")
        pointers = np.searchsorted(major[order], np.arange(4))
        kind = sp.csr_array if name == "csr" else sp.csc_array
        given = kind((data[order], minor[order], pointers), shape=(3, 3))
    before = given.copy()
    A = package.SparseMatrix.from_scipy(given)
    np.testing.assert_array_equal(A.pattern.row, [0, 0, 1, 2, 2])
    np.testing.assert_array_equal(A.pattern.col, [0, 2, 1, 0, 1])
    np.testing.assert_array_equal(A.values, [5.0, 2.0, 0.0, 3.0, 10.5])
    np.testing.assert_array_equal(A.to_dense(), before.toarray())
    assert np.asarray(A.pattern.row).dtype == np.asarray(A.pattern.col).dtype == np.int32
    assert given.nnz == before.nnz == 6
    np.testing.assert_array_equal(given.data, before.data)
    back = A.to_scipy()
    assert back.has_canonical_format
    assert back.nnz == 5
    np.testing.assert_array_equal(back.toarray(), before.toarray())


@pytest.mark.parametrize("name", ["coo", "csr"])
def test_no_memory_is_shared(package, name):
    """Catches: a matrix that changes with one that was built from it."""
    given = sp.coo_array(rectangular()).asformat(name)
    A = package.SparseMatrix.from_scipy(given)
    given.data[:] = 0
    np.testing.assert_array_equal(A.to_dense(), rectangular())
    back = A.to_scipy()
    back.data[:] = 0
    back.indices[:] = 0
    np.testing.assert_array_equal(A.to_dense(), rectangular())


@pytest.mark.parametrize("shape", [(0, 0), (3, 2)])
def test_a_matrix_without_entries_goes_there_and_back(package, shape):
    """Catches: an empty array that has no largest index."""
    A = package.SparseMatrix.from_scipy(sp.csr_array(shape))
    assert (A.shape, A.nnz) == (shape, 0)
    assert A.to_scipy().shape == shape
    assert A.to_scipy().nnz == 0


def test_a_transpose_comes_back_as_that_of_scipy(package):
    """Catches: values in the order of the matrix that was transposed."""
    given = sp.csr_array(rectangular(np.complex128))
    A = package.SparseMatrix.from_scipy(given)
    np.testing.assert_array_equal(A.T.to_scipy().toarray(), given.T.toarray())
    np.testing.assert_array_equal(A.mH.to_scipy().toarray(), given.T.conj().toarray())


REFUSED = {
    "dense": (np.eye(2), TypeError, "A must be a sparse matrix or array of SciPy; got ndarray."),
    "one dimension": (
        sp.coo_array(np.ones(3)),
        ValueError,
        "A must have two dimensions, (m, n); got (3,) in format coo.",
    ),
    "extended precision": (
        sp.csr_array(np.eye(2, dtype=np.longdouble)),
        TypeError,
        "A must have dtype float32, float64, complex64 or complex128, or integers or bool, which become float64; got "
        f"{np.dtype(np.longdouble)}. Convert it first, for example by A.astype(float).",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_matrix_of_scipy_is_refused_in_three_parts(package, name):
    """Catches: a dense matrix of which the nonzero entries are taken unasked, or precision that is lost."""
    given, error, message = REFUSED[name]
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        package.SparseMatrix.from_scipy(given)


def test_a_batch_does_not_become_one_matrix(package):
    """Catches: the first member alone, or a reshape."""
    A = package.SparseMatrix.from_scipy(sp.eye_array(3, format="csr"))
    batch = A.with_values(package.array(np.ones((2, 3))))
    with pytest.raises(ValueError, match=r"values must have shape \(nnz,\) to become one .*; got \(2, 3\)"):
        batch.to_scipy()
