"""PARDISO beside SuperLU: types of matrix, replaced pivots, memory, threads; and what is said where it is absent."""

import sys
import threading
import time
from functools import cache

import numpy as np
import pytest
import scipy.sparse as sp

from tests.contract.compare import assert_close, tolerance
from tests.contract.systems import BY_NAME, SYSTEMS, right_hand_side
from tsgu._core.factors import _factorisation, _mkl, _pardiso, _rslab, _superlu
from tsgu._core.factors._factorisation import Factorisation, SingularMatrixError, library_for
from tsgu._core.pattern import _symbolic

DTYPES = [np.float32, np.float64, np.complex64, np.complex128]
SINGLE = {np.dtype(np.float64): np.float32, np.dtype(np.complex128): np.complex64}

needs_pardiso = pytest.mark.skipif(not _mkl.installed(), reason="needs pypardiso")


def symbolic_of(A):
    A.sort_indices()
    return _symbolic.from_csr(A.indptr, A.indices, A.shape)


def factored(A, library="pardiso"):
    A = sp.csr_array(A)
    return Factorisation(symbolic_of(A), A.data, library)


def raw_factors(A, mtype):
    A = sp.csr_array(A)
    return _pardiso.PardisoFactors(A.data, symbolic_of(A), mtype)


def laplacian(m):
    second = sp.diags_array([-np.ones(m - 1), 2 * np.ones(m), -np.ones(m - 1)], offsets=[-1, 0, 1])
    eye = sp.eye_array(m)
    return sp.csr_array(sp.kron(eye, second) + sp.kron(second, eye))


def without_diagonal(diagonal, seed):
    """Symmetric, of condition number 30 to 300, with a diagonal that is no pivot."""
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((40, 40)) * (rng.random((40, 40)) < 0.3)
    A = A + A.T
    np.fill_diagonal(A, diagonal)
    return A


@pytest.fixture
def made(monkeypatch):
    """The types of the factors made by PARDISO, in turn, and "superlu" for one of SuperLU's."""
    types = []
    original, splu = _pardiso.PardisoFactors.__init__, _superlu.splu

    def pardiso(self, values, symbolic, mtype):
        types.append(mtype)
        original(self, values, symbolic, mtype)

    monkeypatch.setattr(_pardiso.PardisoFactors, "__init__", pardiso)
    monkeypatch.setattr(_superlu, "splu", lambda A, **options: types.append("superlu") or splu(A, **options))
    return types


@needs_pardiso
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("precision", ["double", "single"])
@pytest.mark.parametrize("system", SYSTEMS, ids=str)
def test_both_systems_are_solved_by_the_same_factors(made, system, precision, transposed):
    """Catches: a conjugate transpose where the transpose is meant, the wrong triangle, other factors for the
    adjoint."""
    dtype = system.values.dtype if precision == "double" else SINGLE[system.values.dtype]
    b = right_hand_side(system, 3).astype(dtype)
    F = factored(system.dense.astype(dtype))
    F.solve(b, not transposed)
    x, columns = F.solve(b, transposed)
    assert x.dtype == dtype
    exact = np.linalg.solve(system.dense.T if transposed else system.dense, b)
    assert_close(x, exact, tolerance(system.condition, dtype, 0), "x")
    assert {column.status for column in columns} <= {"converged"}
    assert len(made) == (system.n > 0)
    assert F.library == ("pardiso" if system.n else None)


@needs_pardiso
def test_the_type_of_the_matrix_follows_from_its_values(made):
    """Catches: LU factors of a symmetric matrix, twice the work; symmetric ones where the pattern alone is
    symmetric."""
    names = {
        "poisson": [2],
        "indefinite": [-2],
        "hermitian definite": [4],
        "hermitian indefinite": [-4],
        "complex symmetric": [6],
        "convection": [11],
        "general": [11],
        "complex general": [13],
    }
    for name, types in names.items():
        made.clear()
        factored(BY_NAME[name].dense)
        assert made == types, name


@needs_pardiso
@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
def test_a_positive_diagonal_is_not_enough_to_be_definite(made, dtype):
    """Catches: the failure of Cholesky's method on an indefinite matrix taken for a failure of the solve."""
    A = laplacian(6).toarray().astype(dtype) - 2 * np.eye(36)
    if dtype == np.complex128:
        phases = np.exp(1j * np.arange(36))
        A = phases[:, None] * A * phases.conj()
        A = (A + A.conj().T) / 2
    b = np.ones(36, dtype)
    F = factored(A)
    x, columns = F.solve(b, True)
    assert made == ([2, -2] if dtype == np.float64 else [4, -4])
    assert_close(x, np.linalg.solve(A.T, b), tolerance(np.linalg.cond(A), np.float64, 0), "x")
    assert columns[0].status == "converged"


