"""Preconditioners: what they are as dense matrices, transposed, in the methods, and what they refuse."""

import numpy as np
import pytest
import scipy.sparse as sp

from tests.contract import truth
from tests.contract.cases import RTOL, direction
from tests.contract.compare import assert_close, tolerance
from tests.contract.multigrid import cycle, eigenvalue, levels_of
from tests.contract.systems import BY_NAME, System, right_hand_side

pyamg = pytest.importorskip("pyamg", reason="needs pyamg")

SMALL = {"max_coarse": 3}  # so that a small matrix has several levels


def poisson(m, shift=0.0):
    """2-D Poisson with m^2 unknowns, with convection where ``shift`` is not 0: nonsymmetric."""
    line = sp.diags_array([-np.ones(m - 1) - shift, 2 * np.ones(m), -np.ones(m - 1) + shift], offsets=[-1, 0, 1])
    dense = sp.coo_array(sp.kron(sp.eye_array(m), line) + sp.kron(line, sp.eye_array(m)))
    return System("", dense.row, dense.col, dense.data, m * m, hermitian=shift == 0, definite=shift == 0)


def magnetic(m, phase=0.4):
    """A complex Hermitian positive definite relative of Poisson: hops along a row turn the phase."""
    hop = sp.diags_array([-np.exp(1j * phase) * np.ones(m - 1)], offsets=[1], shape=(m, m))
    line = sp.diags_array([-np.ones(m - 1), 2.0 * np.ones(m), -np.ones(m - 1)], offsets=[-1, 0, 1])
    turned = 2.1 * sp.eye_array(m) + hop + hop.conj().T
    A = sp.coo_array(sp.kron(sp.eye_array(m), turned) + sp.kron(line, sp.eye_array(m)))
    return System("", A.row, A.col, A.data, m * m, hermitian=True, definite=True)


def built(package, name, system, *args, layout="values", dtype=None, **kwargs):
    problem = package.Problem(system, np.zeros(system.n, system.values.dtype), layout, dtype)
    return package.preconditioner(name, problem.matrix(), *args, **kwargs)


def dense(package, M, dtype=np.float64):
    """M as a matrix, from its product with the identity."""
    return package.applied(M, np.eye(M.shape[0], dtype=dtype))


def condition(matrix):
    return np.linalg.cond(matrix) if matrix.size else 1.0


def assert_is(package, M, expected):
    """M, its transpose, and the transpose of that equal a dense matrix, on columns and on one vector."""
    dtype = expected.dtype
    tol = tolerance(condition(expected), dtype, 0)
    assert M.shape == expected.shape
    assert_close(dense(package, M, dtype), expected, tol, "M")
    assert_close(dense(package, M.T, dtype), expected.T, tol, "M.T")
    assert_close(dense(package, M.T.T, dtype), expected, tol, "M.T.T")
    if M.shape[0]:
        v = right_hand_side(BY_NAME["complex general"], None)[:1].real * np.arange(1, M.shape[0] + 1)
        assert_close(package.applied(M, v.astype(dtype)), expected @ v.astype(dtype), 10 * tol, "M v")
        three = np.random.default_rng(7).standard_normal((M.shape[0], 3)).astype(dtype)
        assert_close(package.applied(M, three), expected @ three, 10 * tol, "M on three columns")


@pytest.mark.parametrize(
    ("name", "layout"), [("complex general", "coo"), ("duplicates", "coo"), ("unsorted", "values"), ("general", "csr")]
)
def test_jacobi_is_the_inverse_of_the_diagonal(package, name, layout):
    """Catches: duplicates taken once, entries in the wrong order, a diagonal that is conjugated."""
    system = BY_NAME[name]
    assert_is(package, built(package, "jacobi", system, layout=layout), np.diag(1 / np.diag(system.dense)))


@pytest.mark.parametrize(("name", "block"), [("complex general", 5), ("unsorted", 6), ("general", 40)])
def test_block_jacobi_is_the_inverse_of_the_block_diagonal(package, name, block):
    """Catches: a last block that is dropped or padded into the result, a transpose of blocks alone or not at all."""
    system = BY_NAME[name]
    block_of = np.arange(system.n) // block
    expected = np.linalg.inv(np.where(block_of[:, None] == block_of, system.dense, 0))
    assert_is(package, built(package, "block_jacobi", system, block), expected)


