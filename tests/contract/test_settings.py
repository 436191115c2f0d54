"""Settings in the words of torchsparsegradutils: every field, in its order, and what each means here."""

import logging
import pickle
import warnings

import numpy as np
import pytest

import tsgu
from tests.contract.cases import RTOL
from tests.contract.systems import BY_NAME, System, right_hand_side

FIELDS = {
    "linear_cg": (
        tsgu.LinearCGSettings,
        {
            "max_cg_iterations": 500,
            "max_lanczos_quadrature_iterations": 20,
            "cg_tolerance": 1e-10,
            "terminate_cg_by_size": True,
            "verbose_linalg": True,
        },
    ),
    "minres": (tsgu.MINRESSettings, {"max_cg_iterations": 500, "minres_tolerance": 1e-10, "verbose_linalg": True}),
    "bicgstab": (
        tsgu.BICGSTABSettings,
        {"matvec_max": 500, "abstol": 1e-12, "reltol": 1e-10, "precon": None, "logger": logging.getLogger("null")},
    ),
}
MEANINGLESS = ("max_lanczos_quadrature_iterations", "verbose_linalg", "logger")

each = pytest.mark.parametrize("name", FIELDS)


def warned(package, name, settings):
    """The names of fields that a solve with these settings warns of."""
    system = BY_NAME["poisson"]
    problem = package.Problem(system, right_hand_side(system, None))
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        problem.solve(package.method(name), settings=settings)
    return {str(w.message).split()[1] for w in heard}


@each
def test_every_field_is_taken_by_name_and_by_position(name):
    """Catches: a field that raises, or another order in which a number lands in another field."""
    kind, fields = FIELDS[name]
    settings = kind(**fields)
    assert settings == kind(*fields.values())
    assert settings._fields == tuple(fields)
    assert pickle.loads(pickle.dumps(settings)) == settings
    first = next(iter(fields))
    assert getattr(settings._replace(**{first: 7}), first) == 7
    assert getattr(settings, first) == 500


@each
def test_what_has_no_meaning_here_is_said_and_the_rest_is_not(package, name):
    """Catches: a field that is accepted and ignored without a word, or a warning about the absence of a wish."""
    kind, fields = FIELDS[name]
    assert warned(package, name, kind(**fields)) == {field for field in fields if field in MEANINGLESS}
    plain = {field: value for field, value in fields.items() if field not in MEANINGLESS}
    assert warned(package, name, kind(**plain)) == set()
    if "verbose_linalg" in fields:
        assert warned(package, name, kind(**plain, verbose_linalg=False)) == set()


def test_conjugate_gradients_may_be_told_to_stop_after_as_many_steps_as_unknowns(package):
    """Catches: a flag that is dropped, or that overrides a smaller limit."""
    n = 40
    i = np.arange(n)
    system = System("stiff", i, i, np.logspace(0, 9, n), n, hermitian=True, definite=True)
    problem = package.Problem(system, np.ones(n))
    steps = []
    for by_size, limit in ((False, None), (True, None), (True, 100), (True, 7), (False, 55)):
        settings = tsgu.LinearCGSettings(limit, cg_tolerance=RTOL, terminate_cg_by_size=by_size)
        with package.record() as log, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            problem.solve(package.method("linear_cg"), settings=settings)
        steps.append(log[0].iterations)
    assert steps[0] > 55
    assert steps[1:] == [n, n, 7, 55]
