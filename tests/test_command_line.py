"""The command line: what it prints and writes, and its exit status.

Most tests run it in this process through ``main``; a few run ``python -m tsgu`` to see the process itself.
"""

import gzip
import os
import pty
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.io
import scipy.sparse as sp

from tsgu._cli import _backend, _heat, _problem, _progress, _torch, main
from tsgu._cli._arguments import METHODS
from tsgu._cli._errors import CommandError
from tsgu._cli._factored import Factored
from tsgu._cli._reference import Reference

ROOT = Path(__file__).resolve().parent.parent
COLUMNS = ("method", "n", "nnz", "iterations", "forward", "adjoint", "error", "allowed", "seconds", "check")


@pytest.fixture
def tsgu(capsys):
    """Runs the command in this process: exit status, rows of the table as dictionaries, lines of stdout and stderr."""

    def run(*argv):
        status = main([str(argument) for argument in argv])
        out, err = capsys.readouterr()
        return SimpleNamespace(status=status, rows=rows(out), out=out.splitlines(), err=err.splitlines())

    return run


def rows(out):
    """The lines of the table. ``a + b`` iterations become a pair of numbers."""
    table = [line.replace(" + ", "+").split(maxsplit=9) for line in out.splitlines() if line.startswith(METHODS)]
    parsed = [dict(zip(COLUMNS, cells, strict=True)) for cells in table]
    for row in parsed:
        row["iterations"] = None if row["iterations"] == "-" else tuple(map(int, row["iterations"].split("+")))
        row.update({name: float(row[name]) for name in COLUMNS[4:9]})
    return parsed


def process(*argv, **kwargs):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "tsgu", *map(str, argv)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **kwargs,
    )


def nonsymmetric(n=30, seed=0, field="real"):
    """A well-conditioned sparse matrix whose transpose and conjugate are quite other matrices."""
    random = np.random.default_rng(seed)
    A = sp.random_array((n, n), density=0.15, rng=random, format="csr") + 3 * sp.eye_array(n, format="csr")
    if field == "complex":
        A.data = A.data * np.exp(2j * np.pi * random.random(A.nnz))
    return A


def write(path, matrix):
    scipy.io.mmwrite(path, matrix, symmetry="general")
    return path


def write_text(path, banner, *lines):
    path.write_text("\n".join((f"%%MatrixMarket matrix {banner}", *lines)) + "\n")
    return path


# The built-in problem


def test_without_arguments_every_method_solves_and_differentiates_the_heat_problem():
    """Catches a method that is left out, a check that does not pass, output on stderr, and a wrong exit status."""
    command = process()
    out, err = command.communicate(timeout=300)
    table = rows(out)
    assert (command.returncode, err) == (0, "")
    assert [row["method"] for row in table] == list(METHODS)
    for row in table:
        assert (row["n"], row["nnz"], row["check"]) == ("10000", "49600", "ok")
        assert max(row["forward"], row["adjoint"]) <= 1.05e-8  # as printed, with two digits
        assert row["error"] <= row["allowed"] < 1e-5
        assert (row["iterations"] is None) == (row["method"] == "direct")
        assert row["iterations"] is None or min(row["iterations"]) > 100


def test_heat_problem_is_the_five_point_laplacian_where_the_conductivity_is_constant(monkeypatch):
    """Catches a boundary that is left open and a row that does not balance, by the textbook matrix for k = 1."""
    monkeypatch.setattr(np, "sin", np.zeros_like)
    A, b = _heat.heat_conduction(7)
    line = sp.diags_array([-np.ones(6), 2 * np.ones(7), -np.ones(6)], offsets=[-1, 0, 1])
    expected = sp.kron(line, sp.eye_array(7)) + sp.kron(sp.eye_array(7), line)
    np.testing.assert_allclose(A.toarray(), expected.toarray(), atol=1e-14)
    assert np.count_nonzero(b) > 0


def test_heat_problem_has_variable_conductivity_and_is_positive_definite():
    """Catches a conductivity that is not applied, and one that spoils symmetry."""
    A, _ = _heat.heat_conduction(8)
    dense = A.toarray()
    np.testing.assert_allclose(dense, dense.T)
    assert np.linalg.eigvalsh(dense).min() > 0
    assert np.ptp(np.diag(dense)) > 1


# Files

