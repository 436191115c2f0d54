"""Steps with and without a preconditioner, as the record has them."""

import scipy.sparse as sp
import torch

import tsgu

side = 100
line = sp.diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(side, side))
A = tsgu.SparseMatrix.from_scipy(sp.kronsum(line, line))
b = torch.ones(side**2, dtype=torch.float64)
with tsgu.record() as log:
    for M in (None, tsgu.precond.ilu(A), tsgu.precond.amg(A)):
        tsgu.gmres(A, b, M=M)
ax = log.plot()
names = ("no preconditioner", "incomplete LU", "algebraic multigrid")
labels = [f"gmres, {name}: {info.iterations} steps" for name, info in zip(names, log, strict=True)]
ax.set_ylim(bottom=1e-12)  # room for the legend
ax.legend(ax.lines, labels, loc="lower left")
ax.set_xscale("log")
ax.set_title("Poisson's equation with 10 000 unknowns")
