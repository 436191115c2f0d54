"""Multigrid whose cycles are in single precision, inside methods in double precision."""

import dataclasses

import numpy as np
import pytest

from tests.contract import truth
from tests.contract.compare import assert_close, tolerance
from tests.contract.multigrid import cycle, levels_of, with_values
from tests.contract.systems import BY_NAME, System, right_hand_side
from tests.contract.test_preconditioners import SMALL, built, magnetic, poisson
from tests.contract.test_refresh import diffusion, drifted, matrix

pytest.importorskip("pyamg", reason="needs pyamg")


def single(package, system, *args, **kwargs):
    M = package.preconditioner("amg", matrix(package, system), *args, dtype=package.FLOAT32, **kwargs)
    assert "cycles in" in repr(M)
    return M


EXAMPLES = {
    "classical": (poisson(8), "ruge_stuben"),
    "nonsymmetric": (poisson(8, 0.5), "smoothed_aggregation"),
    "Hermitian": (magnetic(6), "root_node"),
    "no unknowns": (BY_NAME["no unknowns"], "ruge_stuben"),
}


@pytest.mark.parametrize("example", EXAMPLES)
def test_it_is_the_v_cycle_to_single_precision_in_the_dtype_of_the_matrix(package, example):
    """Catches: a result in single precision, which a method in double cannot mix; a transpose, or a refreshed one, in
    another precision or for the old values; a cycle that is in double all the same."""
    system, kind = EXAMPLES[example]
    M, new = single(package, system, kind, **SMALL), drifted(system)
    levels = levels_of(system, kind, SMALL["max_coarse"])
    refreshed = M.refresh(matrix(package, new))
    eye = np.eye(system.n, dtype=system.values.dtype)
    for own, expected in ((M, cycle(levels, 1)), (refreshed, cycle(with_values(levels, new.dense, 1), 1))):
        for given, wanted in ((own, expected), (own.T, expected.T), (own.T.T, expected)):
            assert str(given.dtype).endswith(str(system.values.dtype))
            got = package.applied(given, eye)
            assert got.dtype == system.values.dtype
            assert_close(got, wanted, 1e-5, "M")
            assert not system.n or np.abs(got - wanted).max() > 1e-10 * np.abs(wanted).max()
            if system.n:
                assert_close(package.applied(given, eye[:, 0] * 2.0), 2 * wanted[:, 0], 1e-5, "M v")


def test_conjugate_gradients_take_as_many_steps_and_the_gradient_is_right(package):
    """Catches: rounding of the cycle that reaches the solution, or costs steps."""
    system = diffusion(24, np.random.default_rng(0).standard_normal((24, 24)))
    b, w = right_hand_side(system, None), right_hand_side(system, None, seed=4)
    problem, cg = package.Problem(system, b), package.method("linear_cg")
    with package.record() as log:
        problem.gradients(w, cg, M=built(package, "amg", system, max_coarse=20), rtol=1e-11)
        grads = problem.gradients(w, cg, M=single(package, system, max_coarse=20), rtol=1e-11)
    steps = [info.iterations for info in log]
    assert steps[2] <= steps[0] + 1
    assert steps[3] <= steps[1] + 1
    for got, expected in zip(grads, truth.gradients(system, b, w), strict=True):
        assert_close(got, expected, tolerance(system.condition, np.float64, 1e-11, 2), "gradient")


@pytest.mark.parametrize("size", [1e-200, 1e-38, 1e38, 1e200])
def test_units_of_the_matrix_and_of_each_column_neither_vanish_nor_overflow(package, size):
    """Catches: a cast to single precision before the scaling: infinity from 1e39 on, zero below 1e-45."""
    system = poisson(8)
    scaled = dataclasses.replace(system, values=size * system.values)
    expected = cycle(levels_of(system, "ruge_stuben", SMALL["max_coarse"]), 1)
    columns = np.array([1e-80, 1.0, 1e80, 0.0])
    v = right_hand_side(system, 4)
    for M in (
        single(package, scaled, **SMALL),
        single(package, system, **SMALL).refresh(matrix(package, scaled)),
    ):
        got = package.applied(M, v * columns) * size
        for column in range(3):
            assert_close(got[:, column] / columns[column], expected @ v[:, column], 1e-5, f"column {column}")
        assert not got[:, 3].any()


def test_a_diagonal_that_single_precision_cannot_hold_stays_in_double(package):
    """Catches: an entry of 1e-50 beside one of 1 that becomes zero, or its inverse infinite, without a word."""
    one = poisson(6)
    row, col = (np.concatenate([index, index + one.n]) for index in (one.row, one.col))
    plain = System("", row, col, np.tile(one.values, 2), 2 * one.n, hermitian=True, definite=True)
    wide = dataclasses.replace(plain, values=np.concatenate([one.values, 1e-50 * one.values]))
    M = package.preconditioner("amg", matrix(package, wide), dtype=package.FLOAT32, **SMALL)
    assert "cycles in" not in repr(M)
    expected = cycle(levels_of(wide, "ruge_stuben", SMALL["max_coarse"]), 1)
    got = package.applied(M, np.eye(wide.n))
    for half in (slice(None, one.n), slice(one.n, None)):
        assert_close(got[half, half], expected[half, half], 1e-12, "M")
    M = single(package, plain, **SMALL)
    before = package.applied(M, np.ones(plain.n))
    with pytest.raises(ValueError, match=r"single precision holds beside its largest entry; got .* \de-5\d of it"):
        M.refresh(matrix(package, wide))
    np.testing.assert_array_equal(package.applied(M, np.ones(plain.n)), before)


def test_another_dtype_is_refused(package):
    """Catches: half precision, or a wider one than that of A, accepted and ignored."""
    problem = package.Problem(poisson(5), np.zeros(25))
    for dtype in (np.float16, "float32x", 32):
        with pytest.raises(TypeError, match="dtype must be float32, float64 or None"):
            package.preconditioner("amg", problem.matrix(), dtype=dtype)
    narrow = package.Problem(poisson(5), np.zeros(25), dtype=np.float32).matrix()
    with pytest.raises(TypeError, match=r"dtype must be no wider than that of A, .*float32; got .*float64"):
        package.preconditioner("amg", narrow, dtype=package.FLOAT64)
    assert "cycles in" not in repr(package.preconditioner("amg", narrow, dtype=package.FLOAT32))