@pytest.mark.parametrize("name", ["complex general", "zero diagonal", "duplicates", "no unknowns"])
def test_ilu_that_drops_nothing_is_the_inverse(package, name):
    """Catches: the factors of the transpose, or its conjugate; a right-hand side read in the wrong order."""
    system = BY_NAME[name]
    M = built(package, "ilu", system, layout="coo", drop_tol=0, fill_factor=50)
    assert_is(package, M, np.linalg.inv(system.dense))


@pytest.mark.parametrize("name", ["one unknown", "no unknowns"])
def test_the_smallest_matrices_are_inverted(package, name):
    """Catches: an empty index array, a coarsest level that is the first."""
    system = BY_NAME[name]
    for kind in ("jacobi", "block_jacobi", "ilu", "amg"):
        M = built(package, kind, system, *([3] if kind == "block_jacobi" else []))
        assert_is(package, M, np.linalg.inv(system.dense))


@pytest.mark.parametrize(("shift", "degree"), [(0.0, 1), (0.0, 3), (0.5, 2)])
def test_amg_is_the_v_cycle_of_the_textbook(package, shift, degree):
    """Catches: a residual that is not brought up to date, a coefficient of the smoother, a coarse correction added
    twice.

    What a cycle is: :mod:`tests.contract.multigrid`.
    """
    system = poisson(8, shift)
    levels = levels_of(system, "ruge_stuben", 8)
    assert len(levels.levels) >= 2
    for level in levels.levels:
        exact = np.abs(np.linalg.eigvals(level.A.toarray() / level.A.diagonal()[:, None])).max()
        assert 0.98 * exact <= eigenvalue(level) <= 2.5 * exact
    np.testing.assert_allclose(
        levels.coarse @ (levels.levels[-1].R @ levels.levels[-1].A @ levels.levels[-1].P),
        np.eye(len(levels.coarse)),
        atol=1e-10,
    )
    assert_is(package, built(package, "amg", system, degree=degree, max_coarse=8), cycle(levels, degree))


@pytest.mark.parametrize(
    ("example", "kind", "options"),
    [
        (poisson(6, 0.5), "smoothed_aggregation", {"degree": 2}),  # R is not the transpose of P
        (poisson(6, 0.5), "pairwise", {}),
        (magnetic(6), "root_node", {}),  # Hermitian: the transpose is the conjugate
        (BY_NAME["complex symmetric"], "smoothed_aggregation", {}),
    ],
    ids=["aggregation", "pairwise", "Hermitian", "complex symmetric"],
)
def test_the_transpose_of_amg_is_its_transpose(package, example, kind, options):
    """Catches: P and R that do not swap roles, matrices or the coarse inverse left untransposed, a conjugate."""
    system = example
    M = built(package, "amg", system, kind, **SMALL, **options)
    assert " 1 levels" not in repr(M)
    matrix = cycle(levels_of(system, kind, SMALL["max_coarse"]), options.get("degree", 1))
    assert_is(package, M, matrix)
    assert np.abs(matrix - matrix.T).max() > 1e-3 * np.abs(matrix).max() or system.name == "complex symmetric"


@pytest.mark.parametrize(
    ("example", "kind", "degree"),
    [
        (poisson(20), "ruge_stuben", 1),
        (poisson(20), "smoothed_aggregation", 2),
        (poisson(20), "root_node", 2),
        (magnetic(12), "smoothed_aggregation", 1),
    ],
    ids=["classical", "aggregation", "root node", "complex"],
)
def test_amg_is_hermitian_positive_definite_and_contracts_the_error(package, example, kind, degree):
    """Catches: a smoother of one side alone, which conjugate gradients cannot use; a coarse correction that does
    nothing."""
    system = example
    M = built(package, "amg", system, kind, degree=degree, max_coarse=10)
    matrix = dense(package, M, system.values.dtype)
    assert_close(matrix.conj().T, matrix, 1e-13, "M^H")
    assert np.linalg.eigvalsh(matrix).min() > 0
    error = np.eye(system.n) - matrix @ system.dense
    assert np.abs(np.linalg.eigvals(error)).max() < 0.5
    expected = cycle(levels_of(system, kind, 10), degree)
    assert_close(matrix, expected, tolerance(condition(expected), np.float64, 0), "M")
    three = right_hand_side(system, 3)
    assert_close(package.applied(M, three), expected @ three, 1e-10, "three columns")


