"""Where the entries of a matrix stand, and patterns found again by the index arrays that they were built from."""

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from functools import cached_property
from threading import Lock
from typing import TYPE_CHECKING, Any, ClassVar

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.experimental.sparse import BCOO, BCSR
from jax.tree_util import register_pytree_node_class

from tsgu._core.pattern import _indices, _symbolic
from tsgu._core.pattern._symbolic import Symbolic
from tsgu_jax._matrix import _checks
from tsgu_jax._matrix._layout import layout_of, renumbered
from tsgu_jax._matrix._products import Entries
from tsgu_jax._program import _internals, _mesh

if TYPE_CHECKING:
    from tsgu_jax._matrix._sparse_matrix import SparseMatrix


@register_pytree_node_class
class Pattern:
    """Which entries of a matrix are stored: row-major, each position once.

    Built once, it serves any number of matrices with these positions: a training loop pays for sorting, the transpose
    and the layout of the products only in its first step.

    Indices that are traced, as inside ``jax.jit`` where they are arguments, cannot be sorted into a layout: such a
    pattern keeps the entries in the given order, and its products are segment sums, with the same results. A pattern
    that is itself an argument of a compiled function takes its layout along.

    Parameters
    ----------
    row, col : Array, ndarray or list of int, shape (nse,), any integer dtype
        Positions in any order; a repeated position is stored once.
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

    >>> import jax.numpy as jnp, numpy as np, tsgu_jax
    >>> pattern = tsgu_jax.Pattern(np.array([1, 0, 0]), np.array([1, 0, 0]), (2, 2))
    >>> pattern
    Pattern(shape=(2, 2), nnz=2, built from 3 entries in another order)
    >>> pattern.matrix(jnp.array([5.0, 1.0, 2.0])).to_dense()
    Array([[3., 0.],
           [0., 5.]], dtype=float32)

    Finite elements: each contributes a small matrix, and what several contribute to one place is added. Here three
    bars in a row, of the conductance c, each with a matrix of 2 by 2. The pattern is built once, outside of ``jit``.

    >>> import jax
    >>> nodes = np.array([[0, 1], [1, 2], [2, 3]])
    >>> row, col = np.repeat(nodes, 2, axis=1), np.tile(nodes, 2)
    >>> pattern = tsgu_jax.Pattern(row.ravel(), col.ravel(), (4, 4))
    >>> bar, b = jnp.array([2.0, -1.0, -1.0, 2.0]), jnp.ones(4)
    >>> @jax.jit
    ... @jax.value_and_grad
    ... def loss_and_gradient(c):
    ...     entries = c[:, None] * bar
    ...     A = pattern.matrix(entries.ravel())
    ...     x = tsgu_jax.solve(A, b, solve=tsgu_jax.linear_cg)
    ...     return jnp.sum((x - 0.5) ** 2)
    >>> c = jnp.ones(3)
    >>> for step in range(30):
    ...     loss, gradient = loss_and_gradient(c)
    ...     c = c - gradient
    >>> pattern.nnz, bool(loss < 0.01)
    (10, True)
    """

    _matrix_type: ClassVar[Any]
    """SparseMatrix, which is built on patterns, and enters itself here."""

    def __init__(self, row: Any, col: Any, shape: tuple[int, int]) -> None:
        row, col, shape = _checks.indices("row", row), _checks.indices("col", col), _indices.as_shape(shape)
        _indices.check_lengths(row, col)
        if _internals.is_traced(row, col):
            self._init(None, Entries(row, col, None, None, None, shape))
        else:
            self._init(_symbolic.from_coo(np.asarray(row), np.asarray(col), shape), None)

    @classmethod
    def _of(cls, symbolic: Symbolic, counted: Any = None, nse: int | None = None) -> "Pattern":
        pattern = cls.__new__(cls)
        pattern._init(symbolic, None, counted, nse)
        return pattern

    def _init(self, symbolic: Symbolic | None, entries: Any, counted: Any = None, nse: int | None = None) -> None:
        if symbolic is not None:
            self.__dict__["symbolic"] = symbolic
        if entries is not None:
            self.__dict__["entries"] = entries
        self._counted = counted  # which of the given entries count, where some are padding
        # How many were given.
        self._nse = nse if nse is not None else self.nnz if symbolic is None else symbolic.nse

    @cached_property
    def symbolic(self) -> Symbolic:
        """The indices on the host. A pattern that has been through a compiled function finds them again."""
        if _internals.is_traced(self.entries.row, self.entries.col):
            raise TypeError("the pattern must be concrete here; got traced indices.")
        if self.entries.transposition is None:  # the values are in another order than these indices would be
            raise TypeError("the pattern must be settled here; got entries in no particular order.")
        return _symbolic.from_coo(np.asarray(self.entries.row), np.asarray(self.entries.col), self.entries.shape)

    @cached_property
    def _settled(self) -> "Pattern":
        """The pattern in canonical order, to which its ``gather`` brings values of this one.

        Another one only where the indices were traced when the pattern was made, and no longer are.
        """
        if "symbolic" in self.__dict__ or self.entries.transposition is not None or _internals.is_traced(self.entries):
            return self
        return _without_padding(np.asarray(self.entries.row), np.asarray(self.entries.col), self.shape)

    @cached_property
    def entries(self) -> Entries:
        """The indices on the device, with the layouts of A and of A^T."""
        s = self.symbolic
        other = s.transpose
        indices = Entries(
            s.row,
            s.col,
            s.transposition,
            layout_of(s.indptr, s.col, np.arange(s.nnz, dtype=s.col.dtype), s.shape[1]),
            layout_of(other.indptr, other.col, s.transposition, s.shape[0]),
            s.shape,
        )
        lifted: Entries = _mesh.lifted(indices)
        return lifted

    @property
    def shape(self) -> tuple[int, int]:
        """(m, n)."""
        return self.__dict__["symbolic"].shape if "symbolic" in self.__dict__ else self.entries.shape

    @property
    def nnz(self) -> int:
        """Number of stored entries."""
        return self.__dict__["symbolic"].nnz if "symbolic" in self.__dict__ else self.entries.col.shape[0]

    @property
    def row(self) -> Any:
        """Row of each stored entry, shape (nnz,)."""
        return self.__dict__["symbolic"].row if "symbolic" in self.__dict__ else self.entries.row

    @property
    def col(self) -> Any:
        """Column of each stored entry, shape (nnz,)."""
        return self.__dict__["symbolic"].col if "symbolic" in self.__dict__ else self.entries.col

    @cached_property
    def T(self) -> "Pattern":  # noqa: N802 - the name that NumPy and JAX use
        """The pattern of the transpose."""
        if "symbolic" in self.__dict__ or not (
            self.entries.transposition is None or _internals.is_traced(self.entries)
        ):
            pattern = Pattern._of(self.symbolic.transpose)
        else:
            pattern = Pattern.__new__(Pattern)
            pattern._init(None, _transposed(self.entries))
        pattern.__dict__["T"] = self
        return pattern

    @property
    def transposition(self) -> Any:
        """Permutation such that ``values[..., transposition]`` are the values of the transpose, shape (nnz,).

        None for indices in no particular order, as traced ones are, where the transpose keeps the order of the values.
        """
        return self.symbolic.transposition if "symbolic" in self.__dict__ else self.entries.transposition

    @property
    def is_symmetric(self) -> bool:
        """Whether (j, i) is stored wherever (i, j) is."""
        return self._settled.symbolic.is_symmetric

    def gather(self, given: Array) -> Array:
        """Values in the order that the pattern was built from, (..., nse), brought to its own, (..., nnz).

        Values at a repeated position are added. Differentiable to any order, in both modes.

        Raises
        ------
        ValueError
            If ``given`` is not an array with one entry per position that the pattern was built from.
        """
        _checks.check_given(given, self._nse, any_batch=True)
        counted, merge, order = self._given
        if counted is merge is order is None:
            return given
        given = _checks.as_array("given", given)
        if counted is not None:
            given = given[..., counted]
        if merge is not None:
            return jnp.zeros((*given.shape[:-1], self.nnz), given.dtype).at[..., merge].add(given)
        return given if order is None else given[..., order]

    def matrix(self, given: Any) -> "SparseMatrix":
        """The matrix with values in the order that the pattern was built from.

        The same as ``SparseMatrix(pattern.gather(given), pattern)``. Values that stand in the pattern's own order
        already, as :attr:`SparseMatrix.values` do, are for ``SparseMatrix(values, pattern)``.

        Parameters
        ----------
        given : Array, shape (nse,) or (batch, nse)
            One value per position that the pattern was built from; those at a repeated position are added.
            Differentiable to any order, in both modes.

        Returns
        -------
        SparseMatrix

        Raises
        ------
        ValueError
            If ``given`` is not an array of that shape.
        TypeError
            If ``given`` is a NumPy array in double precision while JAX has 64-bit types turned off.

        Examples
        --------
        >>> import jax.numpy as jnp, numpy as np, tsgu_jax
        >>> row, col = np.array([1, 0, 1]), np.array([0, 1, 0])
        >>> tsgu_jax.Pattern(row, col, (2, 2)).matrix(jnp.array([10.0, 1.0, 20.0])).to_dense()
        Array([[ 0.,  1.],
               [30.,  0.]], dtype=float32)
        """
        _checks.check_given(given, self._nse, any_batch=False)
        matrix: SparseMatrix = self._matrix_type(self.gather(given), self)
        return matrix

    @cached_property
    def _given(self) -> tuple[Any, Any, Any]:
        """Which of the given entries count, where each is added, and their order; None where nothing is to be done."""
        symbolic = self.__dict__.get("symbolic")
        if symbolic is None:
            return None, None, None
        lifted: tuple[Any, Any, Any] = _mesh.lifted((self._counted, symbolic.merge, symbolic.order))
        return lifted

    def tree_flatten(self) -> tuple[tuple[Any, Any], int]:
        return (self.entries, self._given), self._nse

    @classmethod
    def tree_unflatten(cls, aux: int, children: tuple[Any, Any]) -> "Pattern":
        pattern = cls.__new__(cls)
        pattern._init(None, children[0], nse=aux)
        pattern.__dict__["_given"] = children[1]
        return pattern

    def __repr__(self) -> str:
        known = f", nnz={self.nnz}" if _checks.is_like_array(self.col) else ""
        told = self.__dict__["symbolic"].told if "symbolic" in self.__dict__ else ""
        return f"Pattern(shape={self.shape}{known}{told and ', ' + told})"


