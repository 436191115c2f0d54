"""The comparison with other libraries, without them: what is judged, computed and written."""

import csv
import math
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

from tests.benchmarks.comparison import goals, process, table
from tests.benchmarks.comparison.problems import GALLERY, POISSON2, RECIPES, Case, convection_diffusion, grid, recipes
from tests.benchmarks.comparison.process import Failed, Process
from tests.benchmarks.comparison.schedule import Budget, Entry
from tests.benchmarks.comparison.verdict import Check, check
from tests.benchmarks.peers import CONTESTANTS, Contestant

PEERS = Path(__file__).parent / "benchmarks" / "peers"


@pytest.fixture(params=[(), (3,)], ids=["vector", "block"])
def solved(request):
    """A nonsymmetric complex system with its solution, adjoint solution and gradient, by dense algebra."""
    rng = np.random.default_rng(5)
    A = convection_diffusion(5)
    A = sp.csr_array(A + 1j * sp.diags_array(rng.standard_normal(25)))
    shape = (25, *request.param)
    b, w = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape) for _ in range(2))
    dense = A.toarray()
    x, lam = np.linalg.solve(dense, b), np.linalg.solve(dense.T, w)
    row, col = A.tocoo().coords
    grad = -(lam.reshape(25, -1) @ x.reshape(25, -1).T)[row, col]
    return A, b, w, x, lam, grad


def test_a_right_answer_passes(solved):
    """Catches: a check that nobody passes, or that mixes up the transpose."""
    found = check(*solved)
    assert not found.complaint
    assert max(found.residual, found.gradient) < 1e-12


def test_wrong_answers_are_caught(solved):
    """Catches: a library that is fast because it is wrong."""
    A, b, w, x, lam, grad = solved
    wrong_adjoint = np.linalg.solve(A.toarray(), w)
    assert "did not converge" in check(A, b, w, x * (1 + 2e-8), lam, grad).complaint
    assert "did not converge" in check(A, b, w, x, wrong_adjoint, grad).complaint
    assert "did not converge: residual nan" in check(A, b, w, np.full_like(x, np.nan), lam, grad).complaint
    assert "wrong gradient" in check(A, b, w, x, lam, -grad).complaint
    assert "wrong gradient" in check(A, b, w, x, lam, grad.conj()).complaint


def test_the_worst_column_decides():
    """Catches: a residual averaged over the columns."""
    A, b = sp.csr_array(sp.eye_array(4)), np.ones((4, 3))
    x = b.copy()
    x[:, 1] += 1e-6
    assert check(A, b, b, x, b, -np.ones(4) * 3).forward == pytest.approx(1e-6)


def test_an_answer_of_another_shape_is_refused(solved):
    """Catches: (n, 1) and (n,), which would be broadcast to a matrix."""
    A, b, w, x, lam, grad = solved
    with pytest.raises(ValueError, match="must have shapes"):
        check(A, b, w, x[..., None], lam, grad)


def entry(library="scipy", method="cg", seconds=(1.0,), **given):
    contestant = next((c for c in CONTESTANTS if (c.library, c.method) == (library, method)), None)
    given = {"case": f"{POISSON2} 64^2", "family": POISSON2, "n": 4096, "nnz": 20224, "columns": 1} | given
    return Entry(
        contestant=contestant or Contestant(library, method, lambda case: True),
        times=list(seconds),
        first=2.0,
        checks=[Check(1e-9, 2e-9, 1e-16), Check(3e-9, 1e-9, 1e-16)],
        **given,
    )


def test_a_ratio_takes_the_fastest_that_came_out_right():
    """Catches: a ratio to a rival that failed."""
    entries = [
        entry("tsgu", "linear_cg", [0.5, 0.1, 0.3]),
        entry("jax", "cg", [1.5, 0.6, 0.2]),
        entry("scipy", "cg", [0.7]),
        entry("lineax", "CG", [0.01], status="did not converge: residual 1e-3"),
        entry("klujax", "solve_with_symbol", []),
    ]
    value, rival = goals.ratio(entries, f"{POISSON2} 64^2", goals.ours, goals.peer)
    assert value == pytest.approx(0.3 / 0.6)
    assert str(rival.contestant) == "jax: cg"
    assert math.isnan(goals.ratio(entries, "elsewhere", goals.ours, goals.peer)[0])


def test_the_slope_is_the_exponent():
    """Catches: a fit of time itself, not of its logarithm."""
    n = np.array([1e3, 1e4, 1e6])
    assert goals.slope(n, 3e-7 * n**1.25) == pytest.approx(1.25)
    assert math.isnan(goals.slope([100], [1.0]))


def test_memory_counts_what_was_there_before():
    """Catches: a peak that leaves out A and B, set against bytes that have them."""
    own = entry("tsgu", "linear_cg", n=10, nnz=28, peaks=[100, 300])
    inputs = 28 * 12 + 11 * 4 + 80
    assert goals.memory_ratio(own) == pytest.approx((300 + inputs) / (inputs + 2 * 80 + 28 * 8))


def test_the_summary_names_the_goals_of_the_cases_that_ran():
    """Catches: a line of nothing for each case that was not asked for."""
    entries = [entry("tsgu_jax", "linear_cg", [0.2]), entry("scipy", "cg", [0.5]), entry("scipy", "splu", [0.1])]
    lines = goals.summary(entries).splitlines()
    assert [line.split()[-2:] for line in lines[1:3]] == [["0.40", "0.4"], ["2.00", "0.4"]]
    assert "scipy: cg" in lines[1]
    assert not any("1000^2" in line for line in lines)