DENSE = np.array([[4.0, 1.0, 0.0], [-2.0, 5.0, 1.0], [0.0, 3.0, 6.0]])
COMPLEX = DENSE + 1j * np.array([[1.0, 0.0, 0.0], [2.0, 0.0, -1.0], [0.0, 0.0, 3.0]])
FILES = {
    "real general": (
        ("coordinate real general", "3 3 7", "1 1 4", "1 2 1", "2 1 -2", "2 2 5", "2 3 1", "3 2 3", "3 3 6"),
        DENSE,
    ),
    "integer": (
        ("coordinate integer general", "3 3 7", "1 1 4", "1 2 1", "2 1 -2", "2 2 5", "2 3 1", "3 2 3", "3 3 6"),
        DENSE,
    ),
    "repeated entries": (
        ("coordinate real general", "2 2 5", "1 1 1", "2 2 3", "1 1 1.5", "1 2 1", "1 1 0.5"),
        np.array([[3.0, 1.0], [0.0, 3.0]]),
    ),
    "stored zero": (
        ("coordinate real general", "2 2 4", "1 1 1", "1 2 0", "2 1 2", "2 2 3"),
        np.array([[1.0, 0.0], [2.0, 3.0]]),
    ),
    "real symmetric": (
        ("coordinate real symmetric", "2 2 3", "1 1 2", "2 1 -1", "2 2 4"),
        np.array([[2.0, -1.0], [-1.0, 4.0]]),
    ),
    "real skew-symmetric": (
        ("coordinate real skew-symmetric", "2 2 1", "2 1 -2"),
        np.array([[0.0, 2.0], [-2.0, 0.0]]),
    ),
    "complex general": (
        ("coordinate complex general", "2 2 3", "1 1 2 1", "1 2 0 -3", "2 2 4 0"),
        np.array([[2 + 1j, -3j], [0, 4]]),
    ),
    "complex symmetric": (
        ("coordinate complex symmetric", "2 2 3", "1 1 2 1", "2 1 1 1", "2 2 4 0"),
        np.array([[2 + 1j, 1 + 1j], [1 + 1j, 4]]),
    ),
    "complex hermitian": (
        ("coordinate complex hermitian", "2 2 3", "1 1 2 0", "2 1 1 1", "2 2 4 0"),
        np.array([[2, 1 - 1j], [1 + 1j, 4]]),
    ),
    "pattern general": (
        ("coordinate pattern general", "2 2 3", "1 1", "2 1", "2 2"),
        np.array([[1.0, 0.0], [1.0, 1.0]]),
    ),
    "pattern symmetric": (
        ("coordinate pattern symmetric", "3 3 4", "1 1", "2 1", "3 2", "3 3"),
        np.array([[1.0, 1.0, 0.0], [1.0, 0.0, 1.0], [0.0, 1.0, 1.0]]),
    ),
    "dense array": (("array real general", "2 2", "4", "-2", "1", "5"), np.array([[4.0, 1.0], [-2.0, 5.0]])),
    "one unknown": (("coordinate real general", "1 1 1", "1 1 4"), np.array([[4.0]])),
}


@pytest.mark.parametrize("kind", FILES)
def test_every_kind_of_matrix_market_file_is_solved_for_ones(kind, tmp_path, tsgu):
    """Catches a half of a symmetric file that is lost, a sign or conjugate of one that is wrong, and repeated entries
    of which the last wins."""
    lines, dense = FILES[kind]
    path = write_text(tmp_path / "a.mtx", *lines)
    run = tsgu(path, "--save", tmp_path / "x")
    assert (run.status, run.err) == (0, [])
    assert [row["method"] for row in run.rows] == ["direct"]
    x = np.load(tmp_path / "x")
    assert x.dtype == np.result_type(dense, np.float64)
    np.testing.assert_allclose(x, np.linalg.solve(dense, np.ones(len(dense))), rtol=1e-12)


def test_compressed_and_saved_matrices_give_the_same_solution(tmp_path, tsgu):
    """Catches an ending that is not looked at, and repeated entries of a .npz file that are not added."""
    A = nonsymmetric()
    expected = np.linalg.solve(A.toarray(), np.ones(30))
    write(tmp_path / "a.mtx", A)
    (tmp_path / "a.mtx.gz").write_bytes(gzip.compress((tmp_path / "a.mtx").read_bytes()))
    entries = A.tocoo()
    twice = sp.coo_array(
        (np.tile(entries.data / 2, 2), (np.tile(entries.row, 2), np.tile(entries.col, 2))), shape=A.shape
    )
    sp.save_npz(tmp_path / "coo.npz", twice)
    sp.save_npz(tmp_path / "csc.npz", A.astype(np.float32).astype(np.float64).tocsc())
    for name, rtol in (("a.mtx.gz", 1e-12), ("coo.npz", 1e-12), ("csc.npz", 1e-5)):
        run = tsgu(tmp_path / name, "--save", tmp_path / "x.npy")
        assert (run.status, run.rows[0]["nnz"]) == (0, str(A.nnz))
        np.testing.assert_allclose(np.load(tmp_path / "x.npy"), expected, rtol=rtol)


