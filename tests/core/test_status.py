"""The log, its table and its plot, and the words of the warning."""

import dataclasses
import pickle
import subprocess
import sys
import threading
import warnings

import numpy as np
import pytest

from tsgu._core.report import _log, _status
from tsgu._core.report._status import ColumnInfo


def info(*columns, method="minres", transposed=False, seconds=0.25):
    return _status.summarize(method, transposed, columns, seconds)


GOOD = ColumnInfo("converged", 3, 1e-9, np.array([1.0, 1e-4, 1e-9]))
POOR = ColumnInfo("iteration limit", 7, 2e-3, np.geomspace(1, 2e-3, 7))
WORSE = ColumnInfo("stagnation", 5, 0.5, None)


def test_a_summary_is_as_bad_as_its_worst_column():
    """Catches: a failed column hidden behind good ones."""
    both = info(GOOD, POOR, WORSE)
    assert (both.status, both.iterations, both.residual) == ("stagnation", 7, 0.5)
    assert not both.converged
    assert both.history is POOR.history
    assert info(GOOD, ColumnInfo("non-finite", 0, float("nan"))).status == "non-finite"
    assert np.isnan(info(GOOD, ColumnInfo("non-finite", 0, float("nan"))).residual)
    assert info(ColumnInfo("accuracy limit", 3, 1e-7)).converged
    assert info(ColumnInfo("not verified", None, None)).residual is None


def test_the_warning_names_solve_residual_target_and_remedy():
    """Catches: a warning that leaves the user guessing, or whose figures make each one a new one to Python."""
    text = _status.describe(info(GOOD, POOR, WORSE, transposed=True), 1e-8)
    assert text == (
        "minres on the adjoint system (A^T): stagnation; relative residual about 1e-1, target 1.0e-08. The residual "
        "stopped falling. Give a preconditioner M, try another method, or use direct. "
        'See "When it does not converge: stagnation" in the documentation.'
    )
    assert text == _status.describe(info(WORSE, dataclasses.replace(POOR, iterations=9), transposed=True), 1e-8)
    assert _status.describe(info(POOR), None, "Do this.").endswith(
        "iteration limit; relative residual about 1e-3. Do this. "
        'See "When it does not converge: iteration limit" in the documentation.'
    )
    for residual, says in ((0.0, "0"), (1e-4, "about 1e-4"), (9.9e-4, "about 1e-4"), (float("inf"), "not finite")):
        column = dataclasses.replace(POOR, residual=residual)
        assert f"; relative residual {says}, target" in _status.describe(info(column), 1e-8)
    assert "iteration limit; member 2 of 4, relative residual" in _status.describe(
        info(POOR), 1e-8, "", "member 2 of 4"
    )
    unmeasured = dataclasses.replace(POOR, residual=None)
    assert "iteration limit. Raise" in _status.describe(info(unmeasured), None)


def test_the_exact_figures_travel_with_the_warning():
    """Catches: what the text leaves out is lost; or it is lost on the way from another process."""
    solved = info(GOOD, POOR, transposed=True)
    with pytest.warns(_status.ConvergenceWarning) as heard:
        _log.report(solved, 1e-8)
    assert heard[0].message.info is solved
    copied = pickle.loads(pickle.dumps(heard[0].message))
    assert str(copied) == str(heard[0].message)
    assert (copied.info.residual, copied.info.iterations, copied.info.transposed) == (2e-3, 7, True)


def test_only_what_is_not_sound_is_warned_of_and_all_is_logged():
    """Catches: a warning at every solve, or none at a bad one."""
    with _log.record() as outer, _log.record() as inner:
        _log.report(info(GOOD), 1e-8)
        with pytest.warns(_status.ConvergenceWarning, match="iteration limit"):
            _log.report(info(POOR), 1e-8)
    _log.report(info(GOOD), 1e-8)
    assert [i.status for i in inner] == [i.status for i in outer] == ["converged", "iteration limit"]


def test_the_warning_points_at_the_users_line():
    """Catches: a warning attributed to a line of the package, which the user cannot change and which is shown only
    once."""
    import torch

    import tsgu

    A = torch.diag(torch.arange(1.0, 30.0)).to_sparse()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        tsgu.linear_cg(A, torch.ones(29), maxiter=1)
    assert [w.filename for w in caught if w.category is _status.ConvergenceWarning] == [__file__]


def test_solves_of_other_threads_are_collected():
    """Catches: a log kept in a context variable, which the threads of autograd do not see."""
    with _log.record() as log:
        thread = threading.Thread(target=_log.report, args=(info(GOOD), None))
        thread.start()
        thread.join()
    assert len(log) == 1


