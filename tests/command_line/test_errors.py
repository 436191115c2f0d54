"""Errors: one line that says what is wrong, and exit status 2."""

import gzip
import sys

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from tests.command_line.helpers import nonsymmetric, write
from tsgu._cli import _problem, _torch
from tsgu._cli._arguments import METHODS


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
    """Catches: a traceback, a second line, a table for nothing, and a file that is taken for another."""
    for name, word in damaged(tmp_path).items():
        refused(tsgu(tmp_path / name, "--method", method), name, word)
    refused(tsgu(tmp_path / "missing.mtx"), "missing.mtx", "no such file")
    refused(tsgu(tmp_path), "folder")
    refused(tsgu("a" * 5000), "too long")


def test_a_pickle_is_not_opened(tmp_path, tsgu):
    """Catches: allow_pickle: a data file must not be able to run code."""
    np.save(tmp_path / "b.npy", np.array([{}], dtype=object))
    refused(tsgu(write(tmp_path / "a.mtx", nonsymmetric()), "--rhs", tmp_path / "b.npy"), "b.npy")


@pytest.mark.parametrize("consistent", [True, False])
def test_singular_to_working_precision_is_refused_though_the_pivots_are_not_zero(consistent, tmp_path, tsgu):
    """Catches: a solution or a gradient without a correct digit that is passed on because rounding hid a zero pivot."""
    line = sp.diags_array([-np.ones(19), np.array([1.0, *[2.0] * 18, 1.0]), -np.ones(19)], offsets=[-1, 0, 1])
    random = np.random.default_rng(0)
    scale = sp.diags_array(random.uniform(0.5, 2.0, 400))
    laplacian = sp.kron(line, sp.eye_array(20)) + sp.kron(sp.eye_array(20), line)  # no boundary: constants are lost
    A = scale @ laplacian @ scale
    np.save(tmp_path / "b.npy", A @ random.standard_normal(400) if consistent else np.ones(400))
    refused(tsgu(write(tmp_path / "a.mtx", A), "--rhs", tmp_path / "b.npy", "--method", "linear_cg"), "singular")


def test_bad_right_hand_sides_are_one_line(tmp_path, tsgu):
    """Catches: a shape that is broadcast, text that is no number, a file without numbers, and non-finite entries."""
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
    """Catches: argparse's usage before the error, and a place to write that is looked at only after the solve."""
    monkeypatch.chdir(tmp_path)
    refused(tsgu(write(tmp_path / "a.mtx", nonsymmetric()), *arguments), *fragments)


def test_a_real_dtype_for_complex_data_is_refused(tmp_path, tsgu):
    """Catches: an imaginary part that is dropped, in the matrix or in the right-hand side."""
    real, complex_ = write(tmp_path / "a.mtx", nonsymmetric()), write(tmp_path / "c.mtx", nonsymmetric(field="complex"))
    np.save(tmp_path / "b.npy", 1j * np.ones(30))
    refused(tsgu(complex_, "--dtype", "float64"), "complex64 or complex128")
    refused(tsgu(real, "--rhs", tmp_path / "b.npy", "--dtype", "float32"), "complex64 or complex128")


def test_entries_that_overflow_in_the_dtype_asked_for_are_refused(tmp_path, tsgu):
    """Catches: infinities made by the conversion itself."""
    path = write(tmp_path / "a.mtx", sp.csr_array(np.diag([1e39, 1.0])))
    refused(tsgu(path, "--dtype", "float32"), "float32", "1 non-finite of 2")


def test_a_missing_torch_is_one_line_with_the_remedy(tmp_path, tsgu, monkeypatch):
    """Catches: a traceback on a machine where only the NumPy part is installed."""
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "tsgu._cli._torch")
    refused(tsgu(write(tmp_path / "a.mtx", nonsymmetric())), 'pip install "tsgu[torch]"')


def test_a_missing_matplotlib_is_one_line_before_anything_is_solved(tmp_path, tsgu, monkeypatch):
    """Catches: a traceback, or the loss of a long solve because the picture cannot be drawn after it."""
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    path = write(tmp_path / "a.mtx", nonsymmetric())
    refused(tsgu(path, "--plot", tmp_path / "h.png"), 'pip install "tsgu[plot]"')
    assert tsgu(path).status == 0


def test_out_of_memory_is_one_line(tsgu, monkeypatch):
    """Catches: a traceback where the factors of a large matrix do not fit."""

    def too_large():
        raise MemoryError("cannot allocate 1 TiB")

    monkeypatch.setattr(_problem, "heat_conduction", too_large)
    refused(tsgu(), "out of memory", "1 TiB")


TOO_LARGE = 1 << 60  # bytes, more than any address space of today


def allocate(*arguments, **options):
    torch.empty(TOO_LARGE, dtype=torch.uint8)


@pytest.mark.parametrize("step", ["solve", "gradient"])
def test_memory_that_torch_cannot_allocate_is_one_line(step, tsgu, tmp_path, monkeypatch):
    """Catches: a traceback: what torch raises is no MemoryError. The message is the one that torch has today."""
    place = {"solve": (_torch, "sparse_generic_solve"), "gradient": (torch.autograd, "grad")}[step]
    path = write(tmp_path / "a.mtx", nonsymmetric())
    with monkeypatch.context() as patch:
        patch.setattr(*place, allocate)
        run = tsgu(path)
    assert (run.status, run.rows, len(run.err)) == (2, [], 1)
    assert run.err[0].startswith("tsgu: error: out of memory (")
    assert str(TOO_LARGE) in run.err[0]


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes.", MemoryError),
        ("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes.", MemoryError),
        ("std: Cannot allocate memory", MemoryError),
        ("expected scalar type Double but found Float", RuntimeError),
    ],
)
def test_only_a_failed_allocation_becomes_a_memory_error(message, expected, monkeypatch):
    """Catches: a wording of torch that is not known, and a mistake of the program that is told as a lack of memory."""

    def fail(*arguments, **options):
        raise RuntimeError(message)

    monkeypatch.setattr(_torch, "sparse_generic_solve", fail)
    b = np.ones(30)
    with pytest.raises(expected) as caught:
        _torch.differentiate(nonsymmetric(), b, b, "direct", 1e-8)
    assert caught.type is expected
    assert str(caught.value) == message