@needs_pardiso
@pytest.mark.parametrize(("of", "mtype"), [("indefinite", -2), ("hermitian indefinite", -4), ("complex symmetric", 6)])
def test_a_diagonal_that_is_not_stored_is_zero(made, of, mtype):
    """Catches: PARDISO asks for each diagonal entry of a symmetric matrix, though not each of its releases minds."""
    A = BY_NAME[of].dense.copy()
    left_out = [0, 3, 7]
    A[left_out, left_out] = 0
    rows = sp.csr_array(A)
    assert np.count_nonzero(A.diagonal()) < A.shape[0]
    assert 0 not in rows.data
    b = np.arange(1.0, A.shape[0] + 1).astype(A.dtype)
    F = factored(rows)
    indptr, indices = F._factors._pardiso._index
    np.testing.assert_array_equal(indices[indptr[:-1]], np.arange(A.shape[0]))
    x, _ = F.solve(b, True)
    assert made == [mtype]
    assert_close(x, np.linalg.solve(A.T, b), tolerance(np.linalg.cond(A), np.float64, 1e-12), "x")


@needs_pardiso
@pytest.mark.parametrize("transposed", [False, True])
def test_pivots_that_ruin_the_residual_are_not_believed(made, transposed):
    """Catches: symmetric factors with tiny pivots on the diagonal: a residual of thousands, and no pivot replaced."""
    A, b = without_diagonal(1e-17, seed=1), np.ones(40)
    raw = raw_factors(A, -2)
    assert np.linalg.norm(b - A @ raw.solve(b, transposed)) > 1e-6 * np.linalg.norm(b)
    assert raw.perturbed == 0
    made.clear()
    F = factored(A)
    assert made == [2, -2]
    x, columns = F.solve(b, transposed)
    assert_close(x, np.linalg.solve(A.T, b), tolerance(np.linalg.cond(A), np.float64, 1e-8), "x")
    assert columns[0].status == "converged"
    assert made == [2, -2, 11]
    F.solve(b, not transposed)
    assert made == [2, -2, 11], "what was found to be good is kept"


@needs_pardiso
def test_factors_of_superlu_are_the_last_to_try(made, monkeypatch):
    """Catches: columns reported as inaccurate that exchanges of any rows would solve."""
    monkeypatch.setattr(_pardiso.PardisoFactors, "solve", lambda self, b, transposed: 0.5 * b)
    A, b = BY_NAME["indefinite"].dense, np.ones(24)
    F = factored(A)
    x, _ = F.solve(b, False)
    assert made == [-2, 11, "superlu"]
    assert F.library == "superlu"
    assert_close(x, np.linalg.solve(A, b), tolerance(np.linalg.cond(A), np.float64, 0), "x")


SINGULAR = {
    "symmetric": np.array([[1.0, 2.0], [2.0, 4.0]]),
    "general": np.array([[1.0, 2.0], [3.0, 6.0]]),
    "complex": np.array([[1.0, 2.0j], [3.0, 6.0j]]),
    "single": np.array([[1.0, 2.0], [3.0, 6.0]], np.float32),
    "structurally": np.array([[1.0, 1.0, 1.0], [2.0, 0.0, 0.0], [3.0, 0.0, 0.0]]),
    "an empty row": np.array([[1.0, 2.0], [0.0, 0.0]]),
    "an empty column": np.array([[1.0, 0.0], [2.0, 0.0]]),
    "no entries": np.zeros((3, 3)),
}


@needs_pardiso
@pytest.mark.parametrize("name", SINGULAR)
def test_a_singular_matrix_is_an_error_although_pivots_are_replaced(name):
    """Catches: a solution of 1e13, without a word, or a crash inside MKL."""
    with pytest.raises(SingularMatrixError):
        factored(SINGULAR[name])


@needs_pardiso
@pytest.mark.parametrize("A", [np.zeros((2, 2)), np.array([[1.0, 1.0], [0.0, 0.0]])], ids=["all", "a row"])
def test_stored_zeros_make_a_matrix_singular_too(A):
    """Catches: NaN out of the matching of a row of explicit zeros."""
    stored = sp.csr_array((A.ravel(), ([0, 0, 1, 1], [0, 1, 0, 1])), shape=(2, 2))
    assert stored.nnz == 4
    with pytest.raises(SingularMatrixError):
        factored(stored)