def _transposed(entries: Entries) -> Entries:
    """The entries of the transpose, for traced indices."""
    order, shape = entries.transposition, (entries.shape[1], entries.shape[0])
    if order is None:
        return Entries(entries.col, entries.row, None, entries.columns, entries.rows, shape)
    size = order.shape[0]
    back = jnp.zeros(size + 1, order.dtype).at[order].set(jnp.arange(size, dtype=order.dtype)).at[size].set(size)

    columns = entries.columns and renumbered(entries.columns, back)
    rows = entries.rows and renumbered(entries.rows, back)
    return Entries(entries.col[order], entries.row[order], back[:size], columns, rows, shape)


def pattern_of(A: BCOO | BCSR) -> Pattern:
    """The pattern of a ``BCOO`` or ``BCSR``, found again where its index arrays have been seen before.

    That of a batch of square ones has the members as diagonal blocks.
    """
    shape = (A.shape[0], A.shape[1]) if A.ndim == 2 else (A.shape[0] * A.shape[1],) * 2
    sources = (A.indices,) if isinstance(A, BCOO) else (A.indices, A.indptr)

    def build() -> Pattern:
        row, col = positions(A)
        if _internals.is_traced(row, col):
            return Pattern(row, col, shape)
        return _without_padding(np.asarray(row), np.asarray(col), shape)

    return cached(sources, tuple(A.shape), build)


