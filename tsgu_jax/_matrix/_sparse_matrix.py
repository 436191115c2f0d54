"""A sparse matrix as a pattern, which is never differentiated, and values, which are."""

from typing import Any, overload

import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp
from jax import Array
from jax.experimental.sparse import BCOO, BCSR
from jax.tree_util import register_pytree_node_class

from tsgu._core.pattern import _indices, _operands, _scipy, _values
from tsgu._core.report import _wording
from tsgu_jax._matrix import _arithmetic, _autodiff, _checks
from tsgu_jax._matrix._pattern import Pattern, cached, pattern_of


@register_pytree_node_class
class SparseMatrix:
    """Values on a pattern: a sparse matrix that is differentiable to any order, in both modes.

    A pytree whose leaves are the values and the index arrays of the pattern, so that it can be an argument of a
    compiled function without its indices becoming constants there. Differentiate and map the values, and rebuild by
    :meth:`with_values`.

    Parameters
    ----------
    values : Array, shape (nnz,) or (batch, nnz)
        One value per stored entry, in the pattern's own order, which is row-major, whatever order the pattern was built
        from; with a leading dimension, one matrix per row. Values in the order of ``Pattern(row, col, shape)`` are for
        :meth:`Pattern.matrix`.
    pattern : Pattern
        Where the values stand.

    Raises
    ------
    ValueError
        If ``values`` does not have one entry per stored position.
    TypeError
        If ``values`` is a NumPy array in double precision while JAX has 64-bit types turned off.

    Examples
    --------
    >>> import numpy as np, jax.numpy as jnp, tsgu_jax
    >>> row, col = np.array([0, 0, 1]), np.array([0, 1, 1])
    >>> A = tsgu_jax.SparseMatrix.from_coo(row, col, jnp.array([2.0, -1.0, 4.0]), (2, 2))
    >>> A @ jnp.ones(2)
    Array([1., 4.], dtype=float32)
    >>> A.T.to_dense()
    Array([[ 2.,  0.],
           [-1.,  4.]], dtype=float32)
    """

    def __init__(self, values: Any, pattern: Pattern) -> None:
        _checks.check_values(values, pattern.nnz)
        self.values: Array = _checks.as_array("values", values)
        self.pattern = pattern

    @classmethod
    def from_coo(cls, row: Any, col: Any, values: Any, shape: tuple[int, int]) -> "SparseMatrix":
        """Build from coordinates, in any order; values at a repeated position are added.

        Parameters
        ----------
        row, col : Array, ndarray or list of int, shape (nse,), any integer dtype
            Positions. Inside ``jax.jit`` give NumPy arrays, or build a :class:`Pattern` outside: arrays of JAX may be
            traced there, which costs speed.
        values : Array, shape (nse,) or (batch, nse)
            Differentiable to any order.
        shape : tuple of int
            (m, n).

        Returns
        -------
        SparseMatrix

        Raises
        ------
        ValueError
            If the shapes do not match, an index lies outside ``shape``, or ``values`` is not an array.
        TypeError
            If ``row``, ``col`` or ``shape`` holds anything but whole numbers.

        See Also
        --------
        Pattern : for many matrices with these positions.

        Examples
        --------
        >>> import numpy as np, jax.numpy as jnp, tsgu_jax
        >>> i = np.array([0, 1, 1])
        >>> tsgu_jax.SparseMatrix.from_coo(i, i, jnp.array([1.0, 2.0, 3.0]), (2, 2)).values
        Array([1., 5.], dtype=float32)
        """
        if not _checks.is_array(values):
            raise ValueError(_wording.not_a("values", "a jax.Array or numpy.ndarray", values))
        shape = _indices.as_shape(shape)
        if _checks.is_array(row) and _checks.is_array(col):
            pattern = cached((row, col), shape, lambda: Pattern(row, col, shape))
        else:
            pattern = Pattern(row, col, shape)
        if values.ndim not in (1, 2) or values.shape[-1] != pattern._nse:
            raise ValueError(_values.values_of_coo(pattern._nse, tuple(values.shape)))
        values = _checks.as_array("values", values)
        return cls(pattern.gather(values), pattern)

    @classmethod
    def eye(cls, n: int, dtype: Any = None) -> "SparseMatrix":
        """The identity, shape (n, n), in JAX's default dtype if none is given; on one pattern for each n.

        Raises
        ------
        TypeError, ValueError
            If ``n`` is not a whole number, or negative.

        Examples
        --------
        >>> import jax.numpy as jnp, tsgu_jax
        >>> K = tsgu_jax.SparseMatrix.from_coo([0, 0, 1], [0, 1, 1], jnp.array([2.0, -1.0, 2.0]), (2, 2))
        >>> (tsgu_jax.SparseMatrix.eye(2) + 0.5 * K).to_dense()
        Array([[ 2. , -0.5],
               [ 0. ,  2. ]], dtype=float32)
        """
        n = _operands.checked_size(n)
        return cls(jnp.ones(n, dtype=dtype), _arithmetic.pattern_of_eye(n))

    @classmethod
    def from_bcoo(cls, A: BCOO | BCSR) -> "SparseMatrix":
        """Build from a ``BCOO`` or ``BCSR``, unsorted, with repeated positions and with padding; differentiable.

        Examples
        --------
        >>> import jax.numpy as jnp, tsgu_jax
        >>> from jax.experimental.sparse import BCOO
        >>> tsgu_jax.SparseMatrix.from_bcoo(BCOO.fromdense(jnp.eye(3)))
        SparseMatrix(shape=(3, 3), nnz=3, dtype=float32)
        """
        _checks.check_sparse_matrix(A)
        pattern = pattern_of(A)
        return cls(pattern.gather(A.data), pattern)

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
            In the dtype of ``A``, or in float64 for integers and bool.

        Raises
        ------
        ValueError
            If ``A`` does not have two dimensions.
        TypeError
            If ``A`` is no sparse matrix or array of SciPy; or of a dtype that is not solved in, such as longdouble; or
            in double precision, as integers are, while JAX has 64-bit types turned off.

        Examples
        --------
        >>> import numpy as np, scipy.sparse as sp, tsgu_jax
        >>> A = sp.diags_array(np.float32([2, -1]), offsets=[0, 1], shape=(3, 3))
        >>> tsgu_jax.SparseMatrix.from_scipy(A).to_dense()
        Array([[ 2., -1.,  0.],
               [ 0.,  2., -1.],
               [ 0.,  0.,  2.]], dtype=float32)
        """
        row, col, values, shape = _scipy.entries(A)
        pattern = Pattern(row, col, shape)
        return cls(pattern.gather(_checks.as_array("A", values)), pattern)

    def to_scipy(self) -> sp.csr_array:
        """The same matrix as a ``scipy.sparse.csr_array``: a copy on the host.

        Raises
        ------
        ValueError
            If the values are a batch.
        TypeError
            If the matrix is traced, or its values are not of a dtype that is solved in.

        Examples
        --------
        >>> import jax.numpy as jnp, numpy as np, tsgu_jax
        >>> i = np.arange(2)
        >>> tsgu_jax.SparseMatrix.from_coo(i, i, jnp.ones(2), (2, 2)).to_scipy().toarray()
        array([[1., 0.],
               [0., 1.]], dtype=float32)
        """
        _checks.check_concrete(self.values, self.pattern.row, self.pattern.col)
        _checks.check_unbatched(self.values)
        _checks.check_dtype("values", self.values)
        matrix = self._settled()
        symbolic = matrix.pattern.symbolic
        return _scipy.matrix(np.asarray(matrix.values), symbolic.row, symbolic.col, symbolic.shape)

    def to_bcoo(self) -> BCOO:
        """The same matrix as a ``BCOO``.

        Raises
        ------
        ValueError
            If the values are a batch.
        """
        _checks.check_unbatched(self.values)
        canonical = self.pattern.transposition is not None
        indices = jnp.stack([jnp.asarray(self.pattern.row), jnp.asarray(self.pattern.col)], axis=1)
        return BCOO(
            (self.values, indices), shape=self.pattern.shape, indices_sorted=canonical, unique_indices=canonical
        )

    def to_bcsr(self) -> BCSR:
        """The same matrix as a ``BCSR``."""
        _checks.check_unbatched(self.values)
        return csr_of(self.values, self.pattern.row, self.pattern.col, self.pattern.shape)

    def to_dense(self) -> Array:
        """The same matrix as a dense array, shape (m, n) or (batch, m, n); differentiable to any order."""
        _checks.check_indices(self.pattern)
        zeros = jnp.zeros((*self.values.shape[:-1], *self.pattern.shape), self.dtype)
        return zeros.at[..., self.pattern.row, self.pattern.col].add(self.values, mode="drop")

    def with_values(self, values: Any) -> "SparseMatrix":
        """Another matrix on the same pattern."""
        return SparseMatrix(values, self.pattern)

    def _settled(self) -> "SparseMatrix":
        """The same matrix in canonical order, if its indices are known."""
        _checks.check_indices(self.pattern)
        pattern = self.pattern._settled
        return self if pattern is self.pattern else SparseMatrix(pattern.gather(self.values), pattern)

    @property
    def T(self) -> "SparseMatrix":  # noqa: N802 - the name that NumPy and JAX use
        """The transpose."""
        order = self.pattern.transposition
        return SparseMatrix(self.values if order is None else self.values[..., order], self.pattern.T)

    @property
    def mH(self) -> "SparseMatrix":  # noqa: N802
        """The conjugate transpose."""
        return self.T.with_values(self.T.values.conj())

    @property
    def shape(self) -> tuple[int, ...]:
        """(m, n), or (batch, m, n)."""
        return (*self.values.shape[:-1], *self.pattern.shape)

    @property
    def dtype(self) -> Any:
        """That of the values."""
        return self.values.dtype

    @property
    def nnz(self) -> int:
        """Number of stored entries."""
        return self.pattern.nnz

    def diagonal(self) -> Array:
        """The diagonal, shape (min(m, n),) or (batch, min(m, n)), zero where nothing is stored; differentiable."""
        A = self._settled()
        return _arithmetic.diagonal(A.values, A.pattern)

    __array_ufunc__ = None  # so that a number of NumPy leaves its product with a matrix to the matrix

    def __mul__(self, s: Any) -> "SparseMatrix":
        """A times a number, or an array of shape (); differentiable in both."""
        return self.with_values(self.values * s) if _operands.is_scalar("*", s, (Array,)) else NotImplemented

    __rmul__ = __mul__

    def __truediv__(self, s: Any) -> "SparseMatrix":
        """A divided by a number, or an array of shape (); differentiable in both."""
        return self.with_values(self.values / s) if _operands.is_scalar("/", s, (Array,)) else NotImplemented

    def __neg__(self) -> "SparseMatrix":
        return self.with_values(-self.values)

    def __add__(self, X: Any) -> "SparseMatrix":
        """A + X, on the pattern of one of them if that has all positions of the other; differentiable in both."""
        if not isinstance(X, SparseMatrix):
            return _checks.refused_summand("+", X)
        _operands.check_shapes("+", self.shape, X.shape)
        A, X = (self, X) if self.pattern is X.pattern else (self._settled(), X._settled())
        return SparseMatrix(*_arithmetic.added((A.values, A.pattern), (X.values, X.pattern)))

    def __sub__(self, X: Any) -> "SparseMatrix":
        """A - X, as A + X."""
        if not isinstance(X, SparseMatrix):
            return _checks.refused_summand("-", X)
        _operands.check_shapes("-", self.shape, X.shape)
        return self + -X

    def __radd__(self, X: Any) -> Any:
        return self if isinstance(X, int) and X == 0 else _checks.refused_summand("+", X)  # 0 is where sum() begins

    def __rsub__(self, X: Any) -> Any:
        return _checks.refused_summand("-", X)

    @overload
    def __matmul__(self, X: "SparseMatrix") -> "SparseMatrix": ...

    @overload
    def __matmul__(self, X: Any) -> Array: ...

    def __matmul__(self, X: Any) -> Any:
        """A @ X for X of shape (n,) or (n, k), for a batch (batch, n) or (batch, n, k); or for another SparseMatrix.

        The product of two sparse matrices is on the pattern of all positions that have a term, which is found once for
        two patterns, outside of ``jit`` or where these are constants. Differentiable to any order.
        """
        if isinstance(X, SparseMatrix):
            _operands.check_shapes("@", self.shape, X.shape)
            A, X = self._settled(), X._settled()
            _checks.check_known(A.pattern, X.pattern)
            return SparseMatrix(*_arithmetic.multiplied((A.values, A.pattern), (X.values, X.pattern)))
        _checks.check_indices(self.pattern)
        _checks.check_factor(self.shape, self.values, X)
        return _autodiff.product(self.values, _checks.as_array("X", X), self.pattern.entries)

    def tree_flatten(self) -> tuple[tuple[Any, Pattern], None]:
        return (self.values, self.pattern), None

    @classmethod
    def tree_unflatten(cls, aux: None, children: tuple[Any, Pattern]) -> "SparseMatrix":
        matrix = cls.__new__(cls)  # unchecked: a transformation may put anything in place of the leaves
        matrix.values, matrix.pattern = children
        return matrix

    def __repr__(self) -> str:
        if not (_checks.is_like_array(self.values) and _checks.is_like_array(self.pattern.col)):
            return f"SparseMatrix(values={self.values!r}, pattern={self.pattern!r})"
        return f"SparseMatrix(shape={self.shape}, nnz={self.nnz}, dtype={self.dtype})"


Pattern._matrix_type = SparseMatrix


def csr_of(values: Array, row: Any, col: Any, shape: tuple[int, int]) -> BCSR:
    """A ``BCSR`` from entries in any order."""
    row, col = jnp.asarray(row), jnp.asarray(col)
    order = jnp.argsort(row, stable=True)
    indptr = jnp.searchsorted(row[order], jnp.arange(shape[0] + 1, dtype=row.dtype)).astype(col.dtype)
    return BCSR((values[order], col[order], indptr), shape=shape)
