"""auto: what it chooses solves, with right derivatives; what fails is seen, and the next has its turn."""

import re
import warnings

import numpy as np
import pytest

from tests.contract import truth
from tests.contract.cases import RTOL
from tests.contract.compare import assert_close, tolerance
from tests.contract.systems import BY_NAME, System, right_hand_side
from tsgu._core.methods import _choice


@pytest.fixture
def no_shortcut(monkeypatch):
    """As if nothing were small, and factors dear: the iterative methods have their turn on small systems."""
    monkeypatch.setattr(_choice, "_cost_of_direct", lambda traits, library: 1e6)


def from_dense(dense):
    row, col = np.nonzero(dense)
    return System("", row, col, dense[row, col], len(dense))


def indefinite():
    """A positive diagonal in front of eigenvalues of both signs, so that conjugate gradients are tried, and break."""
    noise = np.triu(np.random.default_rng(2).standard_normal((90, 90)), 1)
    noise[np.abs(noise) < 1.8] = 0
    return from_dense(np.diag(np.logspace(0, 2, 90)) + 5 * (noise + noise.T))


CHOICES = {
    "poisson": "linear_cg + jacobi",
    "hermitian definite": "linear_cg + jacobi",
    "indefinite": "minres",
    "general": "bicgstab + jacobi",
    "complex general": "bicgstab + jacobi",
    "zero diagonal": "gmres + ilu",
}


def check(package, system, columns, expected=None, rtol=RTOL):
    """Solution and both gradients against the dense ones, without a warning; the log."""
    b, w = right_hand_side(system, columns), right_hand_side(system, columns, seed=4)
    problem = package.Problem(system, b)
    with package.record() as log, warnings.catch_warnings():
        warnings.simplefilter("error")
        x = problem.solve(package.method("auto"), rtol=rtol)
        got = problem.gradients(w, package.method("auto"), rtol=rtol)
    tol = tolerance(system.condition, np.float64, rtol)
    assert_close(x, truth.solution(system, b), tol, "x")
    for one, other, what in zip(got, truth.gradients(system, b, w), ("values", "b"), strict=True):
        assert_close(one, other, 3 * tol, f"gradient of {what}")
    if expected is not None:
        assert {info.method for info in log} == {expected}
        assert all(info.converged and info.note.startswith(f"auto: {expected}") for info in log)
        assert [info.transposed for info in log] == [False, False, True]
    return log


@pytest.mark.parametrize("name", CHOICES)
def test_a_chosen_method_has_the_dense_solution_and_gradients(package, no_shortcut, name):
    """Catches: a preconditioner that the adjoint does not transpose, a method that does not suit the matrix."""
    check(package, BY_NAME[name], 2, CHOICES[name])


def test_an_absolute_tolerance_is_for_the_forward_solve_alone(package, no_shortcut):
    """Catches: handed on to the chosen method for all its solves: no gradient where the loss is small."""
    system = BY_NAME["poisson"]
    b, w = right_hand_side(system, None), 1e-6 * right_hand_side(system, None, seed=4)
    with package.record() as log:
        got = package.Problem(system, b).gradients(w, package.method("auto"), atol=1e-2 * np.linalg.norm(b), rtol=RTOL)
    assert [info.method for info in log] == ["linear_cg + jacobi"] * 2
    assert 1e-6 < log[0].residual <= 1e-2
    tol = tolerance(system.condition, np.float64, RTOL)
    assert_close(got[1], truth.gradients(system, b, w)[1], tol, "gradient in b")


@pytest.mark.parametrize("name", ["badly scaled", "complex symmetric", "duplicates", "one unknown", "no unknowns"])
def test_a_small_system_is_factored(package, name):
    """Catches: a Krylov method where a factorisation costs nothing; an empty system looked at."""
    check(package, BY_NAME[name], None, None if name == "no unknowns" else "direct")


