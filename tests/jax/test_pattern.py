"""Pattern: the order of values, and what it is built from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.sparse import BCOO

import tsgu_jax

ROW, COL = np.array([2, 0, 1, 0]), np.array([2, 0, 1, 1])
GIVEN = np.array([30.0, 10.0, 20.0, 5.0])
DENSE = np.array([[10.0, 5.0, 0.0], [0.0, 20.0, 0.0], [0.0, 0.0, 30.0]])


def test_values_in_the_order_of_the_positions_land_at_them():
    """Catches: the values of one position at another, without a word; as a constant, an argument and traced."""
    pattern = tsgu_jax.Pattern(ROW, COL, (3, 3))
    assert pattern.matrix(GIVEN).pattern is pattern
    given = jnp.asarray(GIVEN)

    def dense(pattern, given):
        return pattern.matrix(given).to_dense()

    for found in (
        dense(pattern, given),
        jax.jit(dense)(pattern, given),
        jax.jit(lambda given: dense(pattern, given))(given),
        jax.jit(lambda row, col: dense(tsgu_jax.Pattern(row, col, (3, 3)), given))(ROW, COL),
    ):
        np.testing.assert_array_equal(found, DENSE)
    np.testing.assert_array_equal(dense(pattern, jnp.stack([given, -given])), np.stack([DENSE, -DENSE]))
    canonical = tsgu_jax.SparseMatrix(jnp.array([10.0, 5.0, 20.0, 30.0]), pattern)
    np.testing.assert_array_equal(canonical.to_dense(), DENSE)


def test_the_repr_says_when_the_two_orders_differ():
    """Catches: a reader who cannot see that values will be permuted, or that some are added."""
    assert repr(tsgu_jax.Pattern([0, 1], [1, 0], (2, 2))) == "Pattern(shape=(2, 2), nnz=2)"
    told = "Pattern(shape=(2, 2), nnz=2, built from 2 entries in another order)"
    assert repr(tsgu_jax.Pattern([1, 0], [0, 1], (2, 2))) == told
    assert "nnz=1, built from 2 entries in another order" in repr(tsgu_jax.Pattern([1, 1], [0, 0], (2, 2)))


@pytest.mark.parametrize("make", [list, tuple, lambda x: np.array(x, np.uint64), jnp.array])
@pytest.mark.parametrize("shape", [[3, 3], (np.int64(3), 3), np.array([3, 3])])
def test_positions_and_shapes_in_every_form_that_can_be_meant(make, shape):
    """Catches: AttributeError: 'list' object has no attribute 'ndim'."""
    row, col = make(ROW.tolist()), make(COL.tolist())
    np.testing.assert_array_equal(tsgu_jax.Pattern(row, col, shape).matrix(GIVEN).to_dense(), DENSE)
    np.testing.assert_array_equal(tsgu_jax.SparseMatrix.from_coo(row, col, GIVEN, shape).to_dense(), DENSE)


@pytest.mark.parametrize("index", [[0.0, 1.0], jnp.array([0.0, 1.0]), np.array([True, False]), "01"])
def test_positions_that_are_no_whole_numbers_are_refused_by_name(index):
    """Catches: a mask or a float that is cut to an integer; under jit too."""
    words = r"must hold whole numbers, as a jax\.Array, a NumPy array or a list; got"
    with pytest.raises(TypeError, match=f"row {words}"):
        tsgu_jax.Pattern(index, [0, 1], (2, 2))
    if isinstance(index, jax.Array):
        with pytest.raises(TypeError, match=f"col {words}"):
            jax.jit(lambda i: tsgu_jax.Pattern(np.arange(2), i, (2, 2)).nnz)(index)


def test_given_values_that_do_not_fit_are_refused():
    """Catches: a gather, which in JAX is content with too few values and repeats the last; also behind padding."""
    pattern = tsgu_jax.Pattern(ROW, COL, (3, 3))
    for wrong in (np.ones(5), np.ones(3), np.ones((2, 1, 4)), np.array(1.0)):
        with pytest.raises(ValueError, match=r"given must have shape \(4,\) or \(batch, 4\), one value per position"):
            pattern.matrix(wrong)
        with pytest.raises(ValueError, match=r"given must have shape \(4,\) or \(batch, 4\), one value per position"):
            jax.jit(lambda P, v: P.matrix(v).values)(pattern, wrong)
    with pytest.raises(ValueError, match=r"given must be a jax\.Array or numpy\.ndarray; got list"):
        pattern.matrix([1.0] * 4)
    padded = BCOO((jnp.arange(1.0, 4), jnp.array([[1, 1], [2, 2], [0, 1]])), shape=(2, 2))
    pattern = tsgu_jax.SparseMatrix.from_bcoo(padded).pattern
    np.testing.assert_array_equal(pattern.matrix(padded.data).to_dense(), [[0.0, 3.0], [0.0, 1.0]])
    with pytest.raises(ValueError, match=r"got \(2,\)"):
        pattern.matrix(padded.data[:2])
