"""Arithmetic of SparseMatrix against dense tensors."""

import gc
import weakref

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tsgu
from tsgu._core.pattern import _arithmetic

eye = tsgu.SparseMatrix.eye


def drawn(rng, shape, fill, complex_=False):
    D = torch.from_numpy(rng.standard_normal(shape) * (rng.random(shape) < fill))
    return D * (1 + 2j) if complex_ else D


def sparse(D):
    return tsgu.SparseMatrix.from_tensor(D)


@given(st.integers(0, 2**16), *[st.integers(0, 5)] * 3, st.sampled_from([0.0, 0.3, 1.0]), st.booleans())
@settings(deadline=None)
def test_sums_products_and_diagonals_are_those_of_dense_matrices(seed, m, n, k, fill, complex_):
    """Catches: Any confusion of positions, of order or of signs; empty and rectangular matrices; a real one with a
    complex."""
    rng = np.random.default_rng(seed)
    D, E, F = drawn(rng, (m, n), fill, complex_), drawn(rng, (m, n), fill), drawn(rng, (n, k), fill)
    A, B, C = map(sparse, (D, E, F))
    for found, expected in (
        (A + B, D + E),
        (B - A, E - D),
        (A @ C, D @ F.to(D.dtype)),
        (2 * A, 2 * D),
        (A * 1j, D * 1j),
        (A / 4, D / 4),
        (-A, -D),
        (A + A, 2 * D),
        (A.T @ B, D.T @ E.to(D.dtype)),
    ):
        torch.testing.assert_close(found.to_dense(), expected)
    torch.testing.assert_close(A.diagonal(), D.diagonal())


def test_a_sum_stays_on_a_pattern_that_has_all_positions():
    """Catches: a pattern, and all that was found out about it, made anew in each step."""
    A = sparse(torch.tensor([[1.0, 2.0], [0.0, 3.0]]))
    assert (A + 2 * A).pattern is (A - A).pattern is A.pattern
    assert (A + eye(2)).pattern is (eye(2) + 0.5 * A).pattern is A.pattern
    again = sparse(A.to_dense())
    assert (A + again).pattern is A.pattern
    assert (A + A.T).pattern is (A + A.T).pattern
    assert (A @ A.T).pattern is (A @ A.T).pattern
    assert eye(2).pattern is eye(2).pattern
    assert sum([A, A, A]).pattern is A.pattern


def test_what_is_known_of_two_patterns_is_found_once_and_not_kept_beyond_them(monkeypatch):
    """Catches: a symbolic product in every step of a loop; memory that grows with the steps."""
    calls = []
    for name in ("sum_of", "product_of"):
        right = getattr(_arithmetic, name)
        monkeypatch.setattr(_arithmetic, name, lambda a, b, f=right, n=name: calls.append(n) or f(a, b))
    A, B = sparse(torch.eye(3)), sparse(torch.ones(3, 3).triu())
    for _ in range(3):
        A + B, A @ B
    assert calls == ["sum_of", "product_of"]
    seen = weakref.ref(B.pattern)
    del B
    gc.collect()
    assert seen() is None


PATTERNS = [
    tsgu.Pattern([0, 0, 1, 2, 2], [0, 2, 1, 0, 1], (3, 3)),
    tsgu.Pattern([0, 1, 1, 2], [1, 1, 2, 0], (3, 3)),
]

