"""Where the entries of a matrix stand, and patterns found again by the sparse tensor that they were built from."""

from functools import cached_property
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch._C import _functorch
from torch.overrides import handle_torch_function, has_torch_function_unary
from torch.utils.weak import WeakTensorKeyDictionary

from tsgu._core.pattern import _symbolic
from tsgu._core.pattern._symbolic import Symbolic
from tsgu._matrix import _checks


class Pattern:
    """Which entries of a matrix are stored: row-major, each position once.

    Built once, it serves any number of matrices with these positions: a training loop pays for sorting, row pointers
    and the transpose only in its first step.

    Parameters
    ----------
    row, col : Tensor, shape (nse,), any integer dtype
        Positions in any order; a repeated position is stored once.
    shape : tuple of int
        (m, n).

    Raises
    ------
    ValueError
        If ``row`` and ``col`` are not two vectors of one length, or an index lies outside ``shape``.

    Examples
    --------
    >>> import torch, tsgu
    >>> pattern = tsgu.Pattern(torch.tensor([1, 0, 0]), torch.tensor([1, 0, 0]), (2, 2))
    >>> pattern
    Pattern(shape=(2, 2), nnz=2, device=cpu)

    Finite elements: each contributes a small matrix, and what several contribute to one place is added by
    :meth:`gather`. Here three bars in a row, of the conductance c, each with a matrix of 2 by 2. The pattern is built
    once, before the loop.

    >>> nodes = torch.tensor([[0, 1], [1, 2], [2, 3]])
    >>> row, col = nodes.repeat_interleave(2, dim=1), nodes.repeat(1, 2)
    >>> pattern = tsgu.Pattern(row.flatten(), col.flatten(), (4, 4))
    >>> bar = torch.tensor([2.0, -1.0, -1.0, 2.0])
    >>> c, b = torch.ones(3, requires_grad=True), torch.ones(4)
    >>> for step in range(30):
    ...     entries = c[:, None] * bar
    ...     A = tsgu.SparseMatrix(pattern.gather(entries.flatten()), pattern)
    ...     x = tsgu.sparse_generic_solve(A, b, solve=tsgu.linear_cg)
    ...     loss = (x - 0.5).square().sum()
    ...     (gradient,) = torch.autograd.grad(loss, c)
    ...     c = (c - gradient).detach().requires_grad_()
    >>> pattern, bool(loss < 0.01)
    (Pattern(shape=(4, 4), nnz=10, device=cpu), True)
    """

    def __init__(self, row: Tensor, col: Tensor, shape: tuple[int, int]) -> None:
        if row.dim() != 1 or row.shape != col.shape:
            raise ValueError(
                f"row and col must be vectors of one length; got shapes {tuple(row.shape)} and {tuple(col.shape)}."
            )
        symbolic = _symbolic.from_coo(_host(row), _host(col), (int(shape[0]), int(shape[1])))
        self._init(symbolic, row.device)

    @classmethod
    def from_csr(cls, crow: Tensor, col: Tensor, shape: tuple[int, int]) -> Self:
        """The same from row pointers, shape (m + 1,), and column indices, shape (nse,)."""
        return cls._of(_symbolic.from_csr(_host(crow), _host(col), (int(shape[0]), int(shape[1]))), col.device)

    @classmethod
    def _of(cls, symbolic: Symbolic, device: torch.device) -> Self:
        pattern = cls.__new__(cls)
        pattern._init(symbolic, device)
        return pattern

    def _init(self, symbolic: Symbolic, device: torch.device) -> None:
        self.symbolic = symbolic
        self.device = device
        self.shape = symbolic.shape
        self.nnz = symbolic.nnz

    @cached_property
    def crow(self) -> Tensor:
        """Row pointers, shape (m + 1,)."""
        return self._lift(self.symbolic.indptr)

    @cached_property
    def row(self) -> Tensor:
        """Row of each stored entry, shape (nnz,)."""
        return self._lift(self.symbolic.row)

    @cached_property
    def col(self) -> Tensor:
        """Column of each stored entry, shape (nnz,)."""
        return self._lift(self.symbolic.col)

    @cached_property
    def T(self) -> "Pattern":  # noqa: N802 - the name that NumPy and torch use
        """The pattern of the transpose."""
        pattern = Pattern._of(self.symbolic.transpose, self.device)
        pattern.__dict__["T"] = self
        return pattern

    @cached_property
    def transposition(self) -> Tensor:
        """Permutation such that ``values[..., transposition]`` are the values of the transpose, shape (nnz,)."""
        return self._lift(self.symbolic.transposition)

    @property
    def is_symmetric(self) -> bool:
        """Whether (j, i) is stored wherever (i, j) is."""
        return self.symbolic.is_symmetric

    def to(self, device: torch.device | str) -> "Pattern":
        """The pattern with its index tensors on another device."""
        device = torch.device(device)
        return self if device == self.device else Pattern._of(self.symbolic, device)

    def _coordinates(self, members: int | None) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        """Indices and shape of a COO tensor: (row, col), or (member, row, col) if members are diagonal blocks."""
        if members is None:
            return (self.row, self.col), self.shape
        size = self.shape[0] // max(members, 1)
        return (self.row // max(size, 1), self.row % max(size, 1), self.col % max(size, 1)), (members, size, size)

    def _compressed(self, members: int | None) -> tuple[Tensor, Tensor, tuple[int, ...]]:
        """Row pointers, columns and shape of a CSR tensor; with a leading dimension if members are diagonal blocks."""
        if members is None:
            return self.crow, self.col, self.shape
        size, nnz = self.shape[0] // max(members, 1), self.nnz // max(members, 1)
        first = nnz * torch.arange(members, dtype=self.crow.dtype, device=self.device).unsqueeze(1)
        inside = torch.arange(size + 1, dtype=self.crow.dtype, device=self.device)
        crow = self.crow[size * torch.arange(members, device=self.device).unsqueeze(1) + inside] - first
        return crow, (self.col % max(size, 1)).reshape(members, nnz), (members, size, size)

    def gather(self, given: Tensor) -> Tensor:
        """Values in the order that the pattern was built from, (..., nse), brought to its own, (..., nnz).

        Values at a repeated position are added. Differentiable to any order, in both modes.
        """
        if has_torch_function_unary(given):
            return handle_torch_function(Pattern.gather, (given,), self, given)
        symbolic = self.symbolic
        if symbolic.merge is not None:
            zeros = given.new_zeros((*given.shape[:-1], self.nnz))
            return zeros.index_add(-1, self._merge, given)
        return given if symbolic.order is None else given.index_select(-1, self._order)

    def _pick(self, values: Tensor, other: "Pattern") -> Tensor:
        """From values on another pattern those at the positions of this one, zero where the other stores nothing."""
        place, stored = _symbolic.locate(self.symbolic, other.symbolic)
        if stored.all() and self.nnz == other.nnz:
            return values
        return torch.where(self._lift(stored), values.index_select(-1, self._lift(place)), 0)

    @cached_property
    def _merge(self) -> Tensor:
        return self._lift(self.symbolic.merge)

    @cached_property
    def _order(self) -> Tensor:
        return self._lift(self.symbolic.order)

    def _lift(self, indices: Any) -> Tensor:
        # A tensor first made inside a transform of torch.func would be wrapped, and cached so beyond the transform.
        # Nor is it any business of a mode, such as that of torch2jax.
        with torch._C._DisableFuncTorch(), torch._C.DisableTorchFunction():
            return torch.from_numpy(indices).to(self.device)

    def __repr__(self) -> str:
        return f"Pattern(shape={self.shape}, nnz={self.nnz}, device={self.device})"


_seen: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
"""Patterns of sparse tensors that are still alive, with copies of the indices: a tensor may be written to."""


def pattern_of(A: Tensor) -> Pattern:
    """The pattern of a sparse COO or CSR tensor; of a batch of square ones, with the members as diagonal blocks.

    Found again where the same tensor is seen with the same indices.
    """
    plain = A.detach()
    parts = (plain._indices(),) if A.layout == torch.sparse_coo else (plain.crow_indices(), plain.col_indices())
    indices = [_host(part) for part in parts]
    known = _seen.get(A)
    if known is not None and all(map(np.array_equal, indices, known[0])):
        pattern: Pattern = known[1]
        return pattern
    pattern = _pattern_of_batch(plain) if A.dim() == 3 else _pattern_of_matrix(plain)
    _seen[A] = [part.astype(pattern.symbolic.col.dtype) for part in indices], pattern
    return pattern


def _pattern_of_matrix(A: Tensor) -> Pattern:
    shape = (A.shape[0], A.shape[1])
    if A.layout == torch.sparse_coo:
        row, col = A._indices()
        return Pattern(row, col, shape)
    return Pattern.from_csr(A.crow_indices(), A.col_indices(), shape)


def _pattern_of_batch(A: Tensor) -> Pattern:
    members, size, _ = A.shape
    shape = (members * size, members * size)
    if A.layout == torch.sparse_coo:
        member, row, col = A._indices()
        return Pattern(member * size + row, member * size + col, shape)
    crow, col = A.crow_indices().long(), A.col_indices().long()
    member, nnz = torch.arange(members, device=A.device).unsqueeze(1), col.shape[1]
    crow = torch.cat([(crow[:, :-1] + member * nnz).flatten(), crow.new_tensor([members * nnz])])
    pattern = Pattern.from_csr(crow, (col + member * size).flatten(), shape)
    _checks.check_members(pattern.nnz, members * nnz)
    return pattern


def _host(indices: Tensor) -> Any:
    """Indices as a NumPy array, also where a transform of torch.func surrounds the call."""
    while _functorch.is_gradtrackingtensor(indices):
        indices = _functorch.get_unwrapped(indices)
    if _functorch.is_batchedtensor(indices):
        raise TypeError(
            "row and col must be the same for all members of a batch; got indices that vmap maps over. "
            "Map over the values alone."
        )
    with torch._C._DisableFuncTorch():
        return indices.detach().cpu().numpy()
