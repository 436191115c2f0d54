"""Comparison with a tolerance from dtype and condition number, and a failure that shows the worst entries."""

import numpy as np


def tolerance(condition: float, dtype: type, rtol: float, order: int = 1) -> float:
    """Relative error to expect of a quantity that takes ``order`` solves in a row, each with this relative residual."""
    return 10 * order * condition * (rtol + 20 * float(np.finfo(dtype).eps))


def assert_close(actual: np.ndarray, expected: np.ndarray, tol: float, what: str) -> None:
    """Every entry within ``tol`` of the largest expected one."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape, f"{what}: shape {actual.shape}, expected {expected.shape}"
    if expected.size == 0:
        return
    error = np.abs(actual - expected)
    bound = tol * np.abs(expected).max()
    if np.all(error <= bound):  # false for NaN
        return
    worst = np.argsort(-np.nan_to_num(error, nan=np.inf).ravel())[:5]
    lines = [
        f"  {np.unravel_index(i, expected.shape)}: got {actual.ravel()[i]}, expected {expected.ravel()[i]}"
        for i in worst
    ]
    raise AssertionError(f"{what}: off by {error.max():.2e}, tolerance {bound:.2e}; worst entries\n" + "\n".join(lines))
