"""The PyTorch backend."""

import numpy as np
import scipy.sparse as sp
import torch

import tsgu
from tsgu._cli._backend import Array, Solution


def differentiate(A: sp.csr_array, b: Array, w: Array, method: str, rtol: float) -> Solution:
    """See :class:`tsgu._cli._backend.Backend`."""
    entries = A.tocoo()
    indices = torch.from_numpy(np.stack((entries.row, entries.col)).astype(np.int64))
    matrix = torch.sparse_coo_tensor(
        indices, torch.from_numpy(A.data), A.shape, is_coalesced=True, check_invariants=False
    ).requires_grad_()
    rhs = torch.from_numpy(b).requires_grad_()
    options = {} if method == "direct" else {"rtol": rtol}  # direct aims at rounding level whatever is asked
    try:
        x = tsgu.sparse_generic_solve(matrix, rhs, solve=getattr(tsgu, method), **options)
    except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]  # exported, but not in torch's __all__
        raise np.linalg.LinAlgError(str(error)) from error
    gradient, adjoint = torch.autograd.grad(x, (matrix, rhs), torch.from_numpy(w))
    return Solution(x.detach().numpy(), adjoint.resolve_conj().numpy(), gradient.coalesce().values().numpy())
