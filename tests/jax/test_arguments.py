"""Solver callables, argument errors and precision."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.sparse import BCOO, CSR
from jax.scipy.sparse import linalg

import tsgu_jax
from tests.contract.systems import METHODS
from tests.jax.cases import case
from tsgu_jax._program import _host


@pytest.fixture
def system():
    c = case("gmres")
    return c, jnp.asarray(c.values(c.parameters)), jnp.asarray(c.b)


@pytest.mark.parametrize("solver", [linalg.gmres, linalg.bicgstab])
@pytest.mark.parametrize("kind", ["bcoo", "bcsr"])
def test_the_solvers_of_jax_give_right_gradients_for_a_nonsymmetric_matrix(system, solver, kind):
    """Catches: the forward solver applied to A in the adjoint: off by a third; a tuple result; BCSR, which has no
    .T."""
    c, values, b = system

    def ours(v, b):
        A = c.bcoo(v) if kind == "bcoo" else c.matrix(v).to_bcsr()
        return (tsgu_jax.solve(A, b, solver, tol=1e-13) ** 2).sum()

    got = jax.jit(jax.grad(ours, (0, 1)))(values, b)
    for g, e in zip(got, jax.grad(lambda v, b: (c.truth(v, b) ** 2).sum(), (0, 1))(values, b), strict=True):
        np.testing.assert_allclose(g, e, rtol=1e-8, atol=1e-10)


def test_a_solver_that_does_not_solve_is_reported_with_its_name(system):
    """Catches: a foreign solver that stops early and says so only in a number that nobody reads."""
    c, values, b = system

    def lazy(A, B):
        return B

    with pytest.warns(tsgu_jax.ConvergenceWarning, match="lazy on the forward system: residual above verify"):
        tsgu_jax.solve(c.bcoo(values), b, lazy)
    tsgu_jax.solve(c.bcoo(values), b, lazy, verify=None)


@pytest.mark.parametrize("jit", [False, True])
def test_a_preconditioner_that_cannot_be_transposed_is_refused_where_it_would_be_needed(system, jit):
    """Catches: the adjoint preconditioned with M instead of M^T: slow, or another answer."""
    c, values, b = system
    scale = 1 / np.diag(c.dense(values))

    def solution(v, M):
        return tsgu_jax.bicgstab(c.matrix(v), b, M=M, rtol=1e-12)

    def bare(r):
        return _host.call("a function of the host", lambda r: scale * r, r, r, vmap_method="sequential")

    np.testing.assert_allclose(solution(values, bare), c.truth(values, b), rtol=1e-9)
    loss = (jax.jit if jit else lambda f: f)(lambda v: solution(v, bare).sum())
    with pytest.raises(TypeError, match="M must have a transpose where bicgstab is differentiated"):
        jax.grad(loss)(values)
    rng = np.random.default_rng(0)
    M = np.diag(scale) + 0.01 * rng.standard_normal((c.n, c.n))
    got = jax.grad(lambda v: solution(v, M).sum())(values)
    np.testing.assert_allclose(got, jax.grad(lambda v: c.truth(v, b).sum())(values), rtol=1e-8)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda c, A, b: (A.todense(), b), TypeError, "A must be BCOO or BCSR; got layout dense"),
        (lambda c, A, b: (CSR.fromdense(A.todense()), b), TypeError, "A must be BCOO or BCSR; got layout CSR"),
        (lambda c, A, b: (3.0, b), ValueError, "A must be a BCOO, a BCSR or a SparseMatrix; got float"),
        (lambda c, A, b: (A[:, :4], b), ValueError, r"A must be square, \(n, n\); got \(6, 4\) in layout BCOO"),
        (lambda c, A, b: (A, b[:4]), ValueError, r"B must have shape \(6,\) or \(6, k\) to match A; got \(4,\)"),
        (lambda c, A, b: (A, [1.0]), ValueError, "B must be a dense jax.Array or numpy.ndarray; got list"),
        (lambda c, A, b: (A, A), TypeError, "B must be dense; got layout BCOO"),
        (lambda c, A, b: (A, b.astype(int)), TypeError, "B must have dtype float32, float64, complex64 or complex128"),
        (lambda c, A, b: (A, b.at[0].set(jnp.nan)), ValueError, "B must be finite; got 1 non-finite of 6 entries"),
        (lambda c, A, b: (A * jnp.inf, b), ValueError, "A must be finite; got"),
    ],
)
def test_bad_input_is_refused_with_what_arrived(system, change, error, message):
    """Catches: an error from deep inside, or none."""
    c, values, b = system
    with pytest.raises(error, match=message):
        tsgu_jax.solve(*change(c, c.bcoo(values), b), tsgu_jax.gmres)


def test_a_string_is_refused_with_the_remedy(system):
    """Catches: a method by name, which is no callable."""
    c, values, b = system
    with pytest.raises(TypeError, match=r"Pass the method itself, like solve=tsgu_jax\.gmres"):
        tsgu_jax.solve(c.bcoo(values), b, "gmres")


def test_different_dtypes_are_promoted_with_a_warning_and_gradients_keep_their_own(system):
    """Catches: a silent cast, or a gradient in the dtype of the other input."""
    c, values, b = system
    single = values.astype(jnp.float32)
    with pytest.warns(UserWarning, match="A and B have different dtypes, float32 and float64"):
        x, back = jax.vjp(lambda v, b: tsgu_jax.direct(c.bcoo(v), b), single, b)
    assert x.dtype == jnp.float64
    assert [g.dtype for g in back(x)] == [jnp.float32, jnp.float64]


def test_double_precision_from_numpy_is_refused_where_it_would_be_lost():
    """Catches: a silent float32: eight digits gone."""
    with jax.enable_x64(False):
        A = BCOO.fromdense(jnp.eye(3))
        for dtype in (np.float64, np.complex128):
            with pytest.raises(TypeError, match="jax_enable_x64"):
                tsgu_jax.solve(A, np.ones(3, dtype))
        with pytest.raises(TypeError, match="values must have a dtype that JAX keeps"):
            tsgu_jax.SparseMatrix.from_coo(np.arange(3), np.arange(3), np.ones(3), (3, 3))


@pytest.mark.parametrize("name", METHODS)
def test_single_precision_works_with_64_bit_types_off(name):
    """Catches: a constant or a counter in 64 bits that only exists with x64."""
    c = case(name)
    with jax.enable_x64(False):
        values, b = jnp.asarray(np.float32(c.values(c.parameters))), jnp.asarray(np.float32(c.b))

        def loss(v, b):
            return tsgu_jax.solve(c.matrix(v), b, getattr(tsgu_jax, name)).sum()

        got = jax.jit(jax.grad(loss, (0, 1)))(values, b)
        assert [g.dtype for g in got] == [jnp.float32] * 2
    dense = np.asarray(c.dense(c.values(c.parameters)))
    lam = np.linalg.solve(dense.T, np.ones(c.n))
    np.testing.assert_allclose(got[1], lam, rtol=1e-3, atol=1e-4)
    full = -np.outer(lam, np.linalg.solve(dense, c.b))
    np.testing.assert_allclose(got[0], full[c.row, c.col], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("shape", [(0,), (0, 3), (4, 0)])
def test_an_empty_system_has_an_empty_solution(shape):
    """Catches: a reduction over nothing."""
    n = shape[0]
    A = tsgu_jax.SparseMatrix.from_coo(np.arange(n), np.arange(n), np.ones(n), (n, n))
    assert tsgu_jax.solve(A, np.zeros(shape)).shape == shape


def test_importing_loads_no_torch_and_changes_no_setting():
    """Catches: an import that turns 64-bit types on, picks a platform, or pulls in the other framework."""
    program = (
        "import sys, warnings, jax, scipy.sparse; before = dict(jax.config.values); filters = list(warnings.filters); "
        "import tsgu_jax; assert dict(jax.config.values) == before; assert warnings.filters == filters; "
        "assert 'torch' not in sys.modules; print('untouched')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "untouched\n"


def test_a_missing_jax_names_the_extra():
    """Catches: a bare ModuleNotFoundError."""
    program = "import sys; sys.modules['jax'] = None; import tsgu_jax"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert 'pip install "tsgu[jax]"' in done.stderr


@pytest.mark.parametrize("name", ["linear_cg", "gmres"])
@pytest.mark.parametrize("k", [1, 7, 20])
def test_callables_see_all_columns_of_a_block(name, k):
    """Catches: a block of the columns that are solved together, padded or single, for a callable that is promised (n,
    k)."""
    c = case("linear_cg", columns=k)
    dense = c.dense(jnp.asarray(c.values(c.parameters)))
    seen = {"A": set(), "M": set()}

    def multiply(x):
        seen["A"].add(x.shape)
        return dense @ x

    def precondition(r):
        seen["M"].add(r.shape)
        return r / 4

    x = getattr(tsgu_jax, name)(multiply, jnp.asarray(c.b), M=precondition, rtol=1e-12)
    np.testing.assert_allclose(x, np.linalg.solve(dense, c.b), rtol=0, atol=1e-9)
    assert seen == {"A": {(c.n, k)}, "M": {(c.n, k)}}
