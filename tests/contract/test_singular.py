"""Singular systems, starts far off, definiteness: which iterate is returned, and which status it has."""

import dataclasses

import numpy as np
import pytest

from tests.contract import truth
from tests.contract.cases import RTOL, iterative, usual
from tests.contract.compare import assert_close, tolerance
from tests.contract.systems import BY_NAME, System, right_hand_side

SIDE = 12


def of(dense, **properties) -> System:
    row, col = np.nonzero(dense)
    return System("", row, col, dense[row, col], dense.shape[0], **properties)


def neumann(side=SIDE) -> System:
    """The Laplacian of a square grid without boundary conditions: its null space are the constants."""
    path = np.eye(side, k=1) + np.eye(side, k=-1)
    adjacency = np.kron(np.eye(side), path) + np.kron(path, np.eye(side))
    return of(np.diag(adjacency.sum(1)) - adjacency, hermitian=True)


def loads(system, shares):
    """Right-hand sides of which this share of the norm is outside of the range."""
    b = np.random.default_rng(0).standard_normal(system.n)
    b -= b.mean()
    return np.stack([b + share * np.linalg.norm(b) / np.sqrt(system.n) for share in shares], axis=1)


def residuals(system, x, b):
    return np.linalg.norm(b - system.dense @ x, axis=0) / np.linalg.norm(b, axis=0)


def test_minres_finds_the_least_residual_of_a_system_that_has_no_solution(package):
    """Catches: the best iterate thrown away, and thousands of steps along the null space."""
    system = neumann()
    b = loads(system, (0.0, 1e-6, 1e-3, 1.0))
    with package.record() as log, pytest.warns(package.ConvergenceWarning, match="incompatible; relative residual"):
        x = package.Problem(system, b).solve(package.method("minres"))
    assert [column.status for column in log[0].columns] == ["converged", *["incompatible"] * 3]
    assert log[0].iterations < 500
    expected = np.linalg.lstsq(system.dense, b, rcond=1e-12)[0]
    assert_close(residuals(system, x, b)[1:], residuals(system, expected, b)[1:], 1e-3, "least residual")
    assert_close(residuals(system, x, b), np.array([c.residual for c in log[0].columns]), 1e-4, "what is reported")
    assert_close(x - x.mean(0), expected, 1e-4, "x, up to a constant")


def test_minres_finds_the_least_residual_of_a_hermitian_system(package):
    """Catches: a null space that is not real."""
    rng = np.random.default_rng(2)
    q = np.linalg.qr(rng.standard_normal((20, 20)) + 1j * rng.standard_normal((20, 20)))[0]
    dense = (q * np.concatenate([[0, 0], np.linspace(1, 3, 9), -np.linspace(1, 3, 9)])) @ q.conj().T
    system, b = of((dense + dense.conj().T) / 2, hermitian=True), rng.standard_normal(20) + 0j
    with package.record() as log, pytest.warns(package.ConvergenceWarning, match="not in its range"):
        x = package.Problem(system, b).solve(package.method("minres"))
    least = np.linalg.norm(q[:, :2].conj().T @ b) / np.linalg.norm(b)
    assert log[0].status == "incompatible"
    assert_close(np.linalg.norm(b - system.dense @ x) / np.linalg.norm(b), least, 1e-3, "residual")


def test_with_a_preconditioner_the_residual_is_the_least_in_its_norm(package):
    """Catches: a test for the least residual in a norm that preconditioned MINRES does not minimise."""
    system = neumann()
    weights = np.linspace(1, 4, system.n)
    b = loads(system, (1e-3, 0.3))
    with package.record() as log, pytest.warns(package.ConvergenceWarning, match="incompatible"):
        x = package.Problem(system, b).solve(package.method("minres"), M=package.dense_matrix(np.diag(weights)))
    assert [column.status for column in log[0].columns] == ["incompatible"] * 2
    root = np.sqrt(weights)[:, None]
    in_its_norm = np.linalg.lstsq(root * system.dense, root * b, rcond=1e-12)[0]
    least = np.linalg.lstsq(system.dense, b, rcond=1e-12)[0]
    assert np.all(residuals(system, x, b) <= 1.001 * residuals(system, in_its_norm, b))
    assert np.all(residuals(system, x, b) >= 0.999 * residuals(system, least, b))


@iterative
def test_where_there_is_no_solution_the_best_of_the_way_is_returned(package, method):
    """Catches: a residual of 1 where the history went down to 1e-6, while the iterate grew along the null space."""
    system = neumann()
    b = loads(system, (1e-6,))[:, 0]
    with package.record() as log, pytest.warns(package.ConvergenceWarning):
        x = package.Problem(system, b).solve(package.method(method))
    (true,) = residuals(system, x[:, None], b[:, None])
    assert not log[0].converged
    assert 0.999e-6 < true < (1e-5 if method == "linear_cg" else 1.01e-6)
    assert_close(log[0].residual, true, 1e-4, "residual")


def test_an_ill_conditioned_system_that_has_a_solution_is_not_called_incompatible(package):
    """Catches: ended by ||A r|| being small beside ||A|| ||r||, as it is from the start where one entry is a
    penalty."""
    n = 60
    dense = 2 * np.eye(n) - np.eye(n, k=1) - np.eye(n, k=-1)
    dense[0, 0] = 1e10
    system, b = of(dense, hermitian=True, definite=True), np.ones(n)
    with package.record() as log:
        x = package.Problem(system, b).solve(package.method("minres"))
    assert log[0].status == "converged"
    assert_close(x, np.linalg.solve(dense, b), 1e-4, "x")