def test_the_log_prints_as_a_table():
    """Catches: a list of reprs."""
    log = _log.Log()
    log._infos += [
        info(GOOD),
        info(ColumnInfo("converged", None, 2e-16), method="direct", transposed=True, seconds=None),
    ]
    assert repr(log).splitlines() == [
        "method  system  status     iterations  residual  seconds",
        "minres  A       converged  3           1.0e-09   0.250",
        "direct  A^T     converged  -           2.0e-16   -",
    ]


def test_a_slice_is_a_log_and_notes_stand_once_below_the_table():
    """Catches: log[-2:] printed as a list; a choice of auto that only its object tells."""
    log = _log.Log([dataclasses.replace(info(column), note="auto: why") for column in (GOOD, POOR)])
    assert isinstance(log[1:], _log.Log)
    assert len(log[1:]) == 1
    assert log[1:][0] is log[1]
    assert repr(log).splitlines()[-1] == "auto: why"
    assert repr(log).count("auto") == 1


def test_what_is_set_aside_is_neither_logged_nor_warned_of():
    """Catches: an attempt that failed, reported though another one solved the system."""
    with _log.record() as log, warnings.catch_warnings():
        warnings.simplefilter("error")
        with _log.set_aside() as reports:
            _log.report(info(POOR), 1e-8, "Do this.")
        _log.report(info(GOOD), 1e-8)
    assert [report.info.status for report in reports] == ["iteration limit"]
    assert reports[0][1:] == (1e-8, "Do this.")
    assert [entry.status for entry in log] == ["converged"]


def test_a_residual_that_vanishes_is_drawn():
    """Catches: a warning of matplotlib, and an empty picture, where the first step is exact."""
    import matplotlib

    matplotlib.use("agg")
    log = _log.Log([info(ColumnInfo("converged", 1, 0.0, np.zeros(1)))])
    ax = log.plot()
    ax.figure.canvas.draw()
    assert ax.get_yscale() == "linear"
    matplotlib.pyplot.close(ax.figure)


def test_the_plot_shows_each_history_with_its_axes_labelled():
    """Catches: an empty picture."""
    import matplotlib

    matplotlib.use("agg")
    log = _log.Log()
    log._infos += [info(GOOD), info(POOR, transposed=True), info(WORSE)]
    ax = log.plot()
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_yscale()) == ("step", "relative residual", "log")
    assert [line.get_label() for line in ax.lines] == [
        "0: minres, forward, converged",
        "1: minres, adjoint, iteration limit",
    ]
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), GOOD.history)
    np.testing.assert_array_equal(ax.lines[0].get_xdata(), [1, 2, 3])
    matplotlib.pyplot.close(ax.figure)


@pytest.mark.parametrize("kinds", [1, 7, 40])
def test_the_legend_of_many_solves_leaves_the_curves_free(kinds):
    """Catches: a line of the legend for each of sixty solves, which covers the picture."""
    import matplotlib

    matplotlib.use("agg")
    log = _log.Log([info(POOR, method=f"m{i % kinds}", transposed=i % 2 == 1) for i in range(80)])
    ax = log.plot()
    ax.figure.canvas.draw()
    legend = ax.get_legend()
    names = [text.get_text() for text in legend.get_texts()]
    assert len(ax.lines) == 80
    assert len(names) <= 8
    assert (
        names[0]
        == f"m0, forward, iteration limit, {[i % kinds == 0 and i % 2 == 0 for i in range(80)].count(True)} solves"
    )
    told = sum(int(name.split()[-2]) for name in names)
    assert legend.get_title().get_text() == ("" if told == 80 else f"and {80 - told} more solves")
    box, axes = legend.get_window_extent(), ax.get_window_extent()
    assert box.y0 >= axes.y1 - 1
    assert box.y1 <= ax.figure.bbox.y1
    assert box.x1 <= ax.figure.bbox.x1
    colours = {line.get_label(): line.get_color() for line in ax.lines}
    assert all(line.get_color() == colours[line.get_label()] for line in ax.lines)
    matplotlib.pyplot.close(ax.figure)


def test_a_missing_matplotlib_names_the_extra():
    """Catches: ModuleNotFoundError from inside a method called plot."""
    code = """
import sys
sys.modules["matplotlib"] = None
from tsgu._core.report._log import Log
try:
    Log().plot()
except ImportError as error:
    assert 'pip install "tsgu[plot]"' in str(error)
else:
    raise AssertionError
"""
    subprocess.run([sys.executable, "-c", code], check=True)