def test_an_untransposed_preconditioner_would_not_do_in_the_adjoint(package):
    """Catches: M used as it is for the transposed system: on this matrix the adjoint takes several times the steps."""
    n = 60
    rng = np.random.default_rng(3)
    A = np.diag(np.logspace(0, 3, n)) + np.triu(rng.standard_normal((n, n)) * (rng.random((n, n)) < 0.2), 1) * 30
    row, col = np.nonzero(A)
    system = System("", row, col, A[row, col], n)
    flipped = System("", col, row, A[row, col], n)
    b, w = right_hand_side(system, None), right_hand_side(system, None, seed=4)
    cases = [("ilu", {"drop_tol": 1e-3}, 12), ("block_jacobi", {"block": 20}, 40)]
    for name, args, most in cases[: 1 if package.NAME == "jax" else 2]:  # which compiles for seconds
        M = built(package, name, system, **args)
        method = package.method("gmres")
        with package.record() as log:
            grads = package.Problem(system, b).gradients(w, method, M=M, rtol=1e-10, restart=60)
            if package.NAME == "torch":  # JAX would compile it for seconds, to learn the same of the matrix
                package.Problem(flipped, w).solve(method, M=M, rtol=1e-10, restart=60, maxiter=60 * n)
        assert [info.transposed for info in log[:2]] == [False, True]
        assert max(log[0].iterations, log[1].iterations) <= most, log
        assert package.NAME == "jax" or log[2].iterations >= 2 * log[1].iterations, log
        tol = tolerance(system.condition, np.float64, 1e-10, order=2)
        for got, expected in zip(grads, truth.gradients(system, b, w), strict=True):
            assert_close(got, expected, tol, "gradient")


@pytest.mark.parametrize(
    ("method", "system", "name", "args", "columns"),
    [
        ("linear_cg", BY_NAME["hermitian definite"], "amg", {"kind": "smoothed_aggregation", **SMALL}, None),
        ("minres", BY_NAME["badly scaled"], "block_jacobi", {"block": 4}, 3),
        ("bicgstab", poisson(5, 0.4), "ilu", {"drop_tol": 0.1}, None),
        ("gmres", poisson(5, 0.4), "amg", SMALL, 3),
    ],
    ids=["linear_cg", "minres", "bicgstab", "gmres"],
)
def test_every_method_takes_a_preconditioner_for_second_derivatives(package, method, system, name, args, columns):
    """Catches: a preconditioner that reaches the forward solve alone, or whose columns mix; more steps than without."""
    b, w = right_hand_side(system, columns), right_hand_side(system, columns, seed=4)
    M = built(package, name, system, **args)
    problem, solver = package.Problem(system, b), package.method(method)
    along = direction(system, b)
    second = problem.hessian_products(w, along, solver, M=M, rtol=RTOL)
    tol = tolerance(system.condition, np.float64, RTOL, order=4)
    for got, expected in zip(second, truth.hessian_products(system, b, w, along), strict=True):
        assert_close(got, expected, tol, "second derivative")
    with package.record() as log:
        problem.solve(solver, rtol=RTOL)
        x = problem.solve(solver, M=M, rtol=RTOL)
    assert log[1].iterations < log[0].iterations
    assert_close(x, truth.solution(system, b), tol, "x")


def test_a_batch_of_right_hand_sides_and_of_values_shares_a_preconditioner(package):
    """Catches: a callback, or a hierarchy, that does not know a leading dimension."""
    system = poisson(5, 0.4)
    b = right_hand_side(system, 3).T.copy()
    values = np.stack([system.values, 1.1 * system.values, system.values + 0.1 * (system.row == system.col)])
    problem, solver = package.Problem(system, b[0]), package.method("bicgstab")
    tol = tolerance(system.condition, np.float64, RTOL)
    x = problem.batched(None, b, solver, M=built(package, "amg", system, **SMALL), rtol=RTOL)
    both = problem.batched(values, b, solver, M=built(package, "ilu", system, drop_tol=0.1), rtol=RTOL)
    for index in range(3):
        own = System("", system.row, system.col, values[index], system.n)
        assert_close(x[index], np.linalg.solve(system.dense, b[index]), tol, "x")
        assert_close(both[index], np.linalg.solve(own.dense, b[index]), tol, "x of a batch of both")


def test_amg_takes_as_many_steps_on_a_fine_grid_as_on_a_coarse_one(package):
    """Catches: levels that are set up and not used: steps that grow with the grid, from 50 to 200."""
    steps = []
    for m in (16, 64):
        system = poisson(m)
        M = built(package, "amg", system, max_coarse=40)
        with package.record() as log:
            package.Problem(system, np.ones(system.n)).solve(package.method("linear_cg"), M=M)
        assert log[0].status == "converged"
        steps.append(log[0].iterations)
    assert steps[1] <= 1.5 * steps[0]
    assert steps[1] <= 10


