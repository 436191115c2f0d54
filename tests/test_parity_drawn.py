"""The two packages against each other on drawn patterns, values and scales, and on matrices from practice."""

from functools import cache

import numpy as np
import pytest
import scipy.io
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from tsgu._core.methods import _registry

pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("jax", reason="needs jax")

import jax
import jax.numpy as jnp
import torch
from jax.experimental.sparse import BCOO

import tsgu
import tsgu_jax
from tests.contract.compare import assert_close, tolerance
from tests.contract.problems import accuracy
from tests.contract.systems import System
from tests.parity import Solver, compare

ENTRIES, SIZES = 24, (1, 4, 7)
"""A few fixed sizes, so that JAX compiles a few times and not for every example."""

RTOL = {np.dtype(np.float64): 1e-12, np.dtype(np.float32): 1e-6}


@st.composite
def systems(draw):
    """Row, column, values and right-hand side of a diagonally dominant system, with repeats and of any scale."""
    n, dtype = draw(st.sampled_from(SIZES)), np.dtype(draw(st.sampled_from(["float64", "complex128", "float32"])))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    off = draw(st.integers(0, ENTRIES - 2 * n))
    row = np.concatenate([np.arange(n), np.arange(n), rng.integers(0, n, off)])
    col = np.concatenate([np.arange(n), np.arange(n), rng.integers(0, n, off)])
    values = rng.standard_normal(row.size) + 1j * rng.standard_normal(row.size)
    values[: 2 * n] = (3 + rng.random(2 * n)) * (1 + off / n) * np.tile(rng.choice([-1, 1], n), 2)
    b = rng.standard_normal((n, 2)) + 1j * rng.standard_normal((n, 2))
    power = 12 if np.finfo(dtype).eps < 1e-10 else 6
    scales = [10.0 ** draw(st.integers(-power, power)) for _ in range(2)]
    order = rng.permutation(row.size)
    values, b = (
        np.ascontiguousarray(a if dtype.kind == "c" else a.real, dtype)
        for a in (scales[0] * values[order], scales[1] * b)
    )
    return row[order], col[order], values, b


@cache
def compiled(method, n):
    @jax.jit
    def run(data, indices, b, w):
        def solution(data, b):
            A = BCOO((data, indices), shape=(n, n))
            rtol = {"rtol": RTOL[np.dtype(data.real.dtype)]} if _registry.method(method).iterative else {}
            return tsgu_jax.solve(A, b, getattr(tsgu_jax, method), **rtol)

        x, back = jax.vjp(solution, data, b)
        return x, *back(w.conj())

    return run


def in_jax(method, row, col, values, b, w):
    n, extra = b.shape[0], ENTRIES - values.size
    indices = np.concatenate([np.stack([row, col], 1), np.full((extra, 2), n)]).astype(np.int32)
    data = np.concatenate([values, np.zeros(extra, values.dtype)])
    x, values_bar, b_bar = (np.asarray(a) for a in compiled(method, n)(data, indices, b, w))
    return x, values_bar[: values.size].conj(), b_bar.conj()


def in_torch(method, row, col, values, b, w):
    place = torch.from_numpy(np.stack([row, col]))
    leaf, b = torch.tensor(values, requires_grad=True), torch.tensor(b, requires_grad=True)
    A = torch.sparse_coo_tensor(place, leaf, (b.shape[0],) * 2, check_invariants=False)
    rtol = {"rtol": RTOL[np.dtype(values.real.dtype)]} if _registry.method(method).iterative else {}
    x = tsgu.sparse_generic_solve(A, b, getattr(tsgu, method), **rtol)
    return [a.detach().resolve_conj().numpy() for a in (x, *torch.autograd.grad(x, (leaf, b), torch.tensor(w)))]


@pytest.mark.parametrize("method", ["direct", "gmres"])
@given(system=systems())
@settings(max_examples=40, deadline=None)
def test_drawn_systems_have_the_same_solutions_and_gradients(method, system):
    """Catches: an absolute threshold, a repeat that counts once, a conversion that loses the order."""
    row, col, values, b = system
    dense = np.zeros((b.shape[0],) * 2, np.result_type(values, np.complex128))
    np.add.at(dense, (row, col), values)
    dtype = np.dtype(values.real.dtype)
    w = np.random.default_rng(1).standard_normal(b.shape).astype(values.dtype)
    with jax.enable_x64(True):
        ours = in_jax(method, row, col, values, b, w)
        jax.effects_barrier()
    theirs = in_torch(method, row, col, values, b, w)
    tol = tolerance(float(np.linalg.cond(dense)), dtype, RTOL[dtype], order=2)
    for name, got, expected in zip(("solution", "gradient of values", "gradient of b"), ours, theirs, strict=True):
        assert got.dtype == expected.dtype == values.dtype
        assert_close(got, expected, tol, name)