@needs_pardiso
def test_replaced_pivots_are_believed_where_they_solve_a_random_right_hand_side(made):
    """Catches: each of many systems with a small pivot handed to SuperLU, ten times slower; or none of them, singular
    or not."""
    for diagonal, seed, types in ((0.0, 0, [-2]), (1e-17, 0, [2, -2, 11])):
        A, b = without_diagonal(diagonal, seed), np.ones(40)
        assert raw_factors(A, -2).perturbed > 0
        made.clear()
        x, columns = factored(A).solve(b, False)
        assert made == types
        assert_close(x, np.linalg.solve(A, b), tolerance(np.linalg.cond(A), np.float64, 1e-8), "x")
        assert columns[0].status == "converged"


@needs_pardiso
def test_a_pure_neumann_problem_is_reported_as_singular():
    """Catches: a last pivot of 1e-16 or its replacement, and a right-hand side outside of the range."""
    weights = np.random.default_rng(0).random(29)
    A = -np.diag(weights, 1) - np.diag(weights, -1)
    A -= np.diag(A.sum(1))
    with pytest.raises(SingularMatrixError, match="for a z that is one number in all unknowns"):
        factored(A).solve(np.ones(30), False)


@needs_pardiso
@pytest.mark.parametrize("scale", [1e-300, 1e-30, 1e30, 1e300])
@pytest.mark.parametrize("name", ["poisson", "indefinite", "general", "complex general"])
def test_the_scale_of_the_matrix_does_not_matter(made, name, scale):
    """Catches: a threshold for pivots that is absolute."""
    A, b = BY_NAME[name].dense, right_hand_side(BY_NAME[name], None)
    x, columns = factored(A * scale).solve(b, False)
    assert_close(x * scale, np.linalg.solve(A, b), tolerance(BY_NAME[name].condition, np.float64, 0), "x")
    assert columns[0].status == "converged"
    assert len(made) == 1


@needs_pardiso
def test_right_hand_sides_of_any_layout_are_left_as_they_are():
    """Catches: strides ignored, columns and rows exchanged, or B overwritten with the solution."""
    A = BY_NAME["general"].dense
    F, B = factored(A), right_hand_side(BY_NAME["general"], 6)
    for b in (B, np.asfortranarray(B), B[:, ::2], B[:, 1], B[:, :0]):
        before = b.copy()
        x, columns = F.solve(b, False)
        assert_close(x, np.linalg.solve(A, b), 1e-11, "x")
        assert len(columns) == (b.shape[1] if b.ndim > 1 else 1)
        np.testing.assert_array_equal(b, before)


@needs_pardiso
def test_a_solution_beyond_single_precision_is_reported():
    """Catches: infinity that passes for a solution, or a warning of NumPy's in its place."""
    _, columns = factored(np.diag(np.array([1e-40, 1.0], np.float32))).solve(np.ones(2, np.float32), False)
    assert columns[0].status not in ("converged", "accuracy limit")


@needs_pardiso
def test_memory_is_released_with_the_factors(monkeypatch):
    """Catches: hundreds of megabytes of MKL's that no one can free: a cycle of references, or no release at all."""
    phases = []
    original = _mkl.Pardiso.call
    monkeypatch.setattr(
        _mkl.Pardiso, "call", lambda self, phase, *args: (phases.append(phase), original(self, phase, *args))
    )
    F = factored(laplacian(20))
    F.solve(np.ones(400), False)
    assert phases == [_mkl.ANALYSE, _mkl.FACTOR, _mkl.SOLVE]
    del F
    assert phases == [_mkl.ANALYSE, _mkl.FACTOR, _mkl.SOLVE, _mkl.RELEASE]
    phases.clear()
    F = factored(without_diagonal(1e-17, seed=1))
    F.solve(np.ones(40), False)
    del F
    assert phases.count(_mkl.FACTOR) == phases.count(_mkl.RELEASE) == 3, "also those that failed or were replaced"


@needs_pardiso
def test_the_memory_of_the_factors_is_known():
    """Catches: a bound in bytes that factors of PARDISO pass through as if they were small."""
    A = laplacian(100)
    entries = factored(A, "superlu")._factors._lu.nnz
    assert 8 * entries / 4 < factored(A).nbytes < 8 * entries * 4
    F = factored(sp.csr_array((0, 0)))
    assert F.nbytes == 0