def test_near_null_space_vectors_reach_amg(package):
    """Catches: B accepted and ignored: elasticity then takes many more steps. And blocks of unknowns."""
    A, B = pyamg.gallery.linear_elasticity((16, 16))
    A = sp.coo_array(A)
    system = System("", A.row, A.col, A.data, A.shape[0], hermitian=True, definite=True)
    steps = []
    for options in ({}, {"B": package.array(B), "block": 2}):
        M = built(package, "amg", system, "smoothed_aggregation", max_coarse=20, **options)
        with package.record() as log:
            package.Problem(system, np.ones(system.n)).solve(package.method("linear_cg"), M=M)
        steps.append(log[0].iterations)
    assert steps[1] < 0.7 * steps[0]


def test_precision_follows_the_matrix_and_adapts_to_the_system(package):
    """Catches: single precision that quietly becomes double; a real M that a complex system cannot use."""
    system = poisson(5)
    single = np.float32
    M = built(package, "amg", system, dtype=single, **SMALL)
    assert "float32" in str(M.dtype)
    assert "float32" in str(package.applied(M, np.ones(25, single)).dtype)
    shifted = System("", system.row, system.col, system.values + 0.1j * (system.row == system.col), 25)
    b = right_hand_side(shifted, None)
    block = np.arange(25) // 4
    inverses = {
        "jacobi": ({}, np.diag(1 / np.diag(system.dense))),
        "block_jacobi": ({"block": 4}, np.linalg.inv(np.where(block[:, None] == block, system.dense, 0))),
        "ilu": ({"drop_tol": 0, "fill_factor": 50}, np.linalg.inv(system.dense)),
        "amg": (SMALL, cycle(levels_of(system, "ruge_stuben", SMALL["max_coarse"]), 1)),
    }
    for name, (args, inverse) in inverses.items():
        M = built(package, name, system, **args)
        assert_close(package.applied(M, b), inverse @ b, 1e-12, name)
        if name == "amg" or package.NAME == "torch":  # JAX compiles for seconds
            x = package.Problem(shifted, b).solve(package.method("bicgstab"), M=M, rtol=RTOL)
            assert_close(x, truth.solution(shifted, b), tolerance(shifted.condition, np.float64, RTOL), name)
        M = built(package, name, shifted, *(["smoothed_aggregation"] if name == "amg" else []), **args)
        with pytest.raises(TypeError, match="M must be real"):
            package.Problem(system, b.real).solve(package.method("gmres"), M=M)


def with_entry(system, i, value):
    dense = system.dense.copy()
    dense[i, i] = value
    row, col = np.nonzero(dense)
    return System("", row, col, dense[row, col], system.n)


def test_what_cannot_be_inverted_is_refused_by_its_place(package):
    """Catches: a division by zero that reaches the solve as NaN, or a remedy that does not say where."""
    poisson25 = BY_NAME["poisson"]
    with pytest.raises(ValueError, match="zero on its diagonal for jacobi; got 1, the first in row 7"):
        built(package, "jacobi", with_entry(poisson25, 7, 0.0))
    with pytest.raises(ValueError, match="zero on its diagonal for amg; got 1, the first in row 3"):
        built(package, "amg", with_entry(poisson25, 3, 0.0))
    matrix = np.kron(np.eye(4), np.array([[0.1, 0.3], [0.2, 0.5]]))[:7, :7]
    matrix[2:4, 2:4] = [[0.1, 0.3], [0.2, 0.6]]  # singular but for rounding
    row, col = np.nonzero(matrix)
    singular = System("", row, col, matrix[row, col], 7)
    with pytest.raises(ValueError, match="got 1 singular, the first is block 1, rows 2 to 3"):
        built(package, "block_jacobi", singular, 2)
    scaled = np.outer([1e-150, 1.0, 1e100, 1e-20], [1e-10, 1e20, 1.0, 1e30]) * (np.eye(4) + np.eye(4, k=1))
    row, col = np.nonzero(scaled)
    M = built(package, "block_jacobi", System("", row, col, scaled[row, col], 4), 2)  # badly scaled is not singular
    assert np.isfinite(dense(package, M)).all()
    with pytest.raises(ValueError, match=r"for ilu; got a pattern of structural rank 1 for 2 .*Lower drop_tol"):
        built(package, "ilu", System("", np.array([0, 0]), np.array([0, 1]), np.ones(2), 2))
    with pytest.raises(ValueError, match="incomplete factors for ilu; got a pattern of structural rank 0 for 2"):
        built(package, "ilu", System("", np.array([], int), np.array([], int), np.ones(0), 2))