@pytest.mark.parametrize(
    "kind", ["npy", "column.npy", "block.npy", "txt", "complex.txt", "mtx", "sparse.mtx", "mtx.gz"]
)
def test_every_kind_of_right_hand_side_is_solved(kind, tmp_path, tsgu):
    """Catches a right-hand side that is ignored, transposed, cut to its real part, or left as (n, 1)."""
    A = nonsymmetric()
    random = np.random.default_rng(1)
    b = random.standard_normal(30)
    path = tmp_path / f"b.{kind}"
    if kind == "block.npy":
        b = random.standard_normal((30, 3))
    if kind == "complex.txt":
        b = b + 1j * random.standard_normal(30)
    if kind.endswith("npy"):
        np.save(path, b[:, None] if kind == "column.npy" else b)
    elif kind.endswith("txt"):
        np.savetxt(path, b)
    else:
        column = sp.coo_array(b[:, None]) if kind == "sparse.mtx" else b[:, None]
        scipy.io.mmwrite(tmp_path / "plain.mtx", column)
        data = (tmp_path / "plain.mtx").read_bytes()
        path.write_bytes(gzip.compress(data) if kind == "mtx.gz" else data)
    run = tsgu(write(tmp_path / "a.mtx", A), "--rhs", path, "--save", tmp_path / "x.npy")
    assert (run.status, run.err) == (0, [])
    x = np.load(tmp_path / "x.npy")
    assert x.shape == b.shape
    np.testing.assert_allclose(x, np.linalg.solve(A.toarray(), b), rtol=1e-11, atol=1e-13)


def test_a_zero_right_hand_side_passes_its_checks(tmp_path, tsgu):
    """Catches a finite difference whose step or scale is taken from the solution, which is zero."""
    np.save(tmp_path / "b.npy", np.zeros(30))
    run = tsgu(write(tmp_path / "a.mtx", nonsymmetric()), "--rhs", tmp_path / "b.npy", "--method", "gmres")
    assert (run.status, run.err, run.rows[0]["forward"]) == (0, [], 0.0)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
def test_every_method_passes_in_every_dtype(method, dtype, tmp_path, tsgu):
    """Catches a dtype that is not honoured, a default rtol for the wrong precision, and checks that only hold in double
    precision."""
    A, _ = _heat.heat_conduction(6)
    sp.save_npz(tmp_path / "a.npz", A)
    run = tsgu(tmp_path / "a.npz", "--method", method, "--dtype", dtype, "--save", tmp_path / "x.npy")
    assert (run.status, run.err) == (0, [])
    single = dtype in ("float32", "complex64")
    assert dtype in run.out[0]
    assert f"rtol {1e-5 if single else 1e-8:.1e}" in run.out[0]
    x = np.load(tmp_path / "x.npy")
    assert x.dtype == dtype
    condition = np.linalg.cond(A.toarray())
    reference = np.linalg.solve(A.toarray(), np.ones(36))
    assert np.linalg.norm(x - reference) <= condition * (1e-5 if single else 1e-8) * np.linalg.norm(reference)


@pytest.mark.parametrize("method", ["direct", "bicgstab", "gmres"])
@pytest.mark.parametrize("field", ["real", "complex"])
def test_gradients_of_a_nonsymmetric_matrix_pass_for_the_methods_that_solve_it(method, field, tmp_path, tsgu):
    """Catches a reference or a backend that is right for symmetric or real matrices only."""
    run = tsgu(write(tmp_path / "a.mtx", nonsymmetric(field=field)), "--method", method)
    assert (run.status, run.err) == (0, [])
    assert run.rows[0]["allowed"] < 1e-6


def test_rtol_reaches_the_method(tmp_path, tsgu):
    """Catches an --rtol that is parsed and forgotten."""
    path = write(tmp_path / "a.mtx", nonsymmetric())
    loose, tight = (tsgu(path, "--method", "gmres", "--rtol", rtol).rows[0] for rtol in ("1e-2", "1e-12"))
    assert 1e-12 < loose["forward"] <= 1e-2
    assert tight["forward"] <= 1e-12
    assert loose["iterations"] < tight["iterations"]


def test_save_keeps_the_first_method_where_several_run(tmp_path, monkeypatch, tsgu):
    """Catches a solution of another method than --help says."""
    A, b = _heat.heat_conduction(10)
    monkeypatch.setattr(_problem, "heat_conduction", lambda: (A, b))
    run = tsgu("--save", tmp_path / "x.npy")
    assert [row["method"] for row in run.rows] == list(METHODS)
    np.testing.assert_allclose(np.load(tmp_path / "x.npy"), np.linalg.solve(A.toarray(), b), rtol=1e-12)


