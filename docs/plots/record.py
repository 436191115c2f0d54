"""Three solves of Poisson's equation: one as it should be, one cut short, one preconditioned."""

import warnings

import scipy.sparse as sp
import torch

import tsgu

side = 50
line = sp.diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(side, side))
A = tsgu.SparseMatrix.from_scipy(sp.kronsum(line, line))
b = torch.ones(side**2, dtype=torch.float64)
with warnings.catch_warnings():
    warnings.simplefilter("ignore", tsgu.ConvergenceWarning)
    with tsgu.record() as log:
        tsgu.linear_cg(A, b)
        tsgu.minres(A, b, maxiter=60)
        tsgu.linear_cg(A, b, M=tsgu.precond.amg(A))
log.plot()
