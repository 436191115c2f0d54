"""The table of features: its truth is true, its experiments tell right from wrong, and our columns are not stale."""

import re
import warnings
from functools import cache, partial

import numpy as np
import pytest

from tests.benchmarks import features
from tests.benchmarks.feature_table import systems
from tests.benchmarks.feature_table.experiments import ROWS
from tests.benchmarks.feature_table.library import Library
from tests.benchmarks.feature_table.ours import OURS, Tsgu
from tests.benchmarks.feature_table.peers import PEERS

COLUMNS, CELLS = features.read(features.PAGE.read_text())
library = cache(lambda kind: kind())


def test_the_page_has_the_rows_and_columns_of_the_script():
    """Catches: an experiment or a library that is not in the table, or is no longer made."""
    assert [column.rsplit(" ", 1)[0] for column in COLUMNS] == [kind.name for kind in (*OURS, *PEERS)]
    assert list(CELLS) == list(ROWS)
    assert {len(cells) for cells in CELLS.values()} == {len(COLUMNS)}
    assert set(features.SHORT) | COMPILED <= set(ROWS)


def test_the_readme_shows_rows_of_the_page():
    """Catches: a cell of the README that nobody has seen, or that has changed since."""
    readme = (features.PAGE.parents[2] / "README.md").read_text()
    assert features.table(COLUMNS, {title: CELLS[title] for title in features.SHORT}).strip() in readme


@pytest.mark.parametrize("title", ROWS)
@pytest.mark.parametrize("place", range(len(OURS)), ids=[kind.name for kind in OURS])
def test_our_cells_are_what_is_seen_today(title, place, request):
    """Catches: a table that praises what is gone, or does not know of what has come. Residuals may differ by a factor
    of 5."""
    if OURS[place].name == "tsgu_jax" and title in COMPILED and not request.config.getoption("whole"):
        pytest.skip("takes seconds to compile; with --whole")
    seen, error = features.see(title, library(OURS[place]))
    assert error == ""
    shown = CELLS[title][place]
    assert re.sub(NUMBER, "#", seen) == re.sub(NUMBER, "#", shown)
    for now, then in zip(re.findall(NUMBER, seen), re.findall(NUMBER, shown), strict=True):
        assert float(then) / 5 < float(now) < 5 * float(then)


COMPILED = {
    "gradient of a loss times 1e-12",
    "methods",
    "multigrid preconditioner",
    "preconditioner transposed in the adjoint",
    "least squares, with gradient",
    "residual by default, 1-D Poisson, n = 2000",
    "the same by conjugate gradients",
    "too few steps",
    "conjugate gradients, indefinite A",
}
NUMBER = r"\d[\d.]*(?:e-\d+)?"


def loss(system, values):
    """As the truth differentiates it, for a square or a tall A."""
    x = np.linalg.lstsq(system.dense(values), system.b)[0]
    return (system.weights * abs(x) ** 2).sum() / 2


def difference(function, step=1e-5):
    return (function(step) - function(-step)) / (2 * step)


CASES = {
    "real": (systems.nonsymmetric, systems.gradient),
    "complex": (partial(systems.nonsymmetric, complex_=True), systems.gradient),
    "block": (partial(systems.nonsymmetric, columns=3), systems.gradient),
    "triangle": (systems.triangle, systems.gradient),
    "least squares": (systems.tall, systems.least_squares_gradient),
}


@pytest.mark.parametrize("case", CASES)
def test_the_gradient_that_counts_as_true_agrees_with_differences(case):
    """Catches: a yardstick that is wrong itself. Along the real, and where there is one the imaginary direction."""
    make, gradient = CASES[case]
    system = make()
    direction = np.random.default_rng(3).standard_normal(system.values.size)
    for unit in [1, 1j] if np.iscomplexobj(system.values) else [1]:
        moved = unit * direction
        slope = difference(lambda t, moved=moved: loss(system, system.values + t * moved))
        assert (gradient(system).conj() @ moved).real == pytest.approx(slope, rel=1e-7)


def test_the_second_derivative_and_the_tangent_that_count_as_true_agree_with_differences():
    """Catches: the same, one order up."""
    system = systems.nonsymmetric()
    direction = np.random.default_rng(3).standard_normal(system.values.size)

    def moved(t):
        return system.with_values(system.values + t * direction)

    hessian = difference(lambda t: systems.gradient(moved(t)))
    assert systems.off(systems.hessian_product(system, direction), hessian) < 1e-7
    tangent = difference(lambda t: np.linalg.solve(moved(t).A.toarray(), system.b))
    assert systems.off(systems.tangent(system, direction), tangent) < 1e-7


class Careless(Tsgu):
    """Solves with A in the adjoint too, and tells nothing."""

    name = "careless"

    def general(self, system):
        def solve(A, B):
            return self.torch.linalg.solve(A.to_dense(), B)

        return self.own(system, self.solve, solve=solve, transpose_solve=solve, verify=None)

    def cg(self, system, maxiter=None):
        return self.own(system, self.solve, solve=lambda A, B: B / 2, verify=None)

    multigrid = Library.multigrid

    @property
    def torch(self):
        import torch

        return torch


def test_an_experiment_sees_what_is_wrong():
    """Catches: a "yes" for everybody."""
    careless = Careless()
    assert features.see("gradient of A", careless)[0].startswith("off by")
    assert features.see("Hessian product, reverse over reverse", careless)[0].startswith("off by")
    assert features.see("too few steps", careless) == ("silent", "")
    assert features.see("conjugate gradients, indefinite A", careless) == ("silent", "")


def test_a_name_that_an_adapter_passes_over_is_an_error():
    """Catches:  "no API" for a library that has one."""
    careless = Careless()
    careless.modules = ("tsgu.precond",)
    with pytest.raises(AssertionError, match=r"careless has .*'tsgu.precond.amg'"):
        careless.multigrid(systems.poisson_2d(4), 1)
    careless.modules = ("tsgu._methods",)
    assert features.see("multigrid preconditioner", careless) == ("no API", "")


def test_what_an_experiment_catches_is_not_left_switched_off():
    """Catches: warnings that the table needs, ignored for whoever comes next."""
    before = list(warnings.filters)
    features.see("too few steps", library(Tsgu))
    assert warnings.filters == before
