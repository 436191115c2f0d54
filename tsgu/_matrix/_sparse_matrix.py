"""A sparse matrix as a pattern, which is never differentiated, and values, which are."""

import copyreg
from typing import Any, overload

import scipy.sparse as sp
import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary, has_torch_function_variadic
from torch.utils._pytree import register_pytree_node

from tsgu._core.pattern import _operands, _scipy, _symbolic, _values
from tsgu._core.report import _wording
from tsgu._matrix import _arithmetic, _checks, _products
from tsgu._matrix._autocast import widened
from tsgu._matrix._autodiff import assemble, extract, product
from tsgu._matrix._pattern import Pattern, pattern_of


class SparseMatrix:
    """Values on a pattern: a sparse matrix differentiable to any order, in both modes, and under ``torch.func``.

    Parameters
    ----------
    values : Tensor, shape (nnz,) or (batch, nnz)
        One value per stored entry, in the pattern's own order, which is row-major, whatever order the pattern was built
        from; with a leading dimension, one matrix per row. Values in the order of ``Pattern(row, col, shape)`` are for
        :meth:`Pattern.matrix`.
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

    def __reduce__(self) -> Any:
        return _restored, (self.values, self.pattern)

    @classmethod
    def from_coo(cls, row: Any, col: Any, values: Tensor, shape: tuple[int, int]) -> "SparseMatrix":
        """Build from coordinates, in any order; values at a repeated position are added.

        Parameters
        ----------
        row, col : Tensor, ndarray or list of int, shape (nse,), any integer dtype
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
            If the shapes do not match, an index lies outside ``shape``, or ``values`` is not a tensor.
        TypeError
            If ``row``, ``col`` or ``shape`` holds anything but whole numbers.

        See Also
        --------
        Pattern : for many matrices with these positions.

        Examples
        --------
        >>> import torch, tsgu
        >>> i = torch.tensor([0, 1, 1])
        >>> tsgu.SparseMatrix.from_coo(i, i, torch.tensor([1.0, 2.0, 3.0]), (2, 2)).values
        tensor([1., 5.])
        """
        if has_torch_function_variadic(row, col, values):
            return handle_torch_function(cls.from_coo, (row, col, values), row, col, values, shape)
        if not isinstance(values, Tensor):
            raise ValueError(_wording.not_a("values", "a torch.Tensor", values))
        pattern = Pattern(row, col, shape)
        if values.dim() not in (1, 2) or values.shape[-1] != pattern.symbolic.nse:
            raise ValueError(_values.values_of_coo(pattern.symbolic.nse, tuple(values.shape)))
        if not isinstance(row, Tensor):  # which has no device of its own
            pattern = pattern.to(values.device)
        return cls(pattern.gather(values), pattern)

    @classmethod
    def eye(cls, n: int, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> "SparseMatrix":
        """The identity, shape (n, n), in torch's default dtype if none is given; on one pattern for each n.

        Raises
        ------
        TypeError, ValueError
            If ``n`` is not a whole number, or negative.

        Examples
        --------
        >>> import torch, tsgu
        >>> K = tsgu.SparseMatrix.from_coo([0, 0, 1], [0, 1, 1], torch.tensor([2.0, -1.0, 2.0]), (2, 2))
        >>> (tsgu.SparseMatrix.eye(2) + 0.5 * K).to_dense()
        tensor([[ 2.0000, -0.5000],
                [ 0.0000,  2.0000]])
        """
        values = torch.ones(_operands.checked_size(n), dtype=dtype, device=device)
        return cls(values, _arithmetic.pattern_of_eye(values.numel()).to(values.device))

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

    @classmethod
    def from_scipy(cls, A: Any) -> "SparseMatrix":
        """Build from a matrix or array of ``scipy.sparse``, in any format.

        Parameters
        ----------
        A : sparse matrix or array of SciPy, shape (m, n)
            Repeated positions are added. Explicit zeros are kept, but for those on the diagonals of DIA, which SciPy
            drops whenever it converts that format. No memory is shared with ``A``.

        Returns
        -------
        SparseMatrix
            On the CPU, in the dtype of ``A``, or in float64 for integers and bool.

        Raises
        ------
        ValueError
            If ``A`` does not have two dimensions.
        TypeError
            If ``A`` is no sparse matrix or array of SciPy, or of a dtype that is not solved in, such as longdouble.

        Examples
        --------
        >>> import scipy.sparse as sp, tsgu
        >>> tsgu.SparseMatrix.from_scipy(sp.diags_array([2.0, -1.0], offsets=[0, 1], shape=(3, 3))).to_dense()
        tensor([[ 2., -1.,  0.],
                [ 0.,  2., -1.],
                [ 0.,  0.,  2.]], dtype=torch.float64)
        """
        row, col, values, shape = _scipy.entries(A)
        pattern = Pattern._of(_symbolic.from_coo(row, col, shape), torch.device("cpu"))
        return cls(pattern.gather(torch.from_numpy(values)), pattern)

    def to_scipy(self) -> sp.csr_array:
        """The same matrix as a ``scipy.sparse.csr_array``: a copy on the host, cut from the graph.

        Raises
        ------
        ValueError
            If the values are a batch.
        TypeError
            If the values are not of a dtype that is solved in, or belong to a transform of ``torch.func``.

        Examples
        --------
        >>> import torch, tsgu
        >>> tsgu.SparseMatrix.from_tensor(torch.eye(2)).to_scipy().toarray()
        array([[1., 0.],
               [0., 1.]], dtype=float32)
        """
        _checks.check_concrete(self.values)
        _checks.check_unbatched(self.values)
        _checks.check_dtype("values", self.values)
        symbolic = self.pattern.symbolic
        values = _products.host(self.values)
        return _scipy.matrix(values, symbolic.row, symbolic.col, symbolic.shape)

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
        """That of the values."""
        return self.values.dtype

    @property
    def device(self) -> torch.device:
        """That of the values."""
        return self.values.device

    @property
    def nnz(self) -> int:
        """Number of stored entries."""
        return self.pattern.nnz

    @property
    def requires_grad(self) -> bool:
        """Whether the values require grad."""
        return self.values.requires_grad

    def diagonal(self) -> Tensor:
        """The diagonal, shape (min(m, n),) or (batch, min(m, n)), zero where nothing is stored; differentiable."""
        return _arithmetic.diagonal(self.values, self.pattern)

    __array_ufunc__ = None  # so that a number of NumPy leaves its product with a matrix to the matrix

    def __mul__(self, s: Any) -> "SparseMatrix":
        """A times a number, or a tensor of shape (); differentiable in both."""
        if has_torch_function_unary(s):
            return handle_torch_function(SparseMatrix.__mul__, (s,), self, s)
        return self.with_values(self.values * s) if _operands.is_scalar("*", s, (Tensor,)) else NotImplemented

    __rmul__ = __mul__

    def __truediv__(self, s: Any) -> "SparseMatrix":
        """A divided by a number, or a tensor of shape (); differentiable in both."""
        if has_torch_function_unary(s):
            return handle_torch_function(SparseMatrix.__truediv__, (s,), self, s)
        return self.with_values(self.values / s) if _operands.is_scalar("/", s, (Tensor,)) else NotImplemented

    def __neg__(self) -> "SparseMatrix":
        return self.with_values(-self.values)

    def __add__(self, X: Any) -> "SparseMatrix":
        """A + X, on the pattern of one of them if that has all positions of the other; differentiable in both."""
        if not isinstance(X, SparseMatrix):
            return _checks.refused_summand("+", X)
        _checks.check_operands("+", self, X)
        return SparseMatrix(*_arithmetic.added((self.values, self.pattern), (X.values, X.pattern)))

    def __sub__(self, X: Any) -> "SparseMatrix":
        """A - X, as A + X."""
        if not isinstance(X, SparseMatrix):
            return _checks.refused_summand("-", X)
        _checks.check_operands("-", self, X)
        return self + -X

    def __radd__(self, X: Any) -> Any:
        return self if isinstance(X, int) and X == 0 else _checks.refused_summand("+", X)  # 0 is where sum() begins

    def __rsub__(self, X: Any) -> Any:
        return _checks.refused_summand("-", X)

    @overload
    def __matmul__(self, X: "SparseMatrix") -> "SparseMatrix": ...

    @overload
    def __matmul__(self, X: Tensor) -> Tensor: ...

    def __matmul__(self, X: Any) -> Any:
        """A @ X for X of shape (n,) or (n, k), for a batch (batch, n) or (batch, n, k); or for another SparseMatrix.

        The product of two sparse matrices is on the pattern of all positions that have a term, which is found once for
        two patterns. Differentiable to any order.
        """
        if isinstance(X, SparseMatrix):
            _checks.check_operands("@", self, X)
            return SparseMatrix(*_arithmetic.multiplied((self.values, self.pattern), (X.values, X.pattern)))
        if has_torch_function_unary(X):
            return handle_torch_function(SparseMatrix.__matmul__, (X,), self, X)
        values, X = widened(self.values), widened(X)
        _checks.check_factor(self.shape, values, X)
        if values.dim() == 2:
            return torch.func.vmap(lambda values, x: product(values, x, self.pattern))(values, X)
        return product(values, X, self.pattern)

    def __repr__(self) -> str:
        return f"SparseMatrix(shape={self.shape}, nnz={self.nnz}, dtype={self.dtype}, device={self.device})"

    def state(self) -> dict[str, Any]:
        """What the matrix is made of, as tensors and whole numbers: ``SparseMatrix.from_coo(**A.state())`` is A again.

        For ``torch.save`` and ``torch.load(..., weights_only=True)``.

        Returns
        -------
        dict
            ``row`` and ``col``, of shape (nnz,), ``values`` and ``shape``.

        Examples
        --------
        >>> import torch, tsgu
        >>> tsgu.SparseMatrix.from_tensor(torch.eye(2)).state()
        {'row': tensor([0, 1]), 'col': tensor([0, 1]), 'values': tensor([1., 1.]), 'shape': (2, 2)}
        """
        return {
            "row": self.pattern.row.long(),
            "col": self.pattern.col.long(),
            "values": self.values,
            "shape": self.pattern.shape,
        }


Pattern._matrix_type = SparseMatrix


def _restored(values: Tensor, pattern: Pattern) -> SparseMatrix:
    """Unpickled, perhaps on another device: ``map_location`` moves tensors alone."""
    return SparseMatrix(values, pattern.to(values.device))


def _rebuilt(leaves: Any, pattern: Pattern) -> SparseMatrix:
    """Unchecked: a transform may put anything in place of the values."""
    matrix = object.__new__(SparseMatrix)
    (matrix.values,), matrix.pattern = leaves, pattern
    return matrix


def _restored_pattern(symbolic: _symbolic.Symbolic, device: torch.device) -> Pattern:
    return Pattern._of(symbolic, device)


# Here, and not in the class, so that a process that unpickles a pattern knows SparseMatrix too.
copyreg.pickle(Pattern, lambda pattern: (_restored_pattern, (pattern.symbolic, pattern.device)))
# An argument and a result of torch.func: vmap maps over the values, grad differentiates by them.
register_pytree_node(SparseMatrix, lambda A: ([A.values], A.pattern), _rebuilt)