@needs_pardiso
def test_factors_may_be_used_from_several_threads(monkeypatch):
    """Catches: two calls on one handle, or parameters of one call that another reads."""
    original, busy, overlaps = _mkl.Pardiso.call, set(), []

    def call(self, *args):
        overlaps.extend({id(self)} & busy)
        busy.add(id(self))
        time.sleep(1e-4)  # others have a chance
        original(self, *args)
        busy.discard(id(self))

    monkeypatch.setattr(_mkl.Pardiso, "call", call)
    system = BY_NAME["general"]
    other = laplacian(30).toarray()
    matrices = {0: system.dense, 1: other}
    factors = {index: factored(A) for index, A in matrices.items()}
    sides = {index: np.random.default_rng(index).standard_normal(A.shape[0]) for index, A in matrices.items()}
    expected = {(i, t): np.linalg.solve(A.T if t else A, sides[i]) for i, A in matrices.items() for t in (False, True)}
    wrong = []

    def work(index, transposed):
        for _ in range(20):
            x, _ = factors[index].solve(sides[index], transposed)
            if not np.allclose(x, expected[index, transposed], rtol=1e-9, atol=1e-9):
                wrong.append((index, transposed))

    threads = [threading.Thread(target=work, args=(i, t)) for i in (0, 1) for t in (False, True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert not overlaps


@needs_pardiso
def test_an_error_of_the_library_is_told_in_words(monkeypatch):
    """Catches: a bare number, or an error that is passed over as a matrix of another type."""
    broken = {-1: RuntimeError, -2: MemoryError, -99: RuntimeError}
    for code, kind in broken.items():

        def fail(*args, code=code):
            if args[4]._obj.value == _mkl.FACTOR:
                args[-1]._obj.value = code

        monkeypatch.setattr(_mkl, "_function", lambda fail=fail: fail)
        with pytest.raises(kind, match=f"PARDISO failed with error {code}: "):
            factored(np.eye(2))


# What follows needs no PARDISO.


@pytest.mark.parametrize(
    ("present", "expected"),
    [((), "superlu"), (("rslab",), "rslab"), (("pypardiso",), "pardiso"), (("rslab", "pypardiso"), "pardiso")],
)
def test_the_default_is_the_first_that_is_installed(monkeypatch, present, expected):
    """Catches: a default that imports what is not there, or leaves unused what is."""
    asked = []
    for module in (_mkl, _rslab):
        monkeypatch.setattr(
            module, "find_spec", lambda name: asked.append(name) or (object() if name in present else None)
        )
    fresh = {"pardiso": _mkl.installed, "rslab": _rslab.installed}
    fresh = {name: cache(function.__wrapped__) for name, function in fresh.items()}
    for name, (package, _) in list(_factorisation._EXTRAS.items()):
        monkeypatch.setitem(_factorisation._EXTRAS, name, (package, fresh[name]))
    assert library_for(None) == expected
    assert library_for("superlu") == "superlu"
    library_for(None)
    assert asked == ["pypardiso", "rslab"][: 2 if expected != "pardiso" else 1], "looked up once"


@pytest.mark.parametrize("library", ["pardiso", "rslab"])
def test_a_library_without_its_package_names_the_extra(monkeypatch, library):
    """Catches: a ModuleNotFoundError from somewhere inside, or SuperLU without a word."""
    package, _ = _factorisation._EXTRAS[library]
    monkeypatch.setitem(_factorisation._EXTRAS, library, (package, lambda: False))
    with pytest.raises(ImportError, match=rf'needs {package}: pip install "tsgu\[{library}\]"'):
        library_for(library)


@pytest.mark.parametrize("library", ["umfpack", "PARDISO", "", 3, True])
def test_an_unknown_library_is_refused_with_those_that_are_known(library):
    """Catches: a misspelt name that means the default."""
    with pytest.raises(ValueError, match=r"library must be 'superlu', 'pardiso', 'rslab' or None; got ") as error:
        library_for(library)
    assert str(error.value).endswith(f"got {library!r}.")


def test_superlu_alone_does_not_load_pardiso(monkeypatch):
    """Catches: MKL loaded, half a second and its threads, by who does not use it."""
    monkeypatch.setitem(sys.modules, "pypardiso", None)
    monkeypatch.setattr(_mkl, "_function", lambda: pytest.fail("PARDISO was loaded"))
    F = factored(laplacian(3), "superlu")
    assert F.library == "superlu"
    assert _factorisation.LIBRARIES == ("superlu", "pardiso", "rslab")