LEAST_SQUARES = Solver(
    lambda A, b: tsgu_jax.lstsq(A, b, atol=1e-13, btol=1e-13, conlim=0.0),
    lambda A, b: tsgu.sparse_generic_lstsq(A, b, atol=1e-13, btol=1e-13, conlim=0.0),
)


@given(
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, 2)), max_size=14),
    st.tuples(st.integers(-12, 12), st.integers(-12, 12)),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=30, deadline=None)
def test_drawn_least_squares_have_the_same_solutions_and_gradients(entries, powers, seed):
    """Catches: empty rows, repeats and scales that one package handles in another way."""
    rng = np.random.default_rng(seed)
    place = np.array([(0, 0), (1, 1), (2, 2), *entries]).T
    values = np.concatenate([5 + rng.random(3), rng.uniform(-1, 1, len(entries))]) * 10.0 ** powers[0]
    problem = System("drawn", *place, values, 3, m=7)
    b, w = 10.0 ** powers[1] * rng.standard_normal((7, 2)), rng.standard_normal((3, 2))
    along = np.zeros_like(values), np.zeros_like(b)
    with jax.enable_x64(True):
        compare(LEAST_SQUARES, problem, b, w, along, accuracy(problem, order=4), second=False)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), max_size=12), st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_drawn_rectangular_patterns_have_the_same_order_and_products(entries, seed):
    """Catches: empty rows and columns, repeats, no entry at all: values in another order than in the other package."""
    row, col = (np.array([entry[i] for entry in entries], int) for i in (0, 1))
    rng = np.random.default_rng(seed)
    values, x = rng.standard_normal(row.size), rng.standard_normal((4, 2))
    place = [torch.from_numpy(index) for index in (row, col)]
    ours = tsgu.SparseMatrix.from_coo(*place, torch.from_numpy(values), (6, 4))
    with jax.enable_x64(True):
        theirs = tsgu_jax.SparseMatrix.from_coo(row, col, values, (6, 4))
        for name in ("row", "col", "transposition"):
            np.testing.assert_array_equal(getattr(ours.pattern, name).numpy(), getattr(theirs.pattern, name))
        np.testing.assert_allclose(ours.values.numpy(), theirs.values, rtol=1e-14)
        np.testing.assert_allclose((ours @ torch.from_numpy(x)).numpy(), _product(theirs, x), rtol=1e-13, atol=1e-14)


def _product(A, x):
    """By the traced indices of a BCOO, padded to one length so that it compiles once."""
    extra = 12 - A.nnz
    indices = np.concatenate([np.stack([A.pattern.row, A.pattern.col], 1), np.full((extra, 2), 6)])
    return _compiled_product(np.concatenate([A.values, np.zeros(extra)]), indices.astype(np.int32), x)


@jax.jit
def _compiled_product(data, indices, x):
    return tsgu_jax.SparseMatrix.from_bcoo(BCOO((data, indices), shape=(6, 4))) @ x


def agree(A, method, seed=0):
    """Solution and gradients of both packages on one matrix, by the residual that each one reaches."""
    A = sp.csr_array(A)
    A.sum_duplicates()
    rng = np.random.default_rng(seed)
    dtype = np.result_type(A.dtype, np.float64)
    b, w = rng.standard_normal((2, A.shape[0])).astype(dtype)
    coo = A.tocoo()
    ours = in_torch(method, coo.row, coo.col, coo.data.astype(dtype), b, w)
    with jax.enable_x64(True):
        indices = np.stack([coo.row, coo.col], 1)

        def solution(data, b):
            return tsgu_jax.solve(BCOO((data, indices), shape=A.shape), b, getattr(tsgu_jax, method))

        x, back = jax.vjp(solution, jnp.asarray(coo.data.astype(dtype)), jnp.asarray(b))
        theirs = [np.asarray(a) for a in (x, *back(jnp.asarray(w.conj())))]
        jax.effects_barrier()
    condition = float(np.linalg.cond(A.toarray())) if A.shape[0] <= 1000 else 1e6
    tol = tolerance(condition, np.float64, 0.0, order=2)
    for name, got, expected in zip(("solution", "gradient of values", "gradient of b"), theirs, ours, strict=True):
        assert_close(got if name == "solution" else got.conj(), expected, tol, name)


@pytest.mark.parametrize("name", ["bcsstk01.mtx", "west0067.mtx", "young1c.mtx", "olm1000.mtx"])
def test_real_matrices_have_the_same_solutions_and_gradients(real_matrix, name):
    """Catches: a scale, a symmetry or a complex number of practice that the catalogue lacks."""
    agree(scipy.io.mmread(real_matrix(name)), "direct")


@pytest.mark.parametrize("name", ["airfoil", "knot", "helmholtz_2D", "recirc_flow"])
def test_matrices_of_the_pyamg_gallery_have_the_same_solutions_and_gradients(name):
    """Catches: the same, for meshes, graphs, waves and flow."""
    gallery = pytest.importorskip("pyamg.gallery", reason="needs pyamg")
    agree(gallery.load_example(name)["A"], "direct")
