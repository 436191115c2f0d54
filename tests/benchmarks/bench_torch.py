"""PyTorch: forward plus backward, double precision, one thread, rtol 1e-8."""

import numpy as np
import pytest
import scipy.sparse as sp
import scipy.sparse.linalg
import torch

import tsgu


def laplacian(m: int) -> sp.csr_array:
    """The 5-point Laplacian on an m x m grid."""
    second = sp.diags_array([-np.ones(m - 1), 2 * np.ones(m), -np.ones(m - 1)], offsets=[-1, 0, 1])
    eye = sp.eye_array(m)
    return sp.csr_array(sp.kron(eye, second) + sp.kron(second, eye))


def tensor(A: sp.csr_array, layout: torch.layout = torch.sparse_csr) -> torch.Tensor:
    index = (torch.from_numpy(i.astype(np.int64)) for i in (A.indptr, A.indices))
    csr = torch.sparse_csr_tensor(*index, torch.from_numpy(A.data.copy()), A.shape)
    return (csr if layout == torch.sparse_csr else csr.to_sparse_coo()).requires_grad_()


def sides(n: int, *columns: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.standard_normal((n, *columns)), rng.standard_normal((n, *columns))


def both_ways(A, b, w, solve):
    """Forward and backward, as a function."""
    B, W = torch.from_numpy(b).requires_grad_(), torch.from_numpy(w)

    def run():
        A.grad = B.grad = None
        tsgu.sparse_generic_solve(A, B, solve=solve).backward(W)

    return run


def steps(run) -> int:
    with tsgu.record() as log:
        run()
    assert all(info.converged for info in log)
    return sum(info.iterations for info in log)


class ScipyCG:
    """Conjugate gradients for both right-hand sides, counting steps."""

    def __init__(self, A, *sides):
        self.A, self.sides, self.count = A, sides, 0

    def __call__(self):
        self.count = 0
        for side in self.sides:
            scipy.sparse.linalg.cg(self.A, side, rtol=1e-8, callback=self.step)

    def step(self, _):
        self.count += 1


@pytest.mark.parametrize(("m", "rounds", "goal"), [(64, 41, 1.5), (300, 7, 1.1)])
def bench_a_step_of_cg_beside_scipy(compare, m, rounds, goal):
    A = laplacian(m)
    b, w = sides(m * m)
    run, peer = both_ways(tensor(A), b, w, tsgu.linear_cg), ScipyCG(A, b, w)
    peer()
    compare({"tsgu": run, "scipy": peer}, rounds, {"scipy": goal}, {"tsgu": steps(run), "scipy": peer.count})


@pytest.mark.parametrize(("m", "rounds"), [(64, 41), (300, 7)])
def bench_coo_beside_csr(compare, m, rounds):
    A = laplacian(m)
    b, w = sides(m * m)
    coo, csr = (both_ways(tensor(A, layout), b, w, tsgu.linear_cg) for layout in (torch.sparse_coo, torch.sparse_csr))
    compare({"coo": coo, "csr": csr}, rounds, {"csr": 1.2})


@pytest.mark.parametrize(("m", "rounds", "goal"), [(64, 25, 0.6), (300, 1, 1.1)])
def bench_64_right_hand_sides_beside_64_solves(compare, m, rounds, goal):
    A = tensor(laplacian(m))
    b, w = sides(m * m, 64)
    runs = [both_ways(A, b[:, j].copy(), w[:, j].copy(), tsgu.linear_cg) for j in range(64)]

    def one_by_one():
        for run in runs:
            run()

    compare({"block": both_ways(A, b, w, tsgu.linear_cg), "one by one": one_by_one}, rounds, {"one by one": goal})


@pytest.mark.parametrize(("m", "rounds"), [(64, 41), (300, 7)])
def bench_direct_beside_superlu(compare, m, rounds):
    A = laplacian(m)
    b, w = sides(m * m)
    columns = A.tocsc()

    def superlu():
        options = {"permc_spec": "MMD_AT_PLUS_A", "diag_pivot_thresh": 0.01, "options": {"SymmetricMode": True}}
        factors = scipy.sparse.linalg.splu(columns, **options)
        factors.solve(b)
        factors.solve(w, "T")

    compare({"direct": both_ways(tensor(A), b, w, tsgu.direct), "splu": superlu}, rounds, {"splu": 1.2})


@pytest.mark.parametrize(("backward", "goal"), [(False, 0.3), (True, 0.8)], ids=["forward", "both"])
def bench_overhead_on_ten_unknowns(compare, backward, goal):
    A = tensor(sp.csr_array(laplacian(4)[:10, :10]))
    b, w = sides(10)
    bare, B = tsgu.linear_cg.prepare(A.detach()), torch.from_numpy(b)
    both = both_ways(A, b, w, tsgu.linear_cg)

    def forward():
        with torch.no_grad():
            tsgu.sparse_generic_solve(A, B, solve=tsgu.linear_cg)

    def solves():
        bare.solve(B)
        if backward:
            bare.solve_transpose(B)

    compare({"tsgu": both if backward else forward, "bare": solves}, 500, {"bare": goal}, milliseconds_above=True)


@pytest.mark.parametrize("m", [20, 60])
def bench_gmres_on_a_block_beside_its_columns(compare, m):
    A = tsgu.SparseMatrix.from_scipy(laplacian(m) + sp.diags_array([0.3], offsets=[1], shape=(m * m, m * m)))
    B = torch.from_numpy(sides(m * m, 8)[0])
    columns = [column.contiguous() for column in B.T]
    runs = {"block": lambda: tsgu.gmres(A, B), "columns": lambda: [tsgu.gmres(A, b) for b in columns]}
    compare(runs, 5, {"columns": 1.2})