# Errors: one line, exit status 2


def refused(run, *fragments):
    assert (run.status, run.out, len(run.err)) == (2, [], 1)
    assert run.err[0].startswith("tsgu: error: ")
    for fragment in fragments:
        assert fragment in run.err[0]
    assert "Traceback" not in run.err[0]


def damaged(folder):
    """Files that cannot be solved, and a word of what must be said."""
    write(folder / "good.mtx", nonsymmetric())
    good = (folder / "good.mtx").read_bytes()
    contents = {
        "empty.mtx": (b"", "empty"),
        "truncated.mtx": (good[: len(good) // 2], "Matrix Market"),
        "header.mtx": (good[:30], "Matrix Market"),
        "junk.mtx": (bytes(range(256)), "Matrix Market"),
        "truncated.mtx.gz": (gzip.compress(good)[:-100], "Matrix Market"),
        "plain.mtx.gz": (good, "Matrix Market"),
        "junk.npz": (b"PK\x03\x04 nothing", "save_npz"),
        "bounds.mtx": (b"%%MatrixMarket matrix coordinate real general\n2 2 1\n3 1 1.0\n", "Matrix Market"),
        "rectangular.mtx": (b"%%MatrixMarket matrix coordinate real general\n3 2 1\n1 1 1.0\n", "square"),
        "nothing.mtx": (b"%%MatrixMarket matrix coordinate real general\n0 0 0\n", "at least one row"),
        "nan.mtx": (b"%%MatrixMarket matrix coordinate real general\n2 2 2\n1 1 nan\n2 2 1\n", "1 non-finite of 2"),
        "zero.mtx": (b"%%MatrixMarket matrix coordinate real general\n2 2 0\n", "singular"),
        "row.mtx": (b"%%MatrixMarket matrix coordinate real general\n2 2 2\n1 1 1\n1 2 1\n", "singular"),
        "ones.mtx": (b"%%MatrixMarket matrix array real general\n2 2\n1\n1\n1\n1\n", "singular"),
    }
    for name, (content, _) in contents.items():
        (folder / name).write_bytes(content)
    return {name: word for name, (_, word) in contents.items()}


@pytest.mark.parametrize("method", ["direct", "gmres"])
def test_a_file_that_cannot_be_solved_is_one_line_with_its_name(method, tmp_path, tsgu):
    """Catches a traceback, a second line, a table for nothing, and a file that is taken for another."""
    for name, word in damaged(tmp_path).items():
        refused(tsgu(tmp_path / name, "--method", method), name, word)
    refused(tsgu(tmp_path / "missing.mtx"), "missing.mtx", "no such file")
    refused(tsgu(tmp_path), "folder")
    refused(tsgu("a" * 5000), "too long")


def test_a_pickle_is_not_opened(tmp_path, tsgu):
    """Catches allow_pickle: a data file must not be able to run code."""
    np.save(tmp_path / "b.npy", np.array([{}], dtype=object))
    refused(tsgu(write(tmp_path / "a.mtx", nonsymmetric()), "--rhs", tmp_path / "b.npy"), "b.npy")


@pytest.mark.parametrize("consistent", [True, False])
def test_singular_to_working_precision_is_refused_though_the_pivots_are_not_zero(consistent, tmp_path, tsgu):
    """Catches a solution or a gradient without a correct digit that is passed on because rounding hid a zero pivot."""
    line = sp.diags_array([-np.ones(19), np.array([1.0, *[2.0] * 18, 1.0]), -np.ones(19)], offsets=[-1, 0, 1])
    random = np.random.default_rng(0)
    scale = sp.diags_array(random.uniform(0.5, 2.0, 400))
    laplacian = sp.kron(line, sp.eye_array(20)) + sp.kron(sp.eye_array(20), line)  # no boundary: constants are lost
    A = scale @ laplacian @ scale
    np.save(tmp_path / "b.npy", A @ random.standard_normal(400) if consistent else np.ones(400))
    refused(tsgu(write(tmp_path / "a.mtx", A), "--rhs", tmp_path / "b.npy", "--method", "linear_cg"), "singular")


def test_bad_right_hand_sides_are_one_line(tmp_path, tsgu):
    """Catches a shape that is broadcast, text that is no number, a file without numbers, and non-finite entries."""
    path = write(tmp_path / "a.mtx", nonsymmetric())
    for name, b in {"long": np.ones(31), "row": np.ones((1, 30)), "cube": np.ones((30, 1, 1))}.items():
        np.save(tmp_path / f"{name}.npy", b)
        refused(tsgu(path, "--rhs", tmp_path / f"{name}.npy"), f"{name}.npy", "(30,) or (30, k)", str(b.shape))
    np.save(tmp_path / "inf.npy", np.array([np.inf] * 2 + [1.0] * 28))
    refused(tsgu(path, "--rhs", tmp_path / "inf.npy"), "inf.npy", "b must be finite", "2 non-finite of 30")
    (tmp_path / "words.txt").write_text("not a number\n")
    (tmp_path / "blank.txt").write_text("\n\n")
    refused(tsgu(path, "--rhs", tmp_path / "words.txt"), "words.txt")
    refused(tsgu(path, "--rhs", tmp_path / "blank.txt"), "blank.txt")
    refused(tsgu(path, "--rhs", tmp_path / "missing.npy"), "no such file")


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (["--method", "cholesky"], ["unknown method 'cholesky'", *METHODS]),
        (["--dtype", "float16"], ["unknown dtype 'float16'", "complex64"]),
        (["--rtol", "small"], ["--rtol", "finite number >= 0", "'small'"]),
        (["--rtol", "-1"], ["--rtol", "'-1'"]),
        (["--rtol", "nan"], ["--rtol", "'nan'"]),
        (["--rtol"], ["--rtol", "expected one argument"]),
        (["another.mtx"], ["another.mtx"]),
        (["--meth", "direct"], ["--meth"]),
        (["--save", "no/such/folder/x.npy"], ["no/such/folder"]),
        (["--plot", "history.xyz"], ["history.xyz", ".png"]),
    ],
)
def test_arguments_that_are_not_understood_are_one_line(arguments, fragments, tmp_path, tsgu, monkeypatch):
    """Catches argparse's usage before the error, and a place to write that is looked at only after the solve."""
    monkeypatch.chdir(tmp_path)
    refused(tsgu(write(tmp_path / "a.mtx", nonsymmetric()), *arguments), *fragments)