FUNCTIONS = {
    "a sum": lambda A, B, s: A + s * B,
    "a difference": lambda A, B, s: A / s - B,
    "a product": lambda A, B, s: A @ B * s,
    "a square and a transpose": lambda A, B, s: A @ A + s * B.T,
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_arithmetic_is_differentiable_to_second_order_in_both_modes(name, dtype):
    """Catches: a gradient that ends at a scalar, at one of the two matrices, or at a repeated term."""
    generator = torch.Generator().manual_seed(0)
    v, w = (torch.randn(P.nnz, dtype=dtype, generator=generator, requires_grad=True) for P in PATTERNS)
    s = torch.tensor(1.5, dtype=dtype, requires_grad=True)

    def f(v, w, s):
        C = FUNCTIONS[name](tsgu.SparseMatrix(v, PATTERNS[0]), tsgu.SparseMatrix(w, PATTERNS[1]), s)
        return C.to_dense(), C.diagonal()

    assert torch.autograd.gradcheck(f, (v, w, s), check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(f, (v, w, s), check_fwd_over_rev=True)


def test_batches_meet_single_matrices_and_each_other():
    """Catches: a batch that is broadcast along its entries."""
    generator = torch.Generator().manual_seed(1)
    v, w = (torch.randn(4, P.nnz, dtype=torch.float64, generator=generator) for P in PATTERNS)
    A, B = tsgu.SparseMatrix(v, PATTERNS[0]), tsgu.SparseMatrix(w, PATTERNS[1])
    D, E = A.to_dense(), B.to_dense()
    one = B.with_values(w[0])
    for found, expected in (
        (A + B, D + E),
        (A - one, D - E[0]),
        (one - A, E[0] - D),
        (A @ B, D @ E),
        (A @ one, D @ E[0]),
        (one @ A, E[0] @ D),
        (3 * A, 3 * D),
    ):
        torch.testing.assert_close(found.to_dense(), expected)
    torch.testing.assert_close(A.diagonal(), D.diagonal(dim1=1, dim2=2))

    def mapped(v, w, s):
        C = tsgu.SparseMatrix(v, PATTERNS[0]) @ tsgu.SparseMatrix(w, PATTERNS[1])
        return (s * C + tsgu.SparseMatrix(v, PATTERNS[0])).to_dense()

    s = torch.arange(4.0, dtype=torch.float64)
    torch.testing.assert_close(torch.func.vmap(mapped)(v, w, s), s[:, None, None] * (D @ E) + D)


def test_an_implicit_step_needs_no_other_library():
    """Catches: I + dt K that has to be assembled with SciPy, where the gradient of dt is lost."""
    K = sparse(torch.tensor([[2.0, -1.0, 0.0], [-1.0, 2.0, -1.0], [0.0, -1.0, 2.0]], dtype=torch.float64))
    dt = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
    u = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)

    def step(dt):
        return tsgu.sparse_generic_solve(eye(3, dtype=torch.float64) + dt * K, u, solve=tsgu.linear_cg).sum()

    def dense(dt):
        return torch.linalg.solve(torch.eye(3, dtype=torch.float64) + dt * K.to_dense(), u).sum()

    def derivatives(f):
        (g,) = torch.autograd.grad(f(dt), dt, create_graph=True)
        return g, *torch.autograd.grad(g, dt)

    torch.testing.assert_close(derivatives(step), derivatives(dense), rtol=1e-6, atol=1e-8)


def test_dtypes_are_promoted_as_those_of_torch():
    """Catches: a complex part dropped, or float32 made of a float64."""
    A = sparse(torch.eye(2))
    B = sparse(torch.eye(2, dtype=torch.float64).flip(0) + torch.eye(2, dtype=torch.float64))
    assert (A + B).dtype == (B - A).dtype == (A @ B).dtype == torch.float64
    assert (A * 2.0).dtype == (np.float64(2.0) * A).dtype == (torch.tensor(2.0).double() * A).dtype == torch.float32
    assert (A * 1j).dtype == (A + 1j * A).dtype == torch.complex64
    assert (A * torch.tensor(1j)).dtype == torch.complex64
    assert eye(2).dtype == torch.get_default_dtype()
    assert eye(2, dtype=torch.complex128, device="meta").device.type == "meta"


def test_operands_that_do_not_fit_are_refused_in_three_parts():
    """Catches: a broadcast, a matrix of objects, or AttributeError: 'int' object has no attribute 'pattern'."""
    A = sparse(torch.eye(2))
    batch = A.with_values(torch.ones(3, 2))
    summand = r"must have a SparseMatrix as X; got"
    shift = r"shift the diagonal by s \* SparseMatrix\.eye\(n\)"
    cases = [
        (TypeError, rf"A \+ X {summand} the number 1\. .*{shift}", lambda: A + 1),
        (TypeError, rf"A - X {summand} the number 1\. .*{shift}", lambda: 1 - A),
        (TypeError, rf"A \+ X {summand} Tensor of shape \(2, 2\)\..*add a dense one", lambda: A + torch.eye(2)),
        (TypeError, rf"A \+ X {summand} Tensor of shape \(2, 2\)", lambda: torch.eye(2) + A),
        (TypeError, rf"A - X {summand} Tensor of shape .*from_tensor or from_scipy",
         lambda: A - torch.eye(2).to_sparse()),
        (TypeError, rf"A \+ X {summand} dia_array of shape \(2, 2\)", lambda: sp.eye_array(2) + A),
        (TypeError, rf"A \+ X {summand} ndarray of shape \(2, 2\)", lambda: np.eye(2) + A),
        (ValueError, r"A \+ X must have two matrices of one shape, .*; got \(2, 2\) and \(3, 3\)", lambda: A + eye(3)),
        (ValueError, r"A - X must have .* of one size; got \(3, 2, 2\) and \(2, 2, 2\)",
         lambda: batch - batch.with_values(torch.ones(2, 2))),
        (ValueError, r"A \+ X must have both matrices on one device; got cpu and meta", lambda: A + A.to("meta")),
        (ValueError, r"A @ X must have as many rows of X as columns of A, .*; got \(2, 2\) and \(3, 3\)",
         lambda: A @ eye(3)),
        (TypeError, r"A \* s must have a number as s, .*; got Tensor of shape \(2,\)\. Multiply .*with_values",
         lambda: A * torch.ones(2)),
        (TypeError, r"A \* s must have a number as s, .*; got SparseMatrix of shape \(2, 2\)\.", lambda: A * A),
        (TypeError, r"A / s must have a number as s, .*; got ndarray of shape \(2,\)", lambda: A / np.ones(2)),
        (TypeError, r"unsupported operand type\(s\) for \+", lambda: A + "A"),
        (TypeError, r"unsupported operand type\(s\) for /", lambda: 1 / A),
        (TypeError, r"n must be a whole number, not negative; got 2\.0", lambda: eye(2.0)),
        (ValueError, r"n must be a whole number, not negative; got -1", lambda: eye(-1)),
    ]  # fmt: skip
    for error, message, call in cases:
        with pytest.raises(error, match=message):
            call()
