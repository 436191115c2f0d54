"""Patterns, products by layout and by segment sum, and conversions, against dense NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.experimental import sparse
from jax.experimental.sparse import BCOO

import tsgu_jax
from tests.jax.cases import case
from tsgu_jax._matrix import _products
from tsgu_jax._matrix._layout import Diagonals, Rows


def power_law(n=400, longest=300):
    rng = np.random.default_rng(3)
    length = np.minimum(longest, (1 + rng.pareto(1.0, n) * 2).astype(int))
    length[7], length[9] = longest, 0
    row = np.repeat(np.arange(n), length)
    return row, rng.integers(0, n, row.size), (n, n)


def uniform(n=50, width=5):
    return np.repeat(np.arange(n), width), (np.arange(n * width) * 7) % n, (n, n)


def band(m, n, offsets):
    row, col = np.meshgrid(np.arange(m), np.arange(n), indexing="ij")
    stored = np.isin(col - row, offsets)
    return row[stored], col[stored], (m, n)


PATTERNS = {
    "diagonals": band(40, 40, [-7, -1, 0, 1, 7]),
    "wide band": band(20, 31, [0, 3, 11]),
    "tall band": band(31, 20, [-12, -11, 0]),
    "below the diagonal": band(30, 30, [-5, -4, -2]),
    "power law": power_law(),
    "uniform": uniform(),
    "one long row": (np.zeros(500, int), np.arange(500), (3, 500)),
    "empty": (np.zeros(0, int), np.zeros(0, int), (4, 3)),
    "wide": (np.array([2, 0, 2]), np.array([5, 1, 5]), (3, 6)),
}


def dense_of(row, col, values, shape):
    dense = np.zeros(shape, values.dtype)
    np.add.at(dense, (row, col), values)
    return dense


@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize("columns", [None, 3])
def test_products_equal_the_dense_ones(name, columns):
    """Catches: pieces of a long row that are lost or added twice, an empty row that gets another's sum, a transposed
    layout."""
    row, col, shape = PATTERNS[name]
    rng = np.random.default_rng(0)
    values = rng.standard_normal(row.size) + 1j * rng.standard_normal(row.size)
    dense = dense_of(row, col, values, shape)
    A = tsgu_jax.SparseMatrix.from_coo(row, col, values, shape)
    for matrix, truth in ((A, dense), (A.T, dense.T), (A.mH, dense.conj().T)):
        x = rng.standard_normal((truth.shape[1],) if columns is None else (truth.shape[1], columns)) + 0j
        np.testing.assert_allclose(matrix @ x, truth @ x, rtol=1e-12, atol=1e-12)
        np.testing.assert_array_equal(matrix.to_dense() != 0, truth != 0)
    x, y = (rng.standard_normal((size,) if columns is None else (size, columns)) + 0j for size in shape[::-1])

    @jax.jit
    def traced(row, col, values, x, y):
        A = tsgu_jax.SparseMatrix.from_coo(row, col, values, shape)
        return A @ x, A.T @ y

    @jax.jit
    def carried(A, x, y):
        return A @ x, A.T @ y, A.T.T @ x

    order = rng.permutation(row.size)
    for got in (traced(row[order], col[order], values[order], x, y), carried(A, x, y)):
        for product, truth in zip(got, (dense @ x, dense.T @ y, dense @ x), strict=False):
            np.testing.assert_allclose(product, truth, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["diagonals", "tall band", "uniform"])
def test_an_infinite_entry_stays_in_the_rows_that_store_its_column(name):
    """Catches: padding that multiplies zero by infinity."""
    row, col, shape = PATTERNS[name]
    A = tsgu_jax.SparseMatrix.from_coo(row, col, np.ones(row.size), shape)
    for place in range(shape[1]):
        touched = np.isin(np.arange(shape[0]), row[col == place])
        np.testing.assert_array_equal(np.isfinite(A @ jnp.ones(shape[1]).at[place].set(jnp.inf)), ~touched)


@pytest.mark.parametrize("name", ["power law", "one long row", "uniform"])
def test_padding_of_a_layout_stays_below_twice_the_entries(name):
    """Catches: one long row that widens the layout of all others."""
    row, col, shape = PATTERNS[name]
    pattern = tsgu_jax.Pattern(row, col, shape)
    for layout in (pattern.entries.rows, pattern.entries.columns):
        assert isinstance(layout, Rows)
        places = sum(bin_.size for bin_ in layout.bins)
        assert pattern.nnz <= places < 2 * pattern.nnz
        assert max(bin_.shape[0] for bin_ in layout.bins) <= max(64, 4 * pattern.nnz / shape[0])


@pytest.mark.parametrize("name", ["diagonals", "wide band", "tall band"])
def test_a_matrix_of_few_diagonals_is_laid_out_by_them(name):
    """Catches: a stencil that pays for column indices; one long diagonal that is taken for many."""
    row, col, shape = PATTERNS[name]
    entries = tsgu_jax.Pattern(row, col, shape).entries
    for layout, offsets, rows in ((entries.rows, col - row, shape[0]), (entries.columns, row - col, shape[1])):
        assert isinstance(layout, Diagonals) == (np.unique(offsets).size * rows <= 1.5 * row.size)
    assert isinstance(entries.rows, Diagonals) or isinstance(entries.columns, Diagonals)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), max_size=12), st.randoms(use_true_random=False))
@settings(max_examples=25, deadline=None)
def test_any_coordinates_give_the_same_matrix_as_dense_assembly(entries, random):
    """Catches: a sort that leaves values behind, a repeated position that is overwritten."""
    entries = entries + random.sample(entries, len(entries) // 2)
    row, col = (np.array([entry[i] for entry in entries], int) for i in (0, 1))
    values = np.array([random.uniform(-1, 1) for _ in entries])
    with jax.enable_x64(True):
        A = tsgu_jax.SparseMatrix.from_coo(row, col, values, (5, 4))
        keys = row * 4 + col
        np.testing.assert_array_equal(np.asarray(A.pattern.row) * 4 + np.asarray(A.pattern.col), np.unique(keys))
        dense = dense_of(row, col, values, (5, 4))
        for other in (A, tsgu_jax.SparseMatrix.from_bcoo(A.to_bcoo()), tsgu_jax.SparseMatrix.from_bcoo(A.to_bcsr())):
            np.testing.assert_allclose(other.to_dense(), dense, atol=1e-14)


def test_products_are_differentiable_to_second_order():
    """Catches: a product whose derivative is that of its padding too."""
    row, col, shape = PATTERNS["wide"]
    rng = np.random.default_rng(2)
    values, x = jnp.asarray(rng.standard_normal(row.size)), jnp.asarray(rng.standard_normal((shape[1], 2)))

    def loss(product):
        return lambda v, x: (product(v, x) ** 3).sum()

    ours = loss(lambda v, x: tsgu_jax.SparseMatrix.from_coo(row, col, v, shape) @ x)
    truth = loss(lambda v, x: jnp.zeros(shape).at[row, col].add(v) @ x)
    for transform in (jax.grad, jax.hessian):
        for g, e in zip(
            jax.tree.leaves(transform(ours, (0, 1))(values, x)),
            jax.tree.leaves(transform(truth, (0, 1))(values, x)),
            strict=True,
        ):
            np.testing.assert_allclose(g, e, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", ["diagonals", "tall band", "uniform", "wide"])
@pytest.mark.parametrize("dtype", [float, complex])
def test_derivatives_of_a_product_are_those_of_the_dense_one(name, dtype):
    """Catches: a conjugate that JAX does not ask for, or a derivative by one factor where the other is meant."""
    row, col, shape = PATTERNS[name]
    rng = np.random.default_rng(6)

    def drawn(size):
        return jnp.asarray(rng.standard_normal(size).astype(dtype) * (1 + 2j if dtype is complex else 1))

    (values, dv), (x, dx) = ([drawn(size) for _ in range(2)] for size in (row.size, shape[1]))
    pattern = tsgu_jax.Pattern(row, col, shape)

    def ours(v, x):
        return tsgu_jax.SparseMatrix(pattern.gather(v), pattern) @ x

    def truth(v, x):
        return jnp.zeros(shape, v.dtype).at[row, col].add(v) @ x

    for mine, exact in zip(
        jax.tree.leaves(jax.jvp(ours, (values, x), (dv, dx))),
        jax.tree.leaves(jax.jvp(truth, (values, x), (dv, dx))),
        strict=True,
    ):
        np.testing.assert_allclose(mine, exact, rtol=1e-12, atol=1e-12)
    y, back = jax.vjp(ours, values, x)
    for mine, exact in zip(back(y), jax.vjp(truth, values, x)[1](y), strict=True):
        np.testing.assert_allclose(mine, exact, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["diagonals", "uniform"])
def test_a_product_is_transposed_in_x_without_a_scatter(name):
    """Catches: a backward pass through A @ x that takes several times the forward one."""
    row, col, shape = PATTERNS[name]
    A = tsgu_jax.SparseMatrix.from_coo(row, col, np.ones(row.size), shape)

    def backward(A, g):
        return jax.vjp(lambda x: A @ x, jnp.zeros(shape[1]))[1](g)

    def by_segments(A, g):
        entries = A.pattern.entries
        return jax.vjp(lambda x: _products.entrywise(A.values, x, entries), jnp.zeros(shape[1]))[1](g)

    g = jnp.ones(shape[0])
    assert "stablehlo.scatter" not in jax.jit(backward).lower(A, g).as_text()
    assert "stablehlo.scatter" in jax.jit(by_segments).lower(A, g).as_text()


def test_several_column_blocks_give_the_same_as_one(monkeypatch):
    """Catches: the last block of columns, which is narrower."""
    monkeypatch.setattr(_products, "_BLOCK", 8)
    c = case("bicgstab", columns=5)
    entries = tsgu_jax.Pattern(c.row, c.col, (c.n, c.n)).entries
    values = jnp.asarray(c.values(c.parameters))
    np.testing.assert_allclose(_products.entrywise(values, c.b, entries), c.dense(values) @ c.b, rtol=1e-12)
    got = jax.grad(lambda v: (_products.entrywise(v, c.b, entries) ** 2).sum())(values)
    np.testing.assert_allclose(got, jax.grad(lambda v: ((c.dense(v) @ c.b) ** 2).sum())(values), rtol=1e-11)


def padded(c, values):
    """The same matrix as a BCOO with repeated, unsorted and padding entries; a padding value is not a number."""
    row, col = np.concatenate([c.row, c.row[:3], [c.n, c.n]]), np.concatenate([c.col, c.col[:3], [c.n, c.n]])
    halved = np.asarray(values).copy()
    halved[:3] /= 2
    data = np.concatenate([halved, halved[:3], [np.nan, 1.0]])
    order = np.random.default_rng(4).permutation(row.size)
    indices = jnp.asarray(np.stack([row, col], 1)[order])
    return BCOO((jnp.asarray(data[order]), indices), shape=(c.n, c.n)), row[order] < c.n


@pytest.mark.parametrize("traced", [False, True])
def test_gradients_of_a_bcoo_skip_padding_and_reach_every_repeated_entry(traced):
    """Catches: a gradient written to padding, a NaN that leaks from it, a repeated entry with a share of the
    gradient."""
    c = case("gmres")
    A, counts = padded(c, c.values(c.parameters))

    def loss(A):
        return (tsgu_jax.solve(A, jnp.asarray(c.b), tsgu_jax.gmres, rtol=1e-13) ** 2).sum()

    gradient = sparse.grad(loss)
    got = (jax.jit(gradient) if traced else gradient)(A)
    dense = dense_of(*np.asarray(A.indices)[counts].T, np.asarray(A.data)[counts], A.shape)
    x = np.linalg.solve(dense, c.b)
    full = -np.outer(np.linalg.solve(dense.T, 2 * x), x)
    place = np.minimum(np.asarray(A.indices), c.n - 1)
    assert got.data.shape == A.data.shape
    np.testing.assert_allclose(got.data, np.where(counts, full[place[:, 0], place[:, 1]], 0), rtol=1e-9, atol=1e-12)


def test_the_pattern_of_index_arrays_seen_before_is_found_again():
    """Catches: sorting and laying out the indices at every call of a loop; an array written to in between."""
    c = case("gmres")
    A = c.bcoo(jnp.asarray(c.values(c.parameters)))
    first = tsgu_jax.SparseMatrix.from_bcoo(A).pattern
    assert tsgu_jax.SparseMatrix.from_bcoo(BCOO((2 * A.data, A.indices), shape=A.shape)).pattern is first
    row, values = c.row.copy(), np.ones(c.row.size)
    known = tsgu_jax.SparseMatrix.from_coo(row, c.col, values, (c.n, c.n))
    assert tsgu_jax.SparseMatrix.from_coo(row, c.col, values, (c.n, c.n)).pattern is known.pattern
    row[:] = row[::-1]
    changed = tsgu_jax.SparseMatrix.from_coo(row, c.col, values, (c.n, c.n))
    np.testing.assert_array_equal(changed.to_dense(), dense_of(row, c.col, values, (c.n, c.n)))


def test_a_matrix_of_scipy_is_not_rounded_where_64_bit_types_are_off():
    """Catches: double precision that becomes single without a word, integers among it."""
    with jax.enable_x64(False):
        for given in (sp.eye_array(2), sp.eye_array(2, dtype=complex), sp.csr_array(np.eye(2, dtype=int))):
            with pytest.raises(TypeError, match=r"A must have a dtype that JAX keeps; got \w+ with 64-bit types off"):
                tsgu_jax.SparseMatrix.from_scipy(given)
        single = tsgu_jax.SparseMatrix.from_scipy(sp.eye_array(2, dtype=np.float32))
    assert single.dtype == np.float32


def test_a_traced_matrix_does_not_become_one_of_scipy():
    """Catches: a tracer's own words."""
    A = tsgu_jax.SparseMatrix.from_scipy(sp.csr_array(np.diag([2.0, 4.0])))
    message = r"must be concrete to become one of SciPy; got a traced one\. Convert it outside of jit, grad and vmap\."

    def traced(A):
        A.to_scipy()
        return A.values.sum()

    for transform in (jax.jit, jax.vmap, jax.grad):
        with pytest.raises(TypeError, match=message):
            transform(lambda v: traced(A.with_values(v)))(jnp.ones((2, 2) if transform is jax.vmap else 2))
    with pytest.raises(TypeError, match=message):
        jax.jit(traced)(A)
    with pytest.raises(TypeError, match=r"values must have dtype float32, .*; got bfloat16"):
        A.with_values(A.values.astype(jnp.bfloat16)).to_scipy()