def _without_padding(row: Any, col: Any, shape: tuple[int, int]) -> Pattern:
    counted, symbolic = _symbolic.from_padded_coo(row, col, shape)
    return Pattern._of(symbolic, counted, row.size)


def data_of(A: BCOO | BCSR) -> Array:
    """The entries as a vector in the order of :func:`positions`."""
    members = () if A.n_batch == 0 else A.shape[:1]
    return jnp.broadcast_to(A.data, (*members, A.nse)).reshape(-1)


def positions(A: BCOO | BCSR) -> tuple[Any, Any]:
    """Row and column of each entry of a ``BCOO`` or ``BCSR``; past the end for padding."""
    return _positions(A) if A.ndim == 2 else _positions_in_batch(A)


def _positions(A: BCOO | BCSR) -> tuple[Any, Any]:
    if isinstance(A, BCOO):
        indices = A.indices if _internals.is_traced(A.indices) else np.asarray(A.indices)
        return indices[:, 0], indices[:, 1]
    numeric: Any = jnp if _internals.is_traced(A.indices, A.indptr) else np
    indptr = A.indptr if numeric is jnp else np.asarray(A.indptr)
    return numeric.searchsorted(indptr[1:], numeric.arange(A.nse), side="right"), A.indices


def _positions_in_batch(A: BCOO | BCSR) -> tuple[Any, Any]:
    """The same with the members of a batch as diagonal blocks."""
    members, size, _ = A.shape
    traced = _internals.is_traced(A.indices, *([A.indptr] if isinstance(A, BCSR) else []))
    numeric: Any = jnp if traced else np
    indices = A.indices if traced else np.asarray(A.indices)
    indices = indices.astype(np.promote_types(indices.dtype, np.int32) if traced else np.int64)  # rows of all members
    member = numeric.arange(members, dtype=indices.dtype)[:, None]
    if isinstance(A, BCSR):
        indptr = A.indptr if traced else np.asarray(A.indptr)
        entries = numeric.arange(A.nse, dtype=indices.dtype)
        row = numeric.stack([numeric.searchsorted(pointers[1:], entries, side="right") for pointers in indptr])
        row, col, member = numeric.broadcast_arrays(row, indices, member)
    elif A.n_batch:
        row, col, member = numeric.broadcast_arrays(indices[..., 0], indices[..., 1], member)
    else:
        member, row, col = indices.T
    counts = (member < members) & (row < size) & (col < size)
    place = (numeric.where(counts, member * size + i, members * size).reshape(-1) for i in (row, col))
    return next(place), next(place)