def test_what_fails_is_followed_by_what_solves(package, no_shortcut):
    """Catches: an answer of conjugate gradients on an indefinite matrix; a warning though the answer is right."""
    log = check(package, indefinite(), None, rtol=1e-10)
    solved = [info for info in log if info.converged]
    assert "linear_cg + jacobi" not in {info.method for info in solved}
    assert [info.transposed for info in solved] == [False, False, True]
    assert all(re.search(r"; linear_cg \+ jacobi (ended|missed)", info.note) for info in solved)


def test_nothing_that_meets_the_target_is_reported_once_for_each_system(package, no_shortcut):
    """Catches: a failure that is only in the log, or one warning for each attempt."""
    system = BY_NAME["general"]
    b = right_hand_side(system, None)
    # At rtol=0 and one step nothing can be right, but for factors, which reach rounding level.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_choice, "_LARGEST_FILL", 0)
        with package.record() as log, pytest.warns(package.ConvergenceWarning) as caught:
            x = package.Problem(system, b).solve(package.method("auto"), maxiter=1)
    assert len([w for w in caught if issubclass(w.category, package.ConvergenceWarning)]) == 1
    true = np.linalg.norm(b - system.dense @ x) / np.linalg.norm(b)
    assert_close(log[-1].residual, true, 1e-8, "residual")
    assert log[-1].status == "iteration limit"


def test_a_column_that_is_not_finite_is_no_reason_to_try_another_method(package, no_shortcut):
    """Catches: a NaN in the loss that sends every method, and a factorisation, after it."""
    system = BY_NAME["general"]
    w = right_hand_side(system, 2)
    w[:, 1] = np.nan
    problem = package.Problem(system, right_hand_side(system, 2))
    with package.record() as log, pytest.warns(package.ConvergenceWarning, match=r"bicgstab \+ jacobi .* non-finite"):
        _, gradient = problem.gradients(w, package.method("auto"))
    assert [(info.method, info.transposed) for info in log] == [
        ("bicgstab + jacobi", False),
        ("bicgstab + jacobi", True),
    ]
    assert_close(gradient[:, 0], np.linalg.solve(system.dense.T, w[:, 0]), 1e-5, "gradient of b")


def test_a_matrix_that_is_singular_to_working_precision_is_called_so(package, no_shortcut):
    """Catches: advice to use direct, which has found out what is wrong, from a method that failed before it."""
    flow = np.diff(np.eye(40), axis=0) * np.sqrt(1 + np.random.default_rng(3).random((39, 1)))
    problem = package.Problem(from_dense(flow.T @ flow), np.ones(40))  # a path that nothing holds
    if package.NAME == "torch":
        with pytest.raises(
            package.SingularError, match=r"A must not be singular for direct; .* one number in all unknowns"
        ):
            problem.solve(package.method("auto"))
        return
    with package.record() as log, pytest.warns(package.ConvergenceWarning, match=r"direct .* singular"):
        problem.solve(package.method("auto"))
    assert (log[-1].method, log[-1].status) == ("direct", "singular")


def test_a_tolerance_holds_for_factors_too(package):
    """Catches: rtol dropped on the way to direct, which knows only its own."""
    system = BY_NAME["badly scaled"]
    b = right_hand_side(system, None)
    with package.record() as log:
        package.Problem(system, b).solve(package.method("auto"), rtol=1e-17)
    assert log[0].status == "accuracy limit"


@pytest.mark.parametrize("arguments", [{"x0": 1.0}, {"M": 1.0}, {"settings": 1.0}, {"library": "superlu"}])
def test_arguments_that_could_not_be_honoured_are_refused(package, arguments):
    """Catches: a start or a preconditioner that is accepted and dropped."""
    system = BY_NAME["general"]
    with pytest.raises(TypeError, match=f"auto accepts the keyword arguments .*; got {next(iter(arguments))}"):
        package.Problem(system, right_hand_side(system, None)).solve(package.method("auto"), **arguments)


def test_a_tolerance_out_of_range_is_refused_whoever_solves(package):
    """Catches: a check that only the Krylov methods make."""
    system = BY_NAME["general"]
    with pytest.raises(ValueError, match="rtol must be a finite number >= 0; got -1"):
        package.Problem(system, right_hand_side(system, None)).solve(package.method("auto"), rtol=-1)
