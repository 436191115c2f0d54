"""The PyTorch backend."""

from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

import tsgu
from tsgu import sparse_generic_solve
from tsgu._cli import _precond
from tsgu._cli._backend import Array, Solution
from tsgu._cli._precond import Precond
from tsgu._core.methods import _registry

_METHODS = _registry.loaded("tsgu", _registry.METHODS)

# PyTorch loads a part of itself in the first backward pass, which is not to count as time of the first method.
_one = torch.ones(1, requires_grad=True)
torch.autograd.grad(_one.exp(), _one, torch.ones(1))


_NO_MEMORY = ("can't allocate memory", "cannot allocate memory", "not enough memory")


def differentiate(
    A: sp.csr_array, b: Array, w: Array, method: str, rtol: float, precond: Precond | None = None
) -> Solution:
    """See :class:`tsgu._cli._backend.Backend`."""
    try:
        return _differentiate(A, b, w, method, rtol, precond)
    except RuntimeError as error:  # torch has no class of its own for host memory, only the words
        if any(words in str(error).lower() for words in _NO_MEMORY):
            raise MemoryError(str(error)) from error
        raise


def _differentiate(A: sp.csr_array, b: Array, w: Array, method: str, rtol: float, precond: Precond | None) -> Solution:
    entries = A.tocoo()
    indices = torch.from_numpy(np.stack((entries.row, entries.col)).astype(np.int64))
    matrix = torch.sparse_coo_tensor(
        indices, torch.from_numpy(A.data), A.shape, is_coalesced=True, check_invariants=False
    ).requires_grad_()
    rhs = torch.from_numpy(b).requires_grad_()
    # a factorisation aims at rounding level, whatever is asked, and has no such argument
    options: dict[str, Any] = {"rtol": rtol} if _registry.method(method).iterative else {}
    if precond is not None:
        options["M"] = _precond.build(tsgu.precond, matrix, precond, matrix.is_complex())
    try:
        x = sparse_generic_solve(matrix, rhs, solve=_METHODS[method], **options)
    except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]  # exported, but not in torch's __all__
        raise np.linalg.LinAlgError(str(error)) from error
    gradient, adjoint = torch.autograd.grad(x, (matrix, rhs), torch.from_numpy(w))
    return Solution(x.detach().numpy(), adjoint.resolve_conj().numpy(), gradient.coalesce().values().numpy())
