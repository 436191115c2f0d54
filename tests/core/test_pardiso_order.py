"""The order of elimination that PARDISO finds: kept with the pattern where it follows from the pattern alone."""

import numpy as np
import pytest
import scipy.sparse as sp

from tests.contract.compare import assert_close, tolerance
from tests.core.test_pardiso import factored, laplacian, needs_pardiso, symbolic_of
from tsgu._core.factors import _pardiso
from tsgu._core.factors._factorisation import Factorisation


@needs_pardiso
@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
def test_the_order_of_elimination_is_kept_with_the_pattern(monkeypatch, dtype):
    """Catches: a search in each step of a training loop, three times the work of the rest; or the order of another
    pattern."""
    asked = []
    original = _pardiso.Pardiso.__init__
    monkeypatch.setattr(_pardiso.Pardiso, "__init__", lambda *given: (asked.append(given[-1][5]), original(*given))[1])
    A = laplacian(12).astype(dtype)
    pattern, b = symbolic_of(A), np.arange(1.0, 145.0).astype(dtype)
    for scaled in (A, A + sp.diags_array(np.linspace(0, 3, 144)), 2 * A):
        x, columns = Factorisation(pattern, sp.csr_array(scaled).data, "pardiso").solve(b, True)
        assert_close(x, np.linalg.solve(scaled.toarray(), b), tolerance(100, np.float64, 0), "x")
        assert columns[0].status == "converged"
    factored(A)
    assert asked == [2, 1, 1, 2]


@needs_pardiso
def test_an_order_is_not_kept_where_the_values_decide_on_it(monkeypatch):
    """Catches: scaling and matching of an indefinite matrix, done for other values."""
    asked = []
    original = _pardiso.Pardiso.__init__
    monkeypatch.setattr(_pardiso.Pardiso, "__init__", lambda *given: (asked.append(given[-1]), original(*given))[1])
    A = laplacian(12)
    indefinite = sp.csr_array(A - sp.diags_array(np.where(np.arange(144) % 2, 0.5, 9.0)))
    pattern, b = symbolic_of(A), np.ones(144)
    for one in (A, indefinite, A):
        x, _ = Factorisation(pattern, one.data, "pardiso").solve(b, False)
        assert_close(x, np.linalg.solve(one.toarray(), b), tolerance(100, np.float64, 1e-12), "x")
    assert [parameters.get(5) for parameters in asked] == [2, None, 1]
