"""Files: every kind of matrix and of right-hand side is read as what it is."""

import gzip

import numpy as np
import pytest
import scipy.io
import scipy.sparse as sp

from tests.command_line.helpers import nonsymmetric, write

DENSE = np.array([[4.0, 1.0, 0.0], [-2.0, 5.0, 1.0], [0.0, 3.0, 6.0]])
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


def write_text(path, banner, *lines):
    path.write_text("\n".join((f"%%MatrixMarket matrix {banner}", *lines)) + "\n")
    return path


@pytest.mark.parametrize("kind", FILES)
def test_every_kind_of_matrix_market_file_is_solved_for_ones(kind, tmp_path, tsgu):
    """Catches: a half of a symmetric file that is lost, a sign or conjugate of one that is wrong, and repeated entries
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
    """Catches: an ending that is not looked at, and repeated entries of a .npz file that are not added."""
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
    """Catches: a right-hand side that is ignored, transposed, cut to its real part, or left as (n, 1)."""
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
    """Catches: a finite difference whose step or scale is taken from the solution, which is zero."""
    np.save(tmp_path / "b.npy", np.zeros(30))
    run = tsgu(write(tmp_path / "a.mtx", nonsymmetric()), "--rhs", tmp_path / "b.npy", "--method", "gmres")
    assert (run.status, run.err, run.rows[0]["forward"]) == (0, [], 0.0)