def test_a_matrix_of_scipy_may_be_read_inside_jit():
    """Catches: indices that are traced there, though they are known."""
    given = sp.csr_array(np.diag([2.0, 4.0]))

    @jax.jit
    def solution(b):
        A = tsgu_jax.SparseMatrix.from_scipy(given)
        assert not any(isinstance(index, jax.core.Tracer) for index in (A.pattern.row, A.pattern.col))
        return tsgu_jax.solve(A, b, tsgu_jax.direct)

    np.testing.assert_allclose(solution(jnp.ones(2)), [0.5, 0.25])


USES = {
    "is_symmetric": lambda A: A.pattern.is_symmetric,
    "transposition": lambda A: A.pattern.transposition,
    "T": lambda A: A.T.T,
    "auto": lambda A: tsgu_jax.solve(A, jnp.ones(3), tsgu_jax.auto),
    "amg": lambda A: tsgu_jax.precond.amg(A, max_coarse=2),
}


@pytest.mark.parametrize("use", USES)
def test_a_matrix_that_a_compiled_function_made_of_traced_indices_keeps_its_entries(use):
    """Catches: indices that are sorted when they are looked at, once they are known, under values that are not."""
    row, col = np.array([2, 1, 0, 2, 1, 3, 2]), np.array([2, 1, 0, 0, 1, 0, 1])  # unsorted, repeated, and padding
    values = np.array([10.0, 4.0, 5.0, 3.0, 4.0, 7.0, -1.0])
    dense = dense_of(row[row < 3], col[row < 3], values[row < 3], (3, 3))
    A = jax.jit(lambda i, v: tsgu_jax.SparseMatrix.from_bcoo(BCOO((v, i), shape=(3, 3))))(
        np.stack([row, col], 1), values
    )
    USES[use](A)
    np.testing.assert_array_equal(A.to_dense(), dense)
    np.testing.assert_array_equal(A.T.to_dense(), dense.T)
    np.testing.assert_array_equal(A.to_bcoo().todense(), dense)
    np.testing.assert_array_equal(A.to_scipy().toarray(), dense)
    assert not A.pattern.is_symmetric
    b = np.array([1.0, 2.0, 3.0])
    for x in (
        tsgu_jax.solve(A, b, tsgu_jax.direct),
        tsgu_jax.solve(A, b, tsgu_jax.gmres, M=tsgu_jax.precond.ilu(A)),
        tsgu_jax.triangular_solve(A, b, upper=False),
        tsgu_jax.lstsq(A, b),
    ):
        np.testing.assert_allclose(x, np.linalg.solve(dense, b), rtol=1e-7)
    got = jax.grad(lambda v: (tsgu_jax.triangular_solve(A.with_values(v), b, upper=False) ** 2).sum())(A.values)
    x = np.linalg.solve(dense, b)
    full = np.append(-np.outer(np.linalg.solve(dense.T, 2 * x), x), np.zeros((1, 3)), axis=0)
    np.testing.assert_allclose(got, full[row, col], rtol=1e-12)


def test_a_pattern_gathers_the_same_as_an_argument_of_a_compiled_function():
    """Catches: values left in the order that they were given in, since the pattern forgot it on the way."""
    row, col = np.array([1, 0, 1, 1]), np.array([1, 0, 0, 1])
    given = np.array([10.0, 5.0, 3.0, 4.0])
    for places in (slice(0, 3), slice(0, 4)):  # unsorted; with a repeated position too
        pattern = tsgu_jax.Pattern(row[places], col[places], (2, 2))
        dense = dense_of(row[places], col[places], given[places], (2, 2))

        def assembled(pattern, given):
            return tsgu_jax.SparseMatrix(pattern.gather(given), pattern)

        constant = jax.jit(lambda pattern, g=given[places]: assembled(pattern, g))
        for A in (
            assembled(pattern, jnp.asarray(given[places])),
            jax.jit(assembled)(pattern, given[places]),
            constant(pattern),
        ):
            np.testing.assert_array_equal(A.to_dense(), dense)
            again = A.pattern.gather(jnp.asarray(2 * given[places]))
            np.testing.assert_array_equal(A.with_values(again).to_dense(), 2 * dense)
