"""The set-up of multigrid: what it prints, and what it refuses."""

import ctypes

import numpy as np
import pytest
import scipy.sparse as sp

from tests.contract.systems import System

pyamg = pytest.importorskip("pyamg", reason="needs pyamg")


def built(package, matrix, *args, **kwargs):
    A = sp.coo_array(matrix)
    problem = package.Problem(System("", A.row, A.col, A.data, A.shape[0]), np.zeros(A.shape[0]))
    return package.preconditioner("amg", problem.matrix(), *args, **kwargs)


@pytest.mark.parametrize("size", [1.0, 1e21, 1e-30])
def test_the_units_of_a_neither_print_nor_matter(package, capfd, size):
    """Catches: thousands of lines on stdout: PyAMG compares an entry with a product of two, and tells of each that
    looks small."""
    stencil = pyamg.gallery.diffusion.diffusion_stencil_2d(1e-3, np.pi / 6, "FE")
    A = sp.csr_array(pyamg.gallery.stencil_grid(stencil, (30, 30)))
    plain, scaled = built(package, A, max_coarse=40), built(package, size * A, max_coarse=40)
    ctypes.CDLL(None).fflush(None)  # what C has printed waits in a buffer of its own
    assert capfd.readouterr() == ("", "")
    v = np.random.default_rng(0).standard_normal(900)
    expected = package.applied(plain, v)
    assert np.linalg.norm(v - A @ expected) < 0.9 * np.linalg.norm(v), "a cycle that does nothing"
    np.testing.assert_allclose(size * package.applied(scaled, v), expected, rtol=0, atol=1e-9 * abs(expected).max())


def test_weights_from_a_division_by_zero_are_refused(package):
    """Catches: infinite transfers, whose coarse matrix has no singular values: an error of LAPACK, or NaN in every
    step."""
    A = sp.csr_array(pyamg.gallery.poisson((40, 40)))
    A.setdiag(1e-40)  # no multiple of which makes up for the entries beside it
    with pytest.raises(ValueError, match="A must have interpolation weights of moderate size for amg; those of ruge_s"):
        built(package, A)