def test_a_real_dtype_for_complex_data_is_refused(tmp_path, tsgu):
    """Catches an imaginary part that is dropped, in the matrix or in the right-hand side."""
    real, complex_ = write(tmp_path / "a.mtx", nonsymmetric()), write(tmp_path / "c.mtx", nonsymmetric(field="complex"))
    np.save(tmp_path / "b.npy", 1j * np.ones(30))
    refused(tsgu(complex_, "--dtype", "float64"), "complex64 or complex128")
    refused(tsgu(real, "--rhs", tmp_path / "b.npy", "--dtype", "float32"), "complex64 or complex128")


def test_entries_that_overflow_in_the_dtype_asked_for_are_refused(tmp_path, tsgu):
    """Catches infinities made by the conversion itself."""
    path = write(tmp_path / "a.mtx", sp.csr_array(np.diag([1e39, 1.0])))
    refused(tsgu(path, "--dtype", "float32"), "float32", "1 non-finite of 2")


def test_a_missing_torch_is_one_line_with_the_remedy(tmp_path, tsgu, monkeypatch):
    """Catches a traceback on a machine where only the NumPy part is installed."""
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "tsgu._cli._torch")
    refused(tsgu(write(tmp_path / "a.mtx", nonsymmetric())), 'pip install "tsgu[torch]"')


def test_a_missing_matplotlib_is_one_line_before_anything_is_solved(tmp_path, tsgu, monkeypatch):
    """Catches a traceback, or the loss of a long solve because the picture cannot be drawn after it."""
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    path = write(tmp_path / "a.mtx", nonsymmetric())
    refused(tsgu(path, "--plot", tmp_path / "h.png"), 'pip install "tsgu[plot]"')
    assert tsgu(path).status == 0


def test_out_of_memory_is_one_line(tsgu, monkeypatch):
    """Catches a traceback where the factors of a large matrix do not fit."""

    def too_large():
        raise MemoryError("cannot allocate 1 TiB")

    monkeypatch.setattr(_problem, "heat_conduction", too_large)
    refused(tsgu(), "out of memory", "1 TiB")


# Checks that fail: the table, one line, exit status 1


def test_a_solve_that_does_not_converge_is_told_in_one_line(tmp_path, tsgu):
    """Catches a raw Python warning, a silent failure, and a line for each of the two solves."""
    cycle = sp.csr_array(np.roll(np.eye(80), 1, axis=1))  # restarted GMRES makes no step at all before the last
    np.save(tmp_path / "b.npy", np.eye(80)[0])
    path = write(tmp_path / "a.mtx", cycle)
    run = tsgu(path, "--rhs", tmp_path / "b.npy", "--method", "gmres", "--save", tmp_path / "x.npy")
    assert (run.status, len(run.rows), len(run.err)) == (1, 1, 1)
    assert run.rows[0]["check"] == "FAILED"
    assert run.rows[0]["forward"] > 0.5
    assert run.err[0].startswith("tsgu: not converged: gmres on the forward system: stagnation")
    assert "adjoint solve failed too" in run.err[0]
    assert np.load(tmp_path / "x.npy").shape == (80,)


