"""What a solve costs: conversions, products, memory. Never seconds, which the benchmarks measure."""

import gc
import threading

import numpy as np
import psutil
import pytest
import torch

import tsgu
from tsgu._matrix import _products


def laplacian(m, dtype=torch.float64):
    n = m * m
    index = torch.arange(n).reshape(m, m)
    pairs = torch.cat([torch.stack([index[1:].ravel(), index[:-1].ravel()]),
                       torch.stack([index[:, 1:].ravel(), index[:, :-1].ravel()])], dim=1)  # fmt: skip
    row = torch.cat([pairs[0], pairs[1], index.ravel()])
    col = torch.cat([pairs[1], pairs[0], index.ravel()])
    values = torch.cat([-torch.ones(2 * pairs.shape[1], dtype=dtype), 4 * torch.ones(n, dtype=dtype)])
    return tsgu.SparseMatrix.from_coo(row, col, values, (n, n))


@pytest.fixture
def products(monkeypatch):
    """Shapes of the vectors that a matrix was multiplied with, and how often values were put into CSR."""
    seen = {"products": [], "conversions": 0}
    csr, product = _products.csr, _products.csr_product

    def counted_csr(*args):
        seen["conversions"] += 1
        return csr(*args)

    def counted_product(matrix, x, *out):
        seen["products"].append(tuple(x.shape))
        return product(matrix, x, *out)

    monkeypatch.setattr(_products, "csr", counted_csr)
    monkeypatch.setattr(_products, "csr_product", counted_product)
    return seen