SURROUNDINGS = {"machine": "a machine", "date": "today", "versions": "numpy 2"}


def rows(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines() if line[:2] == "| "]


def test_the_table_is_sorted_and_drops_nobody():
    """Catches: a contestant that failed and is not seen to have failed."""
    entries = [
        entry("scipy", "cg", [0.4, 0.5, 0.6]),
        entry("jax", "cg", [], status="over 30 s"),
        entry("tsgu", "linear_cg", [0.25]),
        entry("lineax", "CG", [0.1], status="failed: ValueError: a | b"),
    ]
    text = table.markdown(entries, SURROUNDINGS, Budget(30, 5, 1, 1e9))
    found = rows(text)[2:]
    assert [row[0] for row in found] == ["**tsgu**", "scipy", "jax", "lineax"]
    assert found[1][2:6] == ["500 ms", "450 ms to 550 ms", "2.00", "2 s"]
    assert found[1][7] == "3e-09, 2e-09"  # the worst of all rounds
    assert found[2][2] == "over 30 s"
    assert "a \\| b" in text


def test_the_csv_has_everybody(tmp_path):
    """Catches: numbers that cannot be found again."""
    entries = [entry(seconds=[0.4, 0.5, 0.6], steps=(12, None)), entry("jax", "cg", [], status="over 30 s")]
    table.write_csv(tmp_path / "results.csv", entries)
    with (tmp_path / "results.csv").open() as file:
        first, second = csv.DictReader(file)
    assert (first["seconds"], first["rounds"], first["forward_steps"], first["adjoint_steps"]) == ("0.5", "3", "12", "")
    assert (second["status"], second["seconds"]) == ("over 30 s", "")


def test_the_figure_has_a_line_for_each_contestant(tmp_path):
    """Catches: a contestant that is measured and not drawn."""
    pytest.importorskip("matplotlib")
    from tests.benchmarks.comparison import figure

    entries = [entry("tsgu", "linear_cg", [n * 1e-6], n=n) for n in (100, 10_000)] + [entry("jax", "cg", [0.5])]
    figure.draw(tmp_path / "time.svg", entries)
    drawn = (tmp_path / "time.svg").read_text()
    assert "<!-- tsgu: linear_cg   1.00, - -->" in drawn
    assert "<!-- jax: cg   -, - -->" in drawn


def test_a_case_survives_its_file(tmp_path):
    """Catches: workers that solve another problem than the one that is checked."""
    recipe = next(r for r in RECIPES if r.columns)
    case = recipe.case()
    case.save(tmp_path / "case.npz")
    again = Case.load(tmp_path / "case.npz")
    assert (again.name, again.family, again.definite, again.columns) == (case.name, case.family, True, 64)
    assert (again.A != case.A).nnz == 0
    np.testing.assert_array_equal(again.w, case.w)
    np.testing.assert_allclose(np.linalg.norm(again.b, axis=0), 1)
    np.testing.assert_array_equal(again.rows, case.A.tocoo().coords[0])


def test_the_matrices_are_what_they_are_called():
    """Catches: a Laplacian of the wrong grid, or convection that is symmetric."""
    one = 2 * np.eye(3) - np.eye(3, k=1) - np.eye(3, k=-1)
    eye = np.eye(3)
    np.testing.assert_array_equal(grid(3, 2).toarray(), np.kron(one, eye) + np.kron(eye, one))
    assert grid(4, 3).shape == (64, 64)
    A = convection_diffusion(6).toarray()
    off = A - np.diag(A.diagonal())
    assert off.max() <= 0  # an M-matrix, as upwind differences make
    assert A.sum(axis=1).min() > -1e-12
    assert np.abs(A - A.T).max() > 0.1


def test_a_family_grows_from_case_to_case():
    """Catches: a contestant that is given up at a large size, and so never tried at a smaller one."""
    for quick in (True, False):
        chosen = recipes(quick)
        for family in {recipe.family for recipe in chosen} - {GALLERY}:
            sizes = [int(r.name.split()[-1].split("^")[0]) for r in chosen if r.family == family]
            assert sizes == sorted(sizes)
    assert set(recipes(True)) | set(recipes(False)) == set(RECIPES)


def test_every_contestant_has_its_module():
    """Catches: a library that never takes part, because of a name."""
    assert {c.library for c in CONTESTANTS} <= {path.stem for path in PEERS.glob("*.py")}
    assert len({(c.library, c.method) for c in CONTESTANTS}) == len(CONTESTANTS)


@pytest.fixture
def worker():
    started = Process("no_such_library", "none", math.inf)
    yield started
    started.end()


def test_a_library_that_is_not_there_is_a_result(worker):
    """Catches: a run that ends because one peer is missing."""
    with pytest.raises(Failed, match=r"not installed: No module named .*no_such_library"):
        worker.ask("start", 60, case="", rtol=1e-8)
    assert worker.alive


def test_a_call_over_its_limit_ends_the_process(worker):
    """Catches: a contestant that is left running beside the others."""
    with pytest.raises(Failed, match="over 0 s"):
        worker.receive(0.1)
    assert not worker.alive


def test_an_error_inside_a_callback_is_told_by_its_last_line():
    """Catches: a table with a traceback in it."""
    text = "INTERNAL: CpuCallback: Traceback (most recent call last):\n  File x\n_EquinoxRuntimeError: No steps left.\n"
    assert process._wording("JaxRuntimeError", text) == "failed: EquinoxRuntimeError: No steps left."