class _Cache:
    """Patterns by the identity of the arrays that they were built from, which are kept alive meanwhile."""

    def __init__(self, size: int) -> None:
        self._size, self._lock = size, Lock()
        self._patterns: OrderedDict[Hashable, tuple[Any, Any, Pattern]] = OrderedDict()

    def find(self, sources: tuple[Any, ...], shape: tuple[int, ...], build: Any) -> Pattern:
        key = (*map(id, sources), shape)
        with self._lock:
            known = self._patterns.get(key)
            if known is not None:
                self._patterns.move_to_end(key)
        # A NumPy array may have been written to since.
        if known is not None and all(np.array_equal(a, b) for a, b in zip(_writable(sources), known[1], strict=True)):
            return known[2]
        pattern: Pattern = build()
        with self._lock:
            self._patterns[key] = sources, [array.copy() for array in _writable(sources)], pattern
            while len(self._patterns) > self._size:
                self._patterns.popitem(last=False)
        return pattern


def _writable(sources: tuple[Any, ...]) -> Iterator[np.ndarray[Any, Any]]:
    return (source for source in sources if isinstance(source, np.ndarray))


_patterns = _Cache(32)


def cached(sources: tuple[Any, ...], shape: tuple[int, ...], build: Any) -> Pattern:
    if _internals.is_traced(*sources):
        pattern: Pattern = build()
        return pattern
    return _patterns.find(sources, shape, build)
