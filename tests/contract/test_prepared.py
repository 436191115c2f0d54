"""What was prepared for one matrix: held to its target with the one at hand, and indifferent to what happens to it."""

import copy
import dataclasses
import warnings

import numpy as np
import pytest
import scipy.sparse as sp

from tests.contract.compare import assert_close
from tests.contract.systems import System

LINE = sp.diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(20, 20))
POISSON = sp.coo_array(sp.kronsum(LINE, LINE))
SYSTEM = System("poisson", POISSON.row, POISSON.col, POISSON.data, 400, True, True)
B, W = np.random.default_rng(0).standard_normal((2, 400))

METHODS = ("direct", "auto", "linear_cg", "minres", "bicgstab", "gmres")


def moved(change):
    """The same with a diagonal that has changed a little, as after the step of an optimiser."""
    return dataclasses.replace(SYSTEM, values=SYSTEM.values + change * (SYSTEM.row == SYSTEM.col))


@pytest.mark.parametrize("verify", [1e-3, None])
@pytest.mark.parametrize("method", METHODS)
def test_what_is_prepared_for_a_matrix_nearby_is_told_in_both_solves(package, method, verify):
    """Catches: a residual of 1e-4 that passes for a solution, since that is less than what is asked of solvers from
    outside."""
    prepared = package.method(method).prepare(package.Problem(SYSTEM, B).detached())
    problem = package.Problem(moved(1e-4), B)
    with package.record() as log, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        problem.gradients(W, prepared, verify=verify)
    assert [(info.transposed, info.status) for info in log] == [
        (False, "prepared for another matrix"),
        (True, "prepared for another matrix"),
    ]
    dense = moved(1e-4).dense
    x = np.linalg.solve(SYSTEM.dense, B)
    expected = np.linalg.norm(B - dense @ x) / np.linalg.norm(B)
    assert 1e-5 < expected < 1e-3
    assert_close(log[0].residual, expected, 1e-3, "residual")
    texts = [str(one.message) for one in caught if one.category is package.ConvergenceWarning]
    assert [("forward" in text, "adjoint" in text) for text in texts] == [(True, False), (False, True)]
    assert all("Prepare it again for each matrix that is solved with" in text for text in texts)


@pytest.mark.parametrize("method", METHODS)
def test_what_meets_the_target_all_the_same_is_not_complained_of(package, method):
    """Catches: a warning about the same values, or about those of the last digit."""
    prepared = package.method(method).prepare(package.Problem(SYSTEM, B).detached())
    for system in (SYSTEM, moved(1e-15)):
        with package.record() as log:
            package.Problem(system, B).gradients(W, prepared)
        assert [info.status for info in log] == ["converged", "converged"]


def test_a_tolerance_that_was_prepared_is_the_one_that_counts(package):
    """Catches: an absolute tolerance forgotten; an rtol of 1e-3 held to 1e-8; an accuracy limit taken for another
    matrix."""
    problem, method = package.Problem(SYSTEM, B), package.method("linear_cg")
    for arguments, target in (({"rtol": 1e-3}, 1e-3), ({"rtol": 0.0, "atol": 1e-2}, 1e-2 / np.linalg.norm(B))):
        with package.record() as log:
            problem.solve(method.prepare(problem.detached(), **arguments))
        assert log[0].status == "converged"
        assert target / 100 < log[0].residual <= target
    with package.record() as log:
        problem.solve(method.prepare(problem.detached(), rtol=1e-18))
    assert log[0].status == "accuracy limit"


WRONG_PLACES = [
    ("solve", "jacobi", "solve must be a solver; got the preconditioner jacobi"),
    ("solve", "ilu", "solve must be a solver; got the preconditioner ilu"),
    ("solve", "the function jacobi", "solve must be a solver; got the preconditioner jacobi"),
    ("transpose_solve", "jacobi", "transpose_solve must be a solver; got the preconditioner jacobi"),
    ("transpose_solve", "the matrix", "transpose_solve must be a callable .* got SparseMatrix"),
    ("M", "direct", r"M must be a matrix or a callable .*; got <method \w+\.direct>"),
    ("M", "gmres prepared", "M must be a matrix or a callable .*; got gmres prepared for one matrix"),
    ("M", "a string", "M must be a matrix or a callable .*; got the string 'jacobi'"),
    ("lstsq", "prepared", r"lstsq must be a callable \(A, B, \*\*kwargs\) -> X, or None; got direct prepared for one"),
    ("lstsq", "lsmr prepared", r"lstsq must be a callable \(A, B, \*\*kwargs\) -> X, or None; got "),
    ("lstsq", "direct", "lstsq must be lsmr, or a least-squares solver from outside; got direct"),
    ("lstsq", "jacobi", "lstsq must be a solver; got the preconditioner jacobi"),
    ("transpose_lstsq", "prepared", "transpose_lstsq must be a callable .* got direct prepared for one matrix"),
]


@pytest.mark.parametrize(("place", "what", "message"), WRONG_PLACES, ids=[f"{p}={w}" for p, w, _ in WRONG_PLACES])
def test_a_solver_in_the_wrong_place_is_refused_in_our_words(package, place, what, message):
    """Catches: an AttributeError from inside, or a missing argument of a function that the user did not call."""
    problem = package.Problem(SYSTEM, B)
    A = package.SparseMatrix.from_scipy(POISSON)
    given = {
        "jacobi": lambda: package.precond.jacobi(A),
        "ilu": lambda: package.precond.ilu(A),
        "the function jacobi": lambda: package.precond.jacobi,
        "the matrix": lambda: A,
        "direct": lambda: package.method("direct"),
        "prepared": lambda: package.method("direct").prepare(A),
        "gmres prepared": lambda: package.method("gmres").prepare(A),
        "lsmr prepared": lambda: package.method("lsmr").prepare(A),
        "a string": lambda: "jacobi",
    }[what]()
    call = {
        "solve": lambda: problem.solve(given),
        "transpose_solve": lambda: problem.gradients(W, package.method("gmres"), given),
        "M": lambda: problem.solve(package.method("gmres"), M=given),
    }.get(place, lambda: package.lstsq(A, package.array(B), **{place: given}))
    with pytest.raises(TypeError, match=message):
        call()


def test_a_copy_of_a_method_is_the_method(package):
    """Catches: settings or a module that hold one, saved and not to be read again."""
    assert copy.deepcopy(package.method("direct")) is package.method("direct")
