"""The two products of a sparse matrix that everything else is made of. Plain tensors, no differentiation."""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import torch
from torch import Tensor

from tsgu._matrix._pattern import Pattern

_CPU_COLUMNS = 8
"""torch's CSR product slows down tenfold per column past this width on the CPU."""

_CPU_BLOCK = 1 << 16
_ACCELERATOR_BLOCK = 1 << 24
"""Entries of the temporary in a sampled product."""


def host(tensor: Tensor) -> Any:
    """A NumPy array of the same numbers, cut from the graph."""
    return tensor.detach().resolve_conj().resolve_neg().cpu().numpy()


def csr(values: Tensor, pattern: Pattern) -> Tensor:
    """Values on a pattern as a torch CSR tensor that shares their memory where it can."""
    hear_beta_warning()
    return torch.sparse_csr_tensor(
        pattern.crow, pattern.col, values.contiguous(), pattern.shape, check_invariants=False
    )


def csr_product(matrix: Tensor, x: Tensor, out: Tensor | None = None) -> Tensor:
    """Matrix times x of shape (n,) or (n, k), in column groups that the CPU product likes; into ``out`` if given."""
    if x.dim() == 1:
        return torch.mv(matrix, x, out=out)
    if x.shape[1] == 1:
        return torch.mv(matrix, x[:, 0], out=None if out is None else out[:, 0]).unsqueeze(1)
    if x.shape[1] <= _CPU_COLUMNS or x.device.type != "cpu":
        return torch.mm(matrix, x, out=out)
    out = x.new_empty((matrix.shape[0], x.shape[1])) if out is None else out
    for start in range(0, x.shape[1], _CPU_COLUMNS):
        group = slice(start, start + _CPU_COLUMNS)
        out[:, group] = csr_product(matrix, x[:, group].contiguous())
    return out


def csr_add(y: Tensor, matrix: Tensor, x: Tensor, alpha: float) -> None:
    """y += alpha * matrix @ x in place, for x of shape (n,) or (n, k)."""
    if x.dim() == 1:
        y.addmv_(matrix, x, alpha=alpha)
    elif x.shape[1] > _CPU_COLUMNS and x.device.type == "cpu":
        y.add_(csr_product(matrix, x), alpha=alpha)
    elif x.shape[1] == 1:
        y[:, 0].addmv_(matrix, x[:, 0], alpha=alpha)
    else:
        y.addmm_(matrix, x, alpha=alpha)


def sampled_product(pattern: Pattern, u: Tensor, v: Tensor) -> Tensor:
    """sum_k u[i, k] conj(v[j, k]) at the stored entries (i, j), shape (nnz,).

    Accumulated over blocks of entries, so that the temporaries have a fixed size, whatever nnz and k, and stay in
    cache; a block gathers whole rows of u and v, which are contiguous.
    """
    out = u.new_empty(pattern.nnz)
    budget = _CPU_BLOCK if u.device.type == "cpu" else _ACCELERATOR_BLOCK
    vector = u.dim() == 1
    block = budget if vector else max(1, budget // max(1, u.shape[1]))
    for start in range(0, pattern.nnz, block):
        entries = slice(start, start + block)
        rows, columns = u.index_select(0, pattern.row[entries]), v.index_select(0, pattern.col[entries])
        out[entries] = rows.mul_(columns.conj()) if vector else torch.linalg.vecdot(columns, rows)
    return out


@cache
def hear_beta_warning() -> None:
    """Take torch's once-a-process notice that CSR is in beta, which a user who never asked for CSR cannot act on."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        index = torch.zeros(2, dtype=torch.int32)
        torch.sparse_csr_tensor(index, index[:0], torch.zeros(0), (1, 1), check_invariants=False)