def test_an_argument_that_does_not_fit_is_refused(package):
    """Catches: an option accepted and ignored, a smoother of PyAMG that is not ours, a matrix of another size."""
    real, complex_ = BY_NAME["poisson"], BY_NAME["hermitian definite"]
    refusals = [
        (ValueError, "block must be an integer >= 1; got 0", "block_jacobi", real, (0,), {}),
        (ValueError, "drop_tol must be a number with 0 <= drop_tol <= 1; got 2", "ilu", real, (), {"drop_tol": 2}),
        (
            ValueError,
            "fill_factor must be a number with fill_factor >= 1; got nan",
            "ilu",
            real,
            (),
            {"fill_factor": np.nan},
        ),
        (ValueError, "kind must be one of ruge_stuben, .*; got 'gmg'", "amg", real, ("gmg",), {}),
        (ValueError, "degree must be an integer >= 1; got 0", "amg", real, (), {"degree": 0}),
        (ValueError, "block must divide the 25 unknowns", "amg", real, ("pairwise",), {"block": 2}),
        (TypeError, "block must be 1 for amg of kind ruge_stuben", "amg", real, (), {"block": 5}),
        (TypeError, "A must be real for amg of kind ruge_stuben", "amg", complex_, (), {}),
        (TypeError, "accepts the keyword arguments .*; got presmoother", "amg", real, (), {"presmoother": "jacobi"}),
        (TypeError, "accepts the keyword arguments .*; got B", "amg", real, (), {"B": np.ones((25, 1))}),
    ]
    for error, match, name, system, args, kwargs in refusals:
        with pytest.raises(error, match=match):
            built(package, name, system, *args, **kwargs)
    M = built(package, "jacobi", real)
    with pytest.raises(ValueError, match=r"M must be a \(24, 24\) matrix.*; got \(25, 25\)"):
        package.Problem(complex_, right_hand_side(complex_, None)).solve(package.method("gmres"), M=M)
    with pytest.raises(ValueError, match=r"v must be .* shape \(25,\) or \(25, k\); got \(24,\)"):
        package.applied(M, np.ones(24))
    bad = System("", real.row, real.col, np.where(real.row == 2, np.nan, real.values), 25)
    for name, args in (("jacobi", ()), ("block_jacobi", (2,)), ("ilu", ()), ("amg", ())):
        with pytest.raises(ValueError, match="A must be finite; got 4 non-finite"):
            built(package, name, bad, *args)


def test_the_matrix_is_left_as_it_was(package):
    """Catches: set-up that works in place on index arrays that belong to the pattern: other entries from then on."""
    system = poisson(5)
    assert np.count_nonzero(system.values == 0)  # stored zeros, which the set-up drops
    problem = package.Problem(system, np.zeros(25))
    A = problem.matrix(package.array(system.values))
    for name, args in (("amg", ["smoothed_aggregation"]), ("ilu", []), ("amg", [])):
        package.preconditioner(name, A, *args)
        np.testing.assert_array_equal(np.asarray(A.to_dense()), system.dense)


def test_amg_is_reproducible_and_leaves_the_random_numbers_of_numpy_alone(package):
    """Catches: levels that differ from run to run, or a seed that the user did not set."""
    system = poisson(12)
    np.random.seed(5)
    expected = np.random.rand(4)
    np.random.seed(5)
    first = dense(package, built(package, "amg", system, "smoothed_aggregation", max_coarse=10))
    np.testing.assert_array_equal(np.random.rand(4), expected)
    again = dense(package, built(package, "amg", system, "smoothed_aggregation", max_coarse=10))
    np.testing.assert_array_equal(first, again)


def test_pyamg_that_is_missing_is_named_with_its_extra(package, monkeypatch):
    """Catches: a ModuleNotFoundError for a name that the user has never heard of."""
    import sys

    monkeypatch.setitem(sys.modules, "pyamg", None)
    with pytest.raises(ImportError, match=r'pip install "tsgu\[amg\]"'):
        built(package, "amg", BY_NAME["poisson"])