@iterative
def test_a_start_far_off_costs_no_accuracy(package, method):
    """Catches: rounding in the first residual, of the size of the start, which a cycle of GMRES never gets rid of."""
    system = usual(method)
    b = right_hand_side(system, None)
    away = right_hand_side(system, None, seed=8)
    more = {"restart": 10} if method == "gmres" else {}
    problem = package.Problem(system, b)
    with package.record() as log:
        for far in (1e8, 1e12, 1e14):
            x0 = package.array(truth.solution(system, b) + far * away)
            x = problem.solve(package.method(method), x0=x0, **more)
            assert np.linalg.norm(b - system.dense @ x) <= 1e-8 * np.linalg.norm(b), far
    assert [info.status for info in log] == ["converged"] * 3


def test_a_start_far_off_costs_no_accuracy_in_single_precision(package):
    """Catches: the same at a millionth of the distance."""
    system = BY_NAME["convection"]
    b, away = np.random.default_rng(1).standard_normal((2, system.n)).astype(np.float32)
    x0 = package.array((np.linalg.solve(system.dense, b) + 1e6 * away).astype(np.float32))
    x = package.Problem(system, b).solve(package.method("gmres"), x0=x0, restart=10)
    assert np.linalg.norm(b - system.dense @ x.astype(np.float64)) <= 1.1e-5 * np.linalg.norm(b)


@pytest.mark.parametrize("method", ["linear_cg", "minres"])
@pytest.mark.parametrize("name", [None, "block_jacobi", "amg"])
def test_negative_definite_systems_are_solved_as_positive_ones_are(package, method, name):
    """Catches: an M that is negative definite, as that of a negative definite A, taken for one that is not definite."""
    system = BY_NAME["poisson"]
    negative = dataclasses.replace(system, values=-system.values)
    b = np.random.default_rng(4).standard_normal(system.n)
    with package.record() as log:
        for one in (system, negative):
            problem, M = package.Problem(one, b), None
            if name == "amg":
                pytest.importorskip("pyamg")
            if name is not None:
                more = (4,) if name == "block_jacobi" else ()
                M = package.preconditioner(name, problem.detached(), *more)
            x = problem.solve(package.method(method), rtol=RTOL, M=M)
            assert_close(x, np.linalg.solve(one.dense, b), tolerance(one.condition, np.float64, RTOL), "x")
    assert [info.status for info in log] == ["converged"] * 2
    assert log[0].iterations == log[1].iterations


BOTH_SIGNS = np.diag([1.0, -1.0])
BREAKDOWNS = {
    "cg, p^H A p = 0": ("linear_cg", np.array([[0.0, 1.0], [1.0, 0.0]]), None, "A, and M .* must be definite"),
    "cg, r^H M r = 0": ("linear_cg", np.array([[2.0, 1.0], [1.0, 2.0]]), BOTH_SIGNS, "A, and M .* must be definite"),
    "minres, r^H M r = 0": ("minres", np.array([[2.0, 1.0], [1.0, 2.0]]), BOTH_SIGNS, "M must be definite"),
    "bicgstab, eigenvalues +-i": ("bicgstab", np.array([[0.0, 1.0], [-1.0, 0.0]]), None, "Try gmres or direct"),
    "gmres, A r = 0": ("gmres", np.array([[0.0, 1.0], [0.0, 0.0]]), None, "The recurrence broke down"),
}


@pytest.mark.parametrize("name", BREAKDOWNS)
def test_a_recurrence_that_breaks_down_is_reported_as_such(package, name):
    """Catches: stagnation, with the advice to give a preconditioner, where a quantity that is divided by is zero."""
    method, dense, M, advice = BREAKDOWNS[name]
    b = np.array([1.0, 0.0]) if M is None else np.array([1.0, 1.0])
    M = None if M is None else package.dense_matrix(M)
    with package.record() as log, pytest.warns(package.ConvergenceWarning, match=f"breakdown.*{advice}"):
        x = package.Problem(of(dense), b).solve(package.method(method), M=M)
    assert log[0].status == "breakdown"
    assert np.all(np.isfinite(x))
    assert_close(log[0].residual, np.linalg.norm(b - dense @ x) / np.linalg.norm(b), 1e-12, "residual")
    assert log[0].residual <= 1 + 1e-12


@pytest.mark.parametrize("columns", [None, 2])
def test_a_preconditioner_with_eigenvalues_of_both_signs_breaks_minres_down(package, columns):
    """Catches: a step along a direction that has no length, reported as a residual of zero and then as stagnation."""
    system = BY_NAME["indefinite"]
    rng = np.random.default_rng(6)
    b = rng.standard_normal(system.n) if columns is None else rng.standard_normal((system.n, columns))
    problem = package.Problem(system, b)
    M = package.preconditioner("jacobi", problem.detached())
    with package.record() as log, pytest.warns(package.ConvergenceWarning, match="breakdown.*M must be definite"):
        x = problem.solve(package.method("minres"), M=M)
    assert {column.status for column in log[0].columns} == {"breakdown"}
    assert np.all(np.linalg.norm(b - system.dense @ x, axis=0) <= np.linalg.norm(b, axis=0))
