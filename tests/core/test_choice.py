"""What auto sees of a matrix, and in which order it would try methods."""

import dataclasses
import warnings

import numpy as np
import pytest
import scipy.sparse as sp

from tsgu._core.methods import _choice
from tsgu._core.methods._choice import Traits
from tsgu._core.pattern import _symbolic


def laplacian(*sides):
    A = sp.csr_array((1, 1))
    for m in sides:
        line = sp.diags_array([-np.ones(m - 1), 2 * np.ones(m), -np.ones(m - 1)], offsets=[-1, 0, 1])
        A = sp.kronsum(A, line)
    return sp.csr_array(A)


def seen(A):
    A = sp.csr_array(A)
    A.sum_duplicates()
    return _choice.traits_of(_symbolic.from_csr(A.indptr, A.indices, A.shape), A.data)


def names(A, library="superlu", amg=True, overhead=0.0):
    return [candidate.name for candidate in _choice.candidates(seen(A), library, amg, overhead)]


@pytest.mark.parametrize(
    ("sides", "low", "high"), [((5000,), 1, 1), ((500, 4), 3, 6), ((70, 70), 35, 70), ((17, 17, 17), 120, 289)]
)
def test_the_width_is_that_of_the_graph_in_any_numbering(sides, low, high):
    """Catches: a bandwidth in the order given; a mean that a few long rows dominate; a dimension that is not told
    apart."""
    A = laplacian(*sides)
    shuffled = np.random.default_rng(0).permutation(A.shape[0])
    for matrix in (A, A[shuffled][:, shuffled]):
        assert low * 0.99 <= seen(matrix).width <= high


def test_the_width_of_patterns_without_structure_is_a_number():
    """Catches: an empty row, no entries at all, no unknowns: a reduction over nothing."""
    assert seen(sp.csr_array((0, 0))).width == 0
    assert seen(sp.csr_array((5, 5))).width == 0
    assert 0 < seen(sp.coo_array(([1.0, 1.0], ([0, 4], [4, 1])), shape=(5, 5))).width < 5


def test_traits_tell_symmetric_from_hermitian_and_see_the_diagonal():
    """Catches: a complex symmetric matrix taken for Hermitian, a diagonal entry that is missing taken for positive."""
    A = laplacian(6, 6)
    phase = sp.diags_array([1j * np.ones(35)], offsets=[1], shape=(36, 36))
    assert seen(A).hermitian
    assert seen(A + phase + phase.conj().T).hermitian
    assert not seen(A + phase + phase.T).hermitian
    assert (seen(A).sign, seen(-A).sign, seen(A - 4 * sp.eye_array(36)).sign) == (1, -1, 0)
    hole = sp.lil_array(A)
    hole[3, 3] = 0
    hole = sp.csr_array(hole)
    hole.eliminate_zeros()
    assert (seen(hole).sign, seen(hole).diagonal) == (0, False)
    assert seen(sp.diags_array([1.0, -1.0, 2.0])).diagonal


def test_only_couplings_against_the_diagonal_count_as_those_of_an_m_matrix():
    """Catches: classical coarsening trusted where the signs are those of elasticity, or refused for a negative
    Laplacian."""
    A = laplacian(8, 8)
    assert seen(A).coupled
    assert seen(-A).coupled
    assert not seen(abs(A)).coupled


@pytest.mark.parametrize(
    ("A", "expected"),
    [
        (laplacian(30, 30), "direct"),
        (laplacian(64, 64), "direct"),
        (laplacian(5000), "direct"),
        (laplacian(300, 300), "linear_cg + amg"),
        (laplacian(20, 20, 20), "linear_cg + jacobi"),
        (abs(laplacian(500, 500)), "direct"),
        (
            laplacian(500, 500) + 0.1j * sp.diags_array([np.ones(249_999), -np.ones(249_999)], offsets=[1, -1]),
            "linear_cg + amg",
        ),
        (laplacian(20, 20, 20) + sp.diags_array([0.1 * np.ones(7999)], offsets=[1]), "bicgstab + jacobi"),
        (laplacian(20, 20, 20) - 7 * sp.diags_array(np.arange(8000.0) % 2), "minres"),
    ],
    ids=[
        "small",
        "plane",
        "chain",
        "large plane",
        "space",
        "large plane of one sign",
        "large complex plane",
        "general",
        "indefinite",
    ],
)
def test_the_first_choice(A, expected):
    """Catches: factors that fill a cube, a Krylov method on a chain, conjugate gradients on what is not symmetric."""
    assert names(A)[0] == expected