def test_a_step_of_cg_takes_one_product_and_a_solve_one_conversion(products):
    """Catches: a conversion per step, a residual recomputed in every one."""
    A = laplacian(20)
    b = torch.randn(400, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    with tsgu.record() as log:
        x = tsgu.sparse_generic_solve(A.to_tensor(torch.sparse_coo), b, solve=tsgu.linear_cg)
    assert products["conversions"] == 1
    assert len(products["products"]) == log[0].iterations + 1  # and one for the true residual
    products["products"].clear()
    with tsgu.record() as log:
        x.backward(torch.flip(b.detach(), (0,)))
    assert log[0].transposed
    assert products["conversions"] == 1, "the matrix is symmetric: its transpose needs no copy"
    assert len(products["products"]) == log[0].iterations + 1


def test_columns_are_worked_on_in_groups_that_fit_the_cache(products):
    """Catches: 64 columns at once, for which the CPU product is ten times slower per column; or one by one on a small
    system."""
    A = laplacian(20)
    B = torch.randn(400, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    tsgu.linear_cg(A, B)
    assert {shape[1] for shape in products["products"] if len(shape) == 2} == {8, 4}
    products["products"].clear()
    big = laplacian(300)
    with pytest.warns(tsgu.ConvergenceWarning):
        tsgu.linear_cg(big, torch.ones(90_000, 2, dtype=torch.float64), maxiter=3)
    assert {shape[1:] for shape in products["products"]} <= {(), (1,)}


def test_a_column_that_is_done_takes_no_more_steps():
    """Catches: columns that go on until the slowest is done, and change meanwhile."""
    A = laplacian(12)
    rough = torch.randn(144, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    m = torch.arange(1, 13, dtype=torch.float64)
    smooth = torch.outer(torch.sin(torch.pi * m / 13), torch.sin(torch.pi * m / 13)).ravel()  # an eigenvector
    with tsgu.record() as log:
        together = tsgu.linear_cg(A, torch.stack([smooth, rough], 1))
        alone = tsgu.linear_cg(A, smooth)
    assert [column.iterations for column in log[0].columns] == [1, log[0].iterations]
    assert log[0].iterations > 20
    torch.testing.assert_close(together[:, 0], alone, rtol=1e-14, atol=0)


def test_the_loop_for_accelerators_gives_the_same_solutions(monkeypatch):
    """Catches: a path that only a GPU takes, and that nobody runs: here it runs on the CPU, scalars as tensors."""
    from tsgu._methods import _columns
    from tsgu._methods import _loop as _driver

    generator = torch.Generator().manual_seed(0)
    D = torch.randn(40, 40, dtype=torch.complex128, generator=generator) + 12 * torch.eye(40)
    H = D @ D.mH
    B = torch.randn(40, 3, dtype=torch.complex128, generator=generator)
    B[:, 1] = 0
    M = torch.linalg.inv(H + 3 * torch.eye(40))
    cases = [(tsgu.linear_cg, H, None), (tsgu.minres, H, None), (tsgu.bicgstab, D, None), (tsgu.gmres, D, None)]
    cases += [(tsgu.linear_cg, H, M), (tsgu.minres, H, M), (tsgu.gmres, D, torch.linalg.inv(D) * 0.9)]
    monkeypatch.setattr(_driver, "arithmetic", lambda device, width: _columns.DeviceColumns(width))
    monkeypatch.setattr(_driver, "_enter", lambda space, r: r.contiguous())
    for method, A, preconditioner in cases:
        X = method(A.to_sparse_csr(), B, rtol=1e-11, M=preconditioner)
        torch.testing.assert_close(X, torch.linalg.solve(A, B), rtol=1e-8, atol=1e-10)
    # breakdown and a singular matrix, where a division by zero would spread
    bidiagonal = (2 * torch.eye(6) + torch.diag(torch.ones(5), -1)).double()
    X = tsgu.bicgstab(bidiagonal.to_sparse_csr(), torch.eye(6, dtype=torch.float64), rtol=1e-11)
    torch.testing.assert_close(X, torch.linalg.inv(bidiagonal))
    with pytest.warns(tsgu.ConvergenceWarning):
        x = tsgu.gmres(torch.diag(torch.tensor([1.0, 0.0])).to_sparse(), torch.ones(2))
    assert torch.isfinite(x).all()


def test_an_accelerator_is_read_every_few_steps_only(monkeypatch):
    """Catches: a transfer per step, which makes a GPU wait."""
    from tsgu._methods import _columns
    from tsgu._methods import _loop as _driver

    reads = []
    original = _columns.DeviceColumns.tolist
    monkeypatch.setattr(_columns.DeviceColumns, "tolist", lambda self, a: reads.append(1) or original(self, a))
    monkeypatch.setattr(_driver, "arithmetic", lambda device, width: _columns.DeviceColumns(width))
    monkeypatch.setattr(_driver, "_enter", lambda space, r: r.contiguous())
    monkeypatch.setattr(_driver, "_steps_between_reads", lambda device: 10)
    with tsgu.record() as log:
        tsgu.linear_cg(laplacian(20), torch.ones(400, 2, dtype=torch.float64))
    assert log[0].converged
    assert len(reads) <= 2 * (log[0].iterations // 10 + 1)


def test_one_factorisation_serves_whatever_the_memory_of_values_and_gradients_looks_like(monkeypatch):
    """Catches: factors not found again for lazily conjugated or strided values, or a gradient expanded from one
    number."""
    from tsgu._methods import _direct

    made = []
    original = _direct.Factorisation
    monkeypatch.setattr(_direct, "Factorisation", lambda *args: made.append(1) or original(*args))
    A = laplacian(5, torch.complex128)
    b = torch.ones(25, dtype=torch.complex128)
    wide = torch.stack([A.values, A.values], 1).requires_grad_()
    for matrix in (A.with_values(wide[:, 0]), A.with_values(wide[:, 0].conj()), A.with_values(wide[:, 1]).mH):
        made.clear()
        tsgu.direct(matrix, b).sum().abs().backward()
        assert len(made) == 1


def peak_growth(function):
    """Bytes by which the resident memory of this process grew at most while a function ran."""
    process = psutil.Process()
    gc.collect()
    before, peak, done = process.memory_info().rss, [0], threading.Event()

    def watch():
        while not done.wait(0.001):
            peak[0] = max(peak[0], process.memory_info().rss)

    thread = threading.Thread(target=watch)
    thread.start()
    function()
    done.set()
    thread.join()
    return max(peak[0], process.memory_info().rss) - before


def test_a_backward_pass_of_many_columns_needs_little_memory():
    """Catches: an (nnz, k) temporary in the sampled product, or anything dense (n, n) (3.2 GB here)."""
    n, nnz, k = 20_000, 100_000, 64
    rng = np.random.default_rng(0)
    row = np.concatenate([np.arange(n), rng.integers(0, n, nnz - n)])
    col = np.concatenate([np.arange(n), rng.integers(0, n, nnz - n)])
    values = torch.from_numpy(np.concatenate([np.full(n, 20.0), rng.standard_normal(nnz - n)]))
    A = tsgu.SparseMatrix.from_coo(torch.from_numpy(row), torch.from_numpy(col), values, (n, n))
    values = A.values.clone().requires_grad_()
    B = torch.from_numpy(rng.standard_normal((n, k))).requires_grad_()
    G = torch.from_numpy(rng.standard_normal((n, k)))
    X = tsgu.sparse_generic_solve(A.with_values(values), B, solve=tsgu.bicgstab)
    dense = 4 * n * k * 8  # B, X, G and the gradient of B
    assert peak_growth(lambda: X.backward(G)) < 2 * dense  # B, X and G are there already: 3 in all
    assert values.grad.shape == (A.nnz,)
