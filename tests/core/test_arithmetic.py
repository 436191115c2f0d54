"""Patterns of sums and products against Boolean arithmetic, on whatever hypothesis thinks of."""

import gc
import weakref

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tsgu._core.pattern import _arithmetic, _symbolic
from tsgu._core.pattern._arithmetic import Pairs


@st.composite
def pairs(draw):
    """Two 0-1 matrices of one shape, and one that the first can be multiplied by; empty ones too."""
    m, n, k = (draw(st.integers(0, 6)) for _ in range(3))
    seed = draw(st.integers(0, 2**16))
    rng = np.random.default_rng(seed)
    fill = draw(st.sampled_from([0.0, 0.2, 0.6, 1.0]))
    return [rng.random(shape) < fill for shape in ((m, n), (m, n), (n, k))]


def symbolic(dense):
    return _symbolic.from_coo(*np.nonzero(dense), dense.shape)


def dense(pattern):
    full = np.zeros(pattern.shape, dtype=int)
    np.add.at(full, (pattern.row, pattern.col), 1)
    return full


@given(pairs())
@settings(deadline=None)
def test_a_sum_has_every_position_once_and_knows_whose_it_is(matrices):
    """Catches: a position of one of them left out, or both, where they meet, stored twice."""
    A, B, _ = matrices
    a, b = symbolic(A), symbolic(B)
    both = _arithmetic.sum_of(a, b)
    np.testing.assert_array_equal(dense(both.symbolic), A | B)
    assert (both.symbolic is a) == bool((A | B == A).all())
    for own, place in ((a, both.left), (b, both.right)):
        place = np.arange(own.nnz) if place is None else place
        np.testing.assert_array_equal(both.symbolic.row[place], own.row)
        np.testing.assert_array_equal(both.symbolic.col[place], own.col)


@given(pairs())
@settings(deadline=None)
def test_a_product_has_every_term_once_and_in_its_place(matrices):
    """Catches: a term that is lost, or that ends in another entry."""
    A, _, C = matrices
    a, c = symbolic(A), symbolic(C)
    product = _arithmetic.product_of(a, c)
    counts = A.astype(int) @ C.astype(int)  # terms of each entry
    np.testing.assert_array_equal(dense(product.symbolic), counts > 0)
    np.testing.assert_array_equal(a.col[product.left], c.row[product.right])
    into = np.arange(product.symbolic.nnz) if product.into is None else product.into
    assert (np.diff(into) >= 0).all()
    np.testing.assert_array_equal(product.symbolic.row[into], a.row[product.left])
    np.testing.assert_array_equal(product.symbolic.col[into], c.col[product.right])
    np.testing.assert_array_equal(counts[product.symbolic.row, product.symbolic.col], np.bincount(into))
    assert len(set(zip(product.left, product.right, strict=True))) == product.left.size


@given(pairs())
@settings(deadline=None)
def test_a_diagonal_is_found_where_it_is_stored(matrices):
    """Catches: an entry of the diagonal taken from beside it."""
    A = matrices[0]
    a = symbolic(A)
    place, stored = _arithmetic.diagonal_of(a)
    np.testing.assert_array_equal(stored, np.diagonal(A))
    np.testing.assert_array_equal(a.row[place[stored]], np.flatnonzero(stored))
    np.testing.assert_array_equal(a.col[place[stored]], np.flatnonzero(stored))


def test_what_is_known_of_a_pair_is_found_once_and_forgotten_with_either():
    """Catches: a loop that works it out in every step; a cache that keeps every matrix there ever was."""
    made = []
    eye = np.eye(2, dtype=bool)
    known, a, b = Pairs(lambda a, b: made.append((a.nnz, b.nnz)) or "plan"), symbolic(eye), symbolic(~eye)
    assert known.find(a, b) == known.find(a, b) == "plan"
    known.find(b, a)
    assert made == [(2, 2)] * 2
    seen = weakref.ref(b)
    del b
    gc.collect()
    assert seen() is None