def test_jacobi_is_expected_to_take_longer_where_signs_are_mixed():
    """Catches: elasticity, given as many steps as a Laplacian, chosen for a quarter of its cost, and given up
    half-way."""
    A = laplacian(20, 20, 20)
    plain, mixed = (_choice.candidates(seen(matrix), "superlu")[0] for matrix in (A, abs(A)))
    assert plain.name == mixed.name == "linear_cg + jacobi"
    assert mixed.cost > 2 * plain.cost
    assert mixed.steps == 2 * plain.steps


def test_a_list_ends_with_direct_unless_its_factors_are_too_large():
    """Catches: a fallback that takes all memory; or none where it would be cheap."""
    assert names(laplacian(20, 20, 20))[-1] == "direct"
    huge = Traits(10**6, 7 * 10**6, 6000.0, complex=False, hermitian=False, sign=1, diagonal=True, coupled=True)
    plan = [candidate.name for candidate in _choice.candidates(huge, "superlu", amg=True)]
    assert plan == ["bicgstab + amg", "bicgstab + jacobi", "gmres + ilu"]
    nothing = Traits(10**6, 7 * 10**6, 6000.0, complex=True, hermitian=False, sign=0, diagonal=False, coupled=False)
    assert [candidate.name for candidate in _choice.candidates(nothing, "superlu", amg=True)] == ["gmres + ilu"]


def test_extras_and_the_price_of_compiling_count():
    """Catches: multigrid without PyAMG; a program compiled for seconds to save milliseconds; PARDISO priced as
    SuperLU."""
    plane = laplacian(300, 300)
    assert names(plane, amg=False) == ["direct"]
    assert names(plane, overhead=5.0) == ["direct"]
    cube = laplacian(30, 30, 30)
    for A, chosen in ((plane, "pardiso"), (-plane, "superlu"), (cube, "pardiso"), (-cube, "pardiso")):
        last = _choice.candidates(seen(A), "pardiso", amg=False)[-1]
        assert (last.name, dict(last.options)) == ("direct", {"library": chosen})
        (alone,) = _choice.candidates(seen(A), "superlu", amg=False)[-1].options
        assert alone == ("library", "superlu")
    skew = cube + sp.triu(cube, 1)
    for A, chosen in ((plane, "rslab"), (cube, "rslab"), (skew, "rslab"), (laplacian(3000), "superlu")):
        assert dict(_choice.candidates(seen(A), "rslab", amg=False)[-1].options) == {"library": chosen}
    costs = [_choice.candidates(seen(A), "rslab", amg=False)[-1].cost for A in (cube, skew)]
    assert costs[0] < costs[1], "half the work where A is symmetric"
    assert names(laplacian(1100, 1100), overhead=5.0)[0] == "linear_cg + amg"


def test_a_candidate_has_a_few_times_its_estimate_and_the_last_all_the_steps_asked_for():
    """Catches: a first choice that runs 10 n steps before the next has its turn."""
    plan = _choice.candidates(seen(laplacian(20, 20, 20)), "superlu", amg=True)
    assert plan[0].name == "linear_cg + jacobi"
    assert 50 <= plan[0].maxiter(None, last=False) < 1000
    assert plan[0].maxiter(7, last=False) == 7
    assert plan[0].maxiter(None, last=True) is None
    assert plan[0].maxiter(20_000, last=True) == 20_000


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex64, np.complex128])
@pytest.mark.parametrize("size", [0.2, 1e-20])
def test_a_matrix_of_large_entries_is_seen_like_any_other(dtype, size):
    """Catches: a sum that overflows: a RuntimeWarning of NumPy, and couplings of infinite weight."""
    A = laplacian(9, 9)
    off = (A - sp.diags_array(A.diagonal())).tocsr()
    A = A - 2 * off  # off-diagonal entries of the sign of the diagonal: not coupled
    scaled = (A * (size * np.finfo(dtype).max)).astype(dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        traits = seen(scaled)
    assert traits == dataclasses.replace(seen(A), complex=traits.complex)
    assert not traits.coupled