def test_a_method_for_symmetric_matrices_says_so_on_another(tmp_path, tsgu):
    """Catches advice to iterate longer where the method cannot work."""
    A = nonsymmetric() - 6 * sp.eye_array(30, format="csr")
    run = tsgu(write(tmp_path / "a.mtx", A), "--method", "minres")
    assert (run.status, len(run.err)) == (1, 1)
    assert "not symmetric" in run.err[0]


def spoiled(change):
    """A backend whose solution is changed after the fact, and whose own reports are all well."""

    def differentiate(A, b, w, method, rtol):
        return change(A.toarray(), b, w, _torch.differentiate(A, b, w, method, rtol))

    return SimpleNamespace(differentiate=differentiate)


def at_entries(dense_gradient, A):
    return dense_gradient[np.nonzero(A)]


WRONG = {
    "sign": lambda A, b, w, s: s._replace(gradient=-s.gradient),
    "transposed": lambda A, b, w, s: s._replace(gradient=at_entries(-np.outer(s.x.conj(), s.adjoint), A)),
    "without conjugate": lambda A, b, w, s: s._replace(gradient=at_entries(-np.outer(s.adjoint, s.x), A)),
    "scaled": lambda A, b, w, s: s._replace(gradient=s.gradient * (1 + 1e-5)),
    "one entry lost": lambda A, b, w, s: s._replace(gradient=np.where(np.arange(s.gradient.size) == 7, 0, s.gradient)),
    "adjoint with A": lambda A, b, w, s: s._replace(adjoint=np.linalg.solve(A, w)),
    "adjoint with A^T": lambda A, b, w, s: s._replace(adjoint=np.linalg.solve(A.T, w)),
    "solution": lambda A, b, w, s: s._replace(x=s.x * (1 + 1e-6)),
    "not finite": lambda A, b, w, s: s._replace(gradient=np.full_like(s.gradient, np.nan)),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_the_checks_fail_on_a_wrong_solution_or_gradient(mistake, tmp_path, tsgu, monkeypatch):
    """Catches checks that cannot fail: every backend here reports success and is wrong."""
    monkeypatch.setattr(_backend, "load", lambda: spoiled(WRONG[mistake]))
    run = tsgu(write(tmp_path / "a.mtx", nonsymmetric(field="complex")))
    assert (run.status, len(run.err)) == (1, 1)
    assert run.rows[0]["check"] == "FAILED"
    assert run.err[0].startswith("tsgu: check failed: ")
    part = {"solution": "forward system", "adjoint with A": "adjoint system", "adjoint with A^T": "adjoint system"}
    assert part.get(mistake, "gradient by direct") in run.err[0]


def test_the_backend_unspoiled_passes_the_same_checks(tmp_path, tsgu, monkeypatch):
    """Catches a harness for the test above that fails whatever the backend does."""
    monkeypatch.setattr(_backend, "load", lambda: spoiled(lambda A, b, w, s: s))
    assert tsgu(write(tmp_path / "a.mtx", nonsymmetric(field="complex"))).status == 0


def test_a_gradient_check_that_tells_little_is_said_to(tmp_path, tsgu):
    """Catches a check so loose that it would pass on anything, without a word about it."""
    path = write(tmp_path / "a.mtx", _heat.heat_conduction(6)[0])
    run = tsgu(path, "--method", "linear_cg", "--rtol", "0.5")
    assert run.status == 0
    assert run.rows[0]["allowed"] > 0.1
    assert len(run.err) == 1
    assert "the gradient check of linear_cg tells little" in run.err[0]


def test_other_warnings_of_the_solve_are_lines_of_the_command(tmp_path, tsgu, monkeypatch):
    """Catches a warning that is swallowed, or printed with a file name and a line of source."""

    def differentiate(*arguments):
        warnings.warn("something to know", UserWarning, stacklevel=1)
        return _torch.differentiate(*arguments)

    monkeypatch.setattr(_backend, "load", lambda: SimpleNamespace(differentiate=differentiate))
    run = tsgu(write(tmp_path / "a.mtx", nonsymmetric()))
    assert (run.status, run.err) == (0, ["tsgu: something to know"])


# The reference


@pytest.mark.parametrize("field", ["real", "complex"])
@pytest.mark.parametrize("exponent", [0, 3, 6])
def test_the_finite_difference_is_as_near_to_the_derivative_as_it_says(field, exponent):
    """Catches a step that is a guess: too long or too short for an ill-conditioned matrix, by the exact tangent."""
    random = np.random.default_rng(exponent)
    dtype = np.dtype(np.complex128 if field == "complex" else np.float64)
    left, right = (np.linalg.qr(_problem.gaussian(random, (20, 20), dtype))[0] for _ in range(2))
    A = sp.csr_array(left * np.logspace(0, -exponent, 20) @ right)
    b, w = (_problem.gaussian(random, (20,), dtype) for _ in range(2))
    reference = Reference(_problem.Problem("", A, b, w, 1e-8))
    dense, E = A.toarray(), reference.E.toarray()
    exact = np.vdot(w, np.linalg.solve(dense, reference.e - E @ np.linalg.solve(dense, b))).real
    bound = reference._difference_error
    rounding = 24 * np.finfo(np.float64).eps * 10**exponent  # rows of 20 entries, times the condition number
    assert abs(reference.derivative - exact) <= bound + rounding * abs(exact)
    assert bound <= 10 * rounding ** (2 / 3) * abs(exact)  # what a central difference can reach


@pytest.mark.parametrize("adjoint", [False, True])
def test_condition_number_is_that_of_the_dense_formula(adjoint):
    """Catches an estimate of A in place of its inverse, or of the wrong system. An estimate is below, and rarely by
    much."""
    A = nonsymmetric(field="complex")
    A = sp.csr_array(sp.diags_array(np.logspace(0, 8, 30)) @ A)
    dense = A.toarray().conj().T if adjoint else A.toarray()
    b = np.ones(30, dtype=complex)
    x = np.linalg.solve(dense, b)
    exact = (abs(np.linalg.inv(dense)) @ (abs(dense) @ abs(x) + 1)).max() / abs(x).max()
    estimate = Factored(A).condition(x, b, adjoint)
    assert exact / 3 <= estimate <= exact * (1 + 1e-6)


def test_reference_solves_where_pivots_on_the_diagonal_fail():
    """Catches an ordering for symmetric patterns that is trusted on a zero or tiny diagonal."""
    random = np.random.default_rng(0)
    for diagonal in (0.0, 1e-14):
        A = sp.csr_array(np.diag(np.full(40, diagonal)) + np.kron(np.eye(20), [[0, 1], [2, 0]]))
        b = random.standard_normal(40)
        factored = Factored(A)
        np.testing.assert_allclose(factored.solve(b), np.linalg.solve(A.toarray(), b), rtol=1e-12)
        np.testing.assert_allclose(factored.solve(b, True), np.linalg.solve(A.toarray().T, b), rtol=1e-12)
        assert factored.unit < 1e-13


# The picture


@pytest.mark.parametrize("method", ["direct", "gmres"])
def test_plot_writes_a_picture(method, tmp_path, tsgu):
    """Catches a picture that needs a display, and one that is not written where there is no history."""
    target = tmp_path / "history.png"
    run = tsgu(write(tmp_path / "a.mtx", nonsymmetric()), "--method", method, "--plot", target)
    assert (run.status, run.err) == (0, [])
    assert target.read_bytes().startswith(b"\x89PNG")


# The terminal


@pytest.fixture
def terminal(monkeypatch):
    """A terminal: ``connect()`` puts it in place of stderr, ``written()`` returns what has been written to it."""
    outside, inside = pty.openpty()
    with os.fdopen(inside, "w") as stream:

        def written():
            stream.write("|")  # so that there is something to read
            stream.flush()
            return os.read(outside, 1 << 16).decode().removesuffix("|")

        yield SimpleNamespace(connect=lambda: monkeypatch.setattr(sys, "stderr", stream), written=written)
        monkeypatch.undo()
    os.close(outside)


def test_a_long_solve_shows_its_progress_on_a_terminal_and_clears_it(terminal, monkeypatch):
    """Catches a line that never comes, does not count, or stays in the way of what follows."""
    monkeypatch.setattr(_progress, "PATIENCE", 0.02)
    terminal.connect()
    with _progress.progress("solving by minres"):
        time.sleep(0.2)
    *lines, blank, rest = terminal.written().split("\r")[1:]
    assert lines
    assert all(line == "solving by minres ... 0 s" for line in lines)
    assert (blank.strip(), len(blank), rest) == ("", len(lines[-1]), "")


def test_the_command_names_the_method_that_is_at_work(terminal, tmp_path, monkeypatch, tsgu):
    """Catches a solve that is left out of the progress line."""

    def differentiate(*arguments):
        time.sleep(0.1)
        return _torch.differentiate(*arguments)

    monkeypatch.setattr(_progress, "PATIENCE", 0.02)
    monkeypatch.setattr(_backend, "load", lambda: SimpleNamespace(differentiate=differentiate))
    terminal.connect()
    assert tsgu(write(tmp_path / "a.mtx", nonsymmetric()), "--method", "gmres").status == 0
    assert "\rsolving by gmres ... 0 s" in terminal.written()


def test_a_short_solve_shows_nothing_on_a_terminal(terminal):
    """Catches a flicker for each of many short solves."""
    terminal.connect()
    with _progress.progress("solving by minres"):
        pass
    assert terminal.written() == ""


def test_nothing_is_shown_where_stderr_is_a_file(monkeypatch, capsys):
    """Catches carriage returns in a log."""
    monkeypatch.setattr(_progress, "PATIENCE", 0.01)
    with _progress.progress("solving by minres"):
        time.sleep(0.1)
    assert capsys.readouterr().err == ""


def test_progress_ends_with_an_error(terminal, monkeypatch):
    """Catches a thread that goes on writing over the error message."""
    monkeypatch.setattr(_progress, "PATIENCE", 0.01)
    terminal.connect()

    def fail():
        with _progress.progress("solving by minres"):
            time.sleep(0.1)
            raise CommandError("singular")

    with pytest.raises(CommandError):
        fail()
    assert terminal.written().endswith("\r")
    time.sleep(0.05)
    assert terminal.written() == ""


# The process


def test_a_missing_file_ends_the_process_with_status_two_and_one_line():
    """Catches an exit status that main returns and the process does not."""
    command = process("missing.mtx")
    out, err = command.communicate(timeout=60)
    assert (command.returncode, out, err) == (2, "", "tsgu: error: missing.mtx: no such file\n")


def test_an_interruption_ends_the_process_with_status_130_and_without_traceback():
    """Catches a traceback, and an interruption that is taken for an error of the solve."""
    command = process("--method", "gmres", "--rtol", "1e-14")
    command.stdout.readline()
    assert command.stdout.readline().startswith("method")  # the solve comes next, and takes seconds
    command.send_signal(signal.SIGINT)
    out, err = command.communicate(timeout=60)
    assert (command.returncode, out, err) == (130, "", "tsgu: interrupted\n")


def test_a_reader_that_has_seen_enough_gets_no_traceback():
    """Catches the traceback of ``python -m tsgu | head -1``."""
    command = process("--method", "direct")
    command.stdout.close()
    assert "Traceback" not in command.stderr.read()
    assert command.wait(timeout=60) == 141
    command.stderr.close()


def test_help_names_every_option_and_the_default_right_hand_side(capsys):
    """Catches an option without a word, and a default that nobody can know of."""
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert end.value.code == 0
    for word in ("MATRIX", "--rhs", "--method", "--rtol", "--dtype", "--save", "--plot", "all ones", "exit status"):
        assert word in text


# Real matrices


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("bcsstk01.mtx", "direct"),
        ("bcsstk01.mtx", "linear_cg"),
        ("west0067.mtx", "direct"),
        ("young1c.mtx", "direct"),
        ("young1c.mtx", "gmres"),
        ("olm1000.mtx", "direct"),
    ],
)
def test_real_matrices_are_solved_and_differentiated(name, method, real_matrix, tmp_path, tsgu):
    """Catches what only real data show: scaling by 1e9, repeated entries, zero diagonals, complex symmetry."""
    path = real_matrix(name)
    run = tsgu(path, "--method", method, "--save", tmp_path / "x.npy")
    assert (run.status, run.err) == (0, [])
    A, x = scipy.io.mmread(path).tocsr(), np.load(tmp_path / "x.npy")
    assert run.rows[0]["nnz"] == str(A.nnz)
    assert np.linalg.norm(1 - A @ x) <= 1e-8 * np.sqrt(x.size)
    assert run.rows[0]["error"] <= run.rows[0]["allowed"] < 1e-6


@pytest.mark.parametrize("method", ["linear_cg", "minres", "bicgstab", "gmres"])
def test_a_matrix_too_hard_for_krylov_methods_is_reported_so(method, real_matrix, tsgu):
    """Catches a method that gives up quietly, or claims a residual that it has not reached."""
    run = tsgu(real_matrix("olm1000.mtx"), "--method", method)
    assert (run.status, len(run.err), run.rows[0]["check"]) == (1, 1, "FAILED")
    assert run.err[0].startswith(f"tsgu: not converged: {method} on the ")
    assert max(run.rows[0]["forward"], run.rows[0]["adjoint"]) > 1e-8
