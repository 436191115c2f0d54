"""Where the entries of a matrix stand, and patterns found again by the sparse tensor that they were built from."""

from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary
from torch.utils.weak import WeakTensorKeyDictionary

from tsgu._core.pattern import _indices, _symbolic
from tsgu._core.pattern._symbolic import Symbolic
from tsgu._matrix import _checks, _internals

if TYPE_CHECKING:
    from tsgu._matrix._sparse_matrix import SparseMatrix


class Pattern:
    """Which entries of a matrix are stored: row-major, each position once.

    Built once, it serves any number of matrices with these positions: a training loop pays for sorting, row pointers
    and the transpose only in its first step.

    Parameters
    ----------
    row, col : Tensor, ndarray or list of int, shape (nse,), any integer dtype
        Positions in any order; a repeated position is stored once. The pattern lives on the device of ``row``, the CPU
        for arrays of NumPy and lists.
    shape : tuple of int
        (m, n).

    Raises
    ------
    ValueError
        If ``row`` and ``col`` are not two vectors of one length, or an index lies outside ``shape``.
    TypeError
        If ``row``, ``col`` or ``shape`` holds anything but whole numbers.

    See Also
    --------
    SparseMatrix : values in the pattern's own, row-major order.

    Examples
    --------
    The order in which positions are given is kept for :meth:`matrix`, which takes values in that order. Values given to
    :class:`SparseMatrix` stand in the pattern's own order, which is row-major.

    >>> import torch, tsgu
    >>> pattern = tsgu.Pattern(torch.tensor([1, 0, 0]), torch.tensor([1, 0, 0]), (2, 2))
    >>> pattern
    Pattern(shape=(2, 2), nnz=2, device=cpu, built from 3 entries in another order)
    >>> pattern.matrix(torch.tensor([5.0, 1.0, 2.0])).to_dense()
    tensor([[3., 0.],
            [0., 5.]])

    Finite elements: each contributes a small matrix, and what several contribute to one place is added. Here three
    bars in a row, of the conductance c, each with a matrix of 2 by 2. The pattern is built once, before the loop.

    >>> nodes = torch.tensor([[0, 1], [1, 2], [2, 3]])
    >>> row, col = nodes.repeat_interleave(2, dim=1), nodes.repeat(1, 2)
    >>> pattern = tsgu.Pattern(row.flatten(), col.flatten(), (4, 4))
    >>> bar = torch.tensor([2.0, -1.0, -1.0, 2.0])
    >>> c, b = torch.ones(3, requires_grad=True), torch.ones(4)
    >>> for step in range(30):
    ...     entries = c[:, None] * bar
    ...     A = pattern.matrix(entries.flatten())
    ...     x = tsgu.sparse_generic_solve(A, b, solve=tsgu.linear_cg)
    ...     loss = (x - 0.5).square().sum()
    ...     (gradient,) = torch.autograd.grad(loss, c)
    ...     c = (c - gradient).detach().requires_grad_()
    >>> pattern.nnz, bool(loss < 0.01)
    (10, True)
    """

    _matrix_type: ClassVar[Any]
    """SparseMatrix, which is built on patterns, and enters itself here."""

    def __init__(self, row: Any, col: Any, shape: tuple[int, int]) -> None:
        rows, cols = _checks.indices("row", row, _host), _checks.indices("col", col, _host)
        _indices.check_lengths(rows, cols)
        self._init(_symbolic.from_coo(rows, cols, _indices.as_shape(shape)), _device_of(row))

    @classmethod
    def from_csr(cls, crow: Any, col: Any, shape: tuple[int, int]) -> Self:
        """The same from row pointers, shape (m + 1,), and column indices, shape (nse,)."""
        pointers, cols = _checks.indices("crow", crow, _host), _checks.indices("col", col, _host)
        return cls._of(_symbolic.from_csr(pointers, cols, _indices.as_shape(shape)), _device_of(col))

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
        self._last_blocks: tuple[int, Pattern] | None = None

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
        """The pattern with its index tensors on another device; the same object for the same device every time."""
        device = torch.empty(0, device=device).device  # cuda is cuda:0, as tensors say
        if device == self.device:
            return self
        if device not in self._elsewhere:
            pattern = Pattern._of(self.symbolic, device)
            pattern.__dict__["_elsewhere"] = self._elsewhere
            self._elsewhere[device] = pattern
        return self._elsewhere[device]

    @cached_property
    def _elsewhere(self) -> dict[torch.device, "Pattern"]:
        """This pattern on each device that it has been asked for on."""
        return {self.device: self}

    def _blocks(self, count: int) -> "Pattern":
        """The pattern of a batch of ``count`` matrices, as diagonal blocks; the last one is kept."""
        last = self._last_blocks
        if last is None or last[0] != count:
            self._last_blocks = last = count, Pattern._of(self.symbolic.blocks(count), self.device)
        return last[1]

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

        Raises
        ------
        ValueError
            If ``given`` is not a tensor with one entry per position that the pattern was built from, or lies on another
            device.
        TypeError
            If ``given`` is not dense.
        """
        if has_torch_function_unary(given):
            return handle_torch_function(Pattern.gather, (given,), self, given)
        symbolic = self.symbolic
        _checks.check_given(given, symbolic.nse, self.device, any_batch=True)
        if symbolic.merge is not None:
            zeros = given.new_zeros((*given.shape[:-1], self.nnz))
            return zeros.index_add(-1, self._merge, given)
        return given if symbolic.order is None else given.index_select(-1, self._order)

    def matrix(self, given: Tensor) -> "SparseMatrix":
        """The matrix with values in the order that the pattern was built from.

        The same as ``SparseMatrix(pattern.gather(given), pattern)``. Values that stand in the pattern's own order
        already, as :attr:`SparseMatrix.values` do, are for ``SparseMatrix(values, pattern)``.

        Parameters
        ----------
        given : Tensor, shape (nse,) or (batch, nse)
            One value per position that the pattern was built from; those at a repeated position are added.
            Differentiable to any order, in both modes.

        Returns
        -------
        SparseMatrix

        Raises
        ------
        ValueError
            If ``given`` is not a tensor of that shape, or lies on another device than the pattern.
        TypeError
            If ``given`` is not dense.

        Examples
        --------
        >>> import torch, tsgu
        >>> row, col = torch.tensor([1, 0, 1]), torch.tensor([0, 1, 0])
        >>> tsgu.Pattern(row, col, (2, 2)).matrix(torch.tensor([10.0, 1.0, 20.0])).to_dense()
        tensor([[ 0.,  1.],
                [30.,  0.]])
        """
        if not has_torch_function_unary(given):
            _checks.check_given(given, self.symbolic.nse, self.device, any_batch=False)
        matrix: SparseMatrix = self._matrix_type(self.gather(given), self)
        return matrix

    def state(self) -> dict[str, Any]:
        """What the pattern is made of, as tensors and whole numbers: ``Pattern(**pattern.state())`` is the same again.

        For ``torch.save`` and ``torch.load(..., weights_only=True)``.

        Returns
        -------
        dict
            ``row`` and ``col``, tensors of shape (nse,) in the order that the pattern was built from, and ``shape``.

        Examples
        --------
        >>> import torch, tsgu
        >>> tsgu.Pattern([1, 0], [0, 1], (2, 2)).state()
        {'row': tensor([1, 0]), 'col': tensor([0, 1]), 'shape': (2, 2)}
        """
        row, col = (self._lift(index.astype("int64")) for index in self.symbolic.given)
        return {"row": row, "col": col, "shape": self.shape}

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
        # Nor is it any business of a mode, such as that of torch2jax; and one made under inference mode could not be
        # saved for a gradient afterwards.
        with _internals.unobserved():
            return torch.from_numpy(indices).to(self.device)

    def __copy__(self) -> "Pattern":
        return self  # nothing in it changes

    def __deepcopy__(self, memo: Any) -> "Pattern":
        return self

    def __repr__(self) -> str:
        given = f", {self.symbolic.told}" if self.symbolic.told else ""
        return f"Pattern(shape={self.shape}, nnz={self.nnz}, device={self.device}{given})"


_seen: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
"""Patterns of sparse tensors that are still alive, with copies of the indices: a tensor may be written to."""


def pattern_of(A: Tensor) -> Pattern:
    """The pattern of a sparse COO or CSR tensor; of a batch of square ones, with the members as diagonal blocks.

    Found again where the same tensor is seen with the same indices.
    """
    plain = A.detach()
    coo = A.layout == torch.sparse_coo
    parts = (_internals.stored_indices(plain),) if coo else (plain.crow_indices(), plain.col_indices())
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
        row, col = _internals.stored_indices(A)
        return Pattern(row, col, shape)
    return Pattern.from_csr(A.crow_indices(), A.col_indices(), shape)


def _pattern_of_batch(A: Tensor) -> Pattern:
    members, size, _ = A.shape
    shape = (members * size, members * size)
    if A.layout == torch.sparse_coo:
        member, row, col = _internals.stored_indices(A)
        return Pattern(member * size + row, member * size + col, shape)
    crow, col = A.crow_indices().long(), A.col_indices().long()
    member, nnz = torch.arange(members, device=A.device).unsqueeze(1), col.shape[1]
    crow = torch.cat([(crow[:, :-1] + member * nnz).flatten(), crow.new_tensor([members * nnz])])
    pattern = Pattern.from_csr(crow, (col + member * size).flatten(), shape)
    _checks.check_members(pattern.nnz, members * nnz)
    return pattern


def _device_of(indices: Any) -> torch.device:
    return indices.device if isinstance(indices, Tensor) else torch.device("cpu")


def _host(indices: Tensor) -> Any:
    """Indices as a NumPy array, also where a transform of torch.func surrounds the call."""
    indices = _internals.without_derivatives(indices)
    if _internals.is_mapped(indices):
        raise TypeError(
            "row and col must be the same for all members of a batch; got indices that vmap maps over. "
            "Map over the values alone."
        )
    with _internals.untransformed():
        return indices.detach().cpu().numpy()
