"""``direct`` by the library asked for: solutions and derivatives, one factorisation, and what is refused."""

import numpy as np
import pytest

from tests.contract import truth
from tests.contract.cases import RTOL, direction
from tests.contract.compare import assert_close, tolerance
from tests.contract.systems import BY_NAME, SYSTEMS, System, right_hand_side
from tsgu._core.factors import _factorisation, _mkl, _pardiso, _rslab, _superlu

needs_pardiso = pytest.mark.skipif(not _mkl.installed(), reason="needs pypardiso")
needs_rslab = pytest.mark.skipif(not _rslab.installed(), reason="needs rslab")
by_each = pytest.mark.parametrize(
    "library", [pytest.param("pardiso", marks=needs_pardiso), pytest.param("rslab", marks=needs_rslab)]
)
every_system = pytest.mark.parametrize(("method", "system"), [("direct", s) for s in SYSTEMS], ids=str)
SINGULAR = System("singular", np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]), np.array([1.0, 2.0, 3.0, 6.0]), 2)


@pytest.fixture
def made(monkeypatch):
    """The library of each factorisation."""
    names = []
    pardiso, rslab, splu = _pardiso.PardisoFactors.__init__, _rslab.RslabFactors.__init__, _superlu.splu
    monkeypatch.setattr(_pardiso.PardisoFactors, "__init__", lambda *args: (names.append("pardiso"), pardiso(*args))[1])
    monkeypatch.setattr(_rslab.RslabFactors, "__init__", lambda *args: (names.append("rslab"), rslab(*args))[1])
    monkeypatch.setattr(_superlu, "splu", lambda A, **options: names.append("superlu") or splu(A, **options))
    return names


@by_each
@every_system
def test_gradients_by_each_library_equal_the_dense_ones_at_every_stored_entry(package, made, library, method, system):
    """Catches: factors of the wrong triangle, or a Hermitian matrix taken for its own transpose, in one direction
    alone."""
    b, w = right_hand_side(system, 2), right_hand_side(system, 2, seed=4)
    problem, solver = package.Problem(system, b), package.method(method)
    tol = tolerance(system.condition, np.float64, RTOL, order=2)
    assert_close(problem.solve(solver, library=library), truth.solution(system, b), tol, "x")
    made.clear()
    package.forget_factors()
    got, expected = problem.gradients(w, solver, library=library), truth.gradients(system, b, w)
    assert_close(got[0], expected[0], tol, "gradient of the values")
    assert_close(got[1], expected[1], tol, "gradient of b")
    assert made == [library] * (system.n > 0), "one factorisation for both directions"


@by_each
@pytest.mark.parametrize("name", ["hermitian indefinite", "complex general"])
def test_second_derivatives_by_each_library_equal_the_dense_ones(package, library, name):
    """Catches: an adjoint of the adjoint that is solved with the factors of another matrix."""
    system = BY_NAME[name]
    b, w = right_hand_side(system, 2), right_hand_side(system, 2, seed=4)
    along = direction(system, b)
    got = package.Problem(system, b).hessian_products(w, along, package.method("direct"), library=library)
    tol = tolerance(system.condition, np.float64, RTOL, order=4)
    for mine, expected in zip(got, truth.hessian_products(system, b, w, along), strict=True):
        assert_close(mine, expected, tol, "second derivative")


@by_each
def test_the_library_asked_for_is_used_and_reported_as_direct(package, made, library):
    """Catches: a keyword that is accepted and not honoured, or a program compiled for one library that runs the
    other."""
    system, default = BY_NAME["poisson"], "pardiso" if _mkl.installed() else "rslab"
    problem = package.Problem(system, right_hand_side(system, None))
    with package.record() as log:
        for asked in ("superlu", library, None, "superlu"):
            package.forget_factors()
            problem.solve(package.method("direct"), library=asked)
    assert made == ["superlu", library, default, "superlu"]
    assert [(info.method, info.status) for info in log] == [("direct", "converged")] * 4


@by_each
def test_a_singular_matrix_is_reported_by_each_library_as_by_superlu(package, library):
    """Catches: a replaced pivot that makes every matrix solvable."""
    problem, direct = package.Problem(SINGULAR, np.array([1.0, 3.0])), package.method("direct")
    for one in ("superlu", library):  # the right-hand side lies in the range
        if package.NAME == "torch":
            with pytest.raises(RuntimeError, match="A must not be singular"):
                problem.solve(direct, library=one)
        else:
            with pytest.warns(package.ConvergenceWarning, match="A is singular"):
                assert np.all(np.isnan(problem.solve(direct, library=one)))


def test_without_extras_superlu_is_the_default_and_the_extra_is_named(package, made, monkeypatch):
    """Catches: a default that needs an optional package, or an import error without the remedy."""
    for extra in ("pardiso", "rslab"):
        monkeypatch.setitem(_factorisation._EXTRAS, extra, (_factorisation._EXTRAS[extra][0], lambda: False))
    system = BY_NAME["poisson"]
    problem = package.Problem(system, right_hand_side(system, None))
    problem.solve(package.method("direct"))
    assert made == ["superlu"]
    with pytest.raises(ImportError, match=r'library="pardiso" needs pypardiso: pip install "tsgu\[pardiso\]"'):
        problem.solve(package.method("direct"), library="pardiso")
    with pytest.raises(ImportError, match=r'library="rslab" needs rslab: pip install "tsgu\[rslab\]"'):
        problem.solve(package.method("direct"), library="rslab")
    with pytest.raises(TypeError, match=r"minres accepts the keyword arguments .*; got library"):
        problem.solve(package.method("minres"), library="superlu")
