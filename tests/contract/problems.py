"""A catalogue of rectangular systems for least squares."""

import numpy as np

from tests.contract.compare import assert_close, tolerance
from tests.contract.systems import System


def _problem(name, dense, stored=None, **properties):
    row, col = np.nonzero(dense if stored is None else stored)
    return System(name, row, col, dense[row, col], dense.shape[1], m=dense.shape[0], **properties)


def _catalogue():
    rng = np.random.default_rng(17)
    m, n = 26, 9

    def noise(m, n):
        return rng.standard_normal((m, n)) * (rng.random((m, n)) < 0.3)

    real = noise(m, n) + 2 * np.eye(m, n)
    yield _problem("real", real)
    yield _problem("complex", real + 1j * noise(m, n))
    yield _problem("badly scaled columns", real * np.logspace(-4, 4, n)[rng.permutation(n)])
    yield _problem("badly scaled rows", real * np.logspace(-1, 1, m)[:, None])
    empty_rows = real.copy()
    empty_rows[[3, 17, 25]] = 0
    yield _problem("empty rows", empty_rows)
    yield _problem("explicit zeros", real, (real != 0) | (rng.random((m, n)) < 0.1))
    row, col = np.nonzero(real)
    part, again = rng.random(row.size), rng.permutation(2 * row.size)
    values = np.concatenate([real[row, col] * part, real[row, col] * (1 - part)])
    yield System(
        "duplicates", np.tile(row, 2)[again], np.tile(col, 2)[again], values[again], n, m=m, layouts=("coo", "values")
    )
    yield _problem("square", noise(n, n) + 4 * np.eye(n) + 2 * np.eye(n, k=1))
    yield _problem("one column", rng.standard_normal((7, 1)))
    yield _problem("no columns", np.zeros((4, 0)))


PROBLEMS = tuple(_catalogue())
BY_NAME = {problem.name: problem for problem in PROBLEMS}


def norms(problem: System) -> np.ndarray:
    """Column norms, in which x and the gradients of its entries are to be measured."""
    return np.linalg.norm(problem.dense, axis=0)


def accuracy(problem: System, dtype: type = np.float64, rtol: float = 1e-13, order: int = 1) -> float:
    """The error of least squares grows with the square of the condition number, once the columns are of one norm."""
    condition = np.linalg.cond(problem.dense / norms(problem)) if problem.n else 1.0
    return tolerance(condition**2, dtype, rtol, order)


def assert_solution(problem: System, x: np.ndarray, expected: np.ndarray, tol: float, what: str = "x") -> None:
    weights = norms(problem).reshape(-1, *[1] * (x.ndim - 1))
    assert_close(x * weights, expected * weights, tol, what)


def assert_gradients(problem: System, got, expected, tol: float) -> None:
    weights = norms(problem)[problem.col]
    assert_close(got[0] * weights, expected[0] * weights, tol, "gradient of values")
    assert_close(got[1], expected[1], tol, "gradient of b")
