"""The arguments of least squares, without a framework."""

import math

import pytest

from tsgu._core.methods._least_squares import optimality_tolerance, resolve_least_squares

DOUBLE, SINGLE = 2.2e-16, 1.2e-7


def test_defaults_follow_the_precision():
    """Catches: tolerances of double precision in single, which no solve can reach."""
    double, single = (resolve_least_squares({}, 7, eps) for eps in (DOUBLE, SINGLE))
    assert (double.atol, double.btol, double.conlim) == (1e-8, 1e-8, 1e8)
    assert (single.atol, single.btol, single.conlim) == (1e-5, 1e-5, 1e4)
    assert double.maxiter == 70
    assert double.damp == 0


def test_no_limit_of_the_condition_number_is_written_as_in_scipy():
    """Catches: conlim=0 that stops every solve at once."""
    assert resolve_least_squares({"conlim": 0}, 3, DOUBLE).conlim == math.inf
    assert resolve_least_squares({"conlim": math.inf}, 3, DOUBLE).conlim == math.inf


@pytest.mark.parametrize("name", ["damp", "atol", "btol", "conlim"])
@pytest.mark.parametrize("value", [-1.0, math.nan, "tight"])
def test_numbers_out_of_range_are_refused_by_name(name, value):
    """Catches: a negative tolerance that is never met."""
    with pytest.raises(ValueError, match=f"{name} must be a finite number >= 0"):
        resolve_least_squares({name: value}, 3, DOUBLE)


def test_a_system_that_must_be_compatible_is_not_stopped_by_a_loose_optimality():
    """Catches: atol=1e-2, for which every system with a condition number above 100 is optimal."""
    assert optimality_tolerance(1e-2, DOUBLE, compatible=False) == 1e-2
    assert optimality_tolerance(1e-2, DOUBLE, compatible=True) == 1e-8
    assert optimality_tolerance(0.0, DOUBLE, compatible=False) == DOUBLE
