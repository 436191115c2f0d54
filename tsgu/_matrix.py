"""A sparse matrix as a pattern, which is never differentiated, and values, which are."""

from functools import cached_property
from typing import Any, Self

import torch
from torch import Tensor
from torch._C import _functorch
from torch.overrides import handle_torch_function, has_torch_function_unary, has_torch_function_variadic

from tsgu import _checks
from tsgu._core import _symbolic
from tsgu._core._symbolic import Symbolic
from tsgu._implicit import assemble, extract, product


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

    def coordinates(self, members: int | None) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        """Indices and shape of a COO tensor: (row, col), or (member, row, col) if members are diagonal blocks."""
        if members is None:
            return (self.row, self.col), self.shape
        size = self.shape[0] // max(members, 1)
        return (self.row // max(size, 1), self.row % max(size, 1), self.col % max(size, 1)), (members, size, size)

    def compressed(self, members: int | None) -> tuple[Tensor, Tensor, tuple[int, ...]]:
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
        symbolic = self.symbolic
        if symbolic.merge is not None:
            zeros = given.new_zeros((*given.shape[:-1], self.nnz))
            return zeros.index_add(-1, self._merge, given)
        return given if symbolic.order is None else given.index_select(-1, self._order)

    def pick(self, values: Tensor, other: "Pattern") -> Tensor:
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
        with torch._C._DisableFuncTorch():
            return torch.from_numpy(indices).to(self.device)

    def __repr__(self) -> str:
        return f"Pattern(shape={self.shape}, nnz={self.nnz}, device={self.device})"


class SparseMatrix:
    """Values on a pattern: a sparse matrix differentiable to any order, in both modes, and under ``torch.func``.

    Parameters
    ----------
    values : Tensor, shape (nnz,) or (batch, nnz)
        One value per stored entry, in the pattern's order; with a leading dimension, one matrix per row.
    pattern : Pattern
        Where the values stand.

    Raises
    ------
    ValueError
        If ``values`` does not have one entry per stored position, or lies on another device than the pattern.

    Examples
    --------
    >>> import torch, tsgu
    >>> row, col = torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1])
    >>> A = tsgu.SparseMatrix.from_coo(row, col, torch.tensor([2.0, -1.0, 4.0]), (2, 2))
    >>> A @ torch.ones(2)
    tensor([1., 4.])
    >>> A.T.to_dense()
    tensor([[ 2.,  0.],
            [-1.,  4.]])
    """

    def __new__(cls, values: Tensor, pattern: Pattern) -> "SparseMatrix":
        if has_torch_function_unary(values):
            return handle_torch_function(cls, (values,), values, pattern)
        return super().__new__(cls)

    def __init__(self, values: Tensor, pattern: Pattern) -> None:
        _checks.check_values(values, pattern)
        self.values = values
        self.pattern = pattern

    def __getnewargs__(self) -> tuple[Tensor, Pattern]:
        return self.values, self.pattern  # what __new__ needs to copy or unpickle

    @classmethod
    def from_coo(cls, row: Tensor, col: Tensor, values: Tensor, shape: tuple[int, int]) -> "SparseMatrix":
        """Build from coordinates, in any order; values at a repeated position are added.

        Parameters
        ----------
        row, col : Tensor, shape (nse,)
            Positions.
        values : Tensor, shape (nse,) or (batch, nse)
            Differentiable to any order.
        shape : tuple of int
            (m, n).

        Returns
        -------
        SparseMatrix

        Raises
        ------
        ValueError
            If the shapes do not match, or an index lies outside ``shape``.

        Examples
        --------
        >>> import torch, tsgu
        >>> i = torch.tensor([0, 1, 1])
        >>> tsgu.SparseMatrix.from_coo(i, i, torch.tensor([1.0, 2.0, 3.0]), (2, 2)).values
        tensor([1., 5.])
        """
        if has_torch_function_variadic(row, col, values):
            return handle_torch_function(cls.from_coo, (row, col, values), row, col, values, shape)
        if values.dim() not in (1, 2) or values.shape[-1:] != row.shape:
            raise ValueError(
                f"values must have shape (nse,) or (batch, nse) with nse = {row.numel()} as in row; "
                f"got {tuple(values.shape)}."
            )
        pattern = Pattern(row, col, shape)
        return cls(pattern.gather(values), pattern)

    @classmethod
    def from_tensor(cls, A: Tensor) -> "SparseMatrix":
        """Build from a sparse COO or CSR tensor, or from the nonzero entries of a dense one.

        Reverse mode passes through, to second order; for forward mode and ``torch.func`` build with :meth:`from_coo`.

        Raises
        ------
        TypeError
            If ``A`` has another layout.
        ValueError
            If ``A`` does not have two dimensions and scalar entries.

        Examples
        --------
        >>> import torch, tsgu
        >>> tsgu.SparseMatrix.from_tensor(torch.eye(3).to_sparse_csr())
        SparseMatrix(shape=(3, 3), nnz=3, dtype=torch.float32, device=cpu)
        """
        _checks.check_convertible(A)
        if A.layout == torch.strided:
            row, col = A.detach().nonzero(as_tuple=True)
            return cls(A[row, col], Pattern(row, col, (A.shape[0], A.shape[1])))
        pattern = pattern_of(A)
        return cls(extract(A, pattern), pattern)

    def to_tensor(self, layout: torch.layout = torch.sparse_csr) -> Tensor:
        """The same matrix as a sparse tensor of torch, ``torch.sparse_coo`` (coalesced) or ``torch.sparse_csr``.

        Raises
        ------
        TypeError
            If ``layout`` is neither.
        ValueError
            If the values are a batch.
        """
        _checks.check_layout(layout)
        _checks.check_unbatched(self.values)
        index = torch.int64 if layout == torch.sparse_coo else self.pattern.col.dtype
        return assemble(self.values, self.pattern, layout, index)

    def to_dense(self) -> Tensor:
        """The same matrix as a dense tensor, shape (m, n) or (batch, m, n); differentiable to any order."""
        batch, (m, n) = self.values.shape[:-1], self.pattern.shape
        place = self.pattern.row.long() * n + self.pattern.col
        return self.values.new_zeros((*batch, m * n)).index_add(-1, place, self.values).reshape(*batch, m, n)

    def with_values(self, values: Tensor) -> "SparseMatrix":
        """Another matrix on the same pattern."""
        return SparseMatrix(values, self.pattern)

    def detach(self) -> "SparseMatrix":
        """The same matrix, cut from the graph."""
        return SparseMatrix(self.values.detach(), self.pattern)

    def to(self, *args: Any, **kwargs: Any) -> "SparseMatrix":
        """As :meth:`torch.Tensor.to`, for dtype and device."""
        values = self.values.to(*args, **kwargs)
        return SparseMatrix(values, self.pattern.to(values.device))

    @property
    def T(self) -> "SparseMatrix":  # noqa: N802 - the name that NumPy and torch use
        """The transpose."""
        return SparseMatrix(self.values.index_select(-1, self.pattern.transposition), self.pattern.T)

    @property
    def mH(self) -> "SparseMatrix":  # noqa: N802
        """The conjugate transpose."""
        return self.T.with_values(self.T.values.conj())

    @property
    def shape(self) -> tuple[int, ...]:
        """(m, n), or (batch, m, n)."""
        return (*self.values.shape[:-1], *self.pattern.shape)

    @property
    def dtype(self) -> torch.dtype:
        return self.values.dtype

    @property
    def device(self) -> torch.device:
        return self.values.device

    @property
    def nnz(self) -> int:
        """Number of stored entries."""
        return self.pattern.nnz

    @property
    def requires_grad(self) -> bool:
        return self.values.requires_grad

    def __matmul__(self, X: Tensor) -> Tensor:
        """A @ X for X of shape (n,) or (n, k); for a batch (batch, n) or (batch, n, k)."""
        _checks.check_factor(self.shape, self.values, X)
        if self.values.dim() == 2:
            return torch.func.vmap(lambda values, x: product(values, x, self.pattern))(self.values, X)
        return product(self.values, X, self.pattern)

    def __repr__(self) -> str:
        return f"SparseMatrix(shape={self.shape}, nnz={self.nnz}, dtype={self.dtype}, device={self.device})"


def pattern_of(A: Tensor) -> Pattern:
    """The pattern of a sparse COO or CSR tensor; of a batch of square ones, with the members as diagonal blocks."""
    A = A.detach()
    if A.dim() == 3:
        return _pattern_of_batch(A)
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
