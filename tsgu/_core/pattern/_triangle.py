"""A triangular pattern: checked, and with its diagonal found. Indices, no values.

A batch of triangles is one block-diagonal pattern, which is a triangle again; messages name the member.
"""

from functools import cached_property

import numpy as np

from tsgu._core.pattern._symbolic import Indices, Symbolic, index_dtype
from tsgu._core.report import _matrix_words


class Triangle:
    """Which entries of a triangle are stored, and where its diagonal is among them.

    Parameters
    ----------
    symbolic : Symbolic
        Square pattern.
    upper : bool
        Whether entries stand on and above the diagonal, or on and below.
    unit : bool
        Whether the diagonal stands for ones. It is not stored, or all of it: then ``ones`` is true of the triangle, and
        ``unit``, which says that the diagonal is not among the values, is not.
    members : int
        Equal diagonal blocks, the members of a batch.

    Raises
    ------
    ValueError
        If an entry is stored on the wrong side; if a diagonal entry is missing, or if part of a diagonal is stored that
        stands for ones.
    """

    def __init__(self, symbolic: Symbolic, upper: bool, unit: bool, members: int = 1) -> None:
        self.symbolic, self.upper = symbolic, upper
        stored = np.count_nonzero(symbolic.row == symbolic.col) if unit else 0
        self.ones = bool(0 < stored == symbolic.shape[0])
        self.unit = unit and not self.ones
        self.size = symbolic.shape[0] // max(members, 1)
        if not self._is_plainly_right():
            self._refuse()

    def _is_plainly_right(self) -> bool:
        """Whether the outermost entry of each row is where it should be: the rest of the row is sorted."""
        s = self.symbolic
        if not self.unit:
            if s.nnz == 0 or np.any(s.indptr[1:] == s.indptr[:-1]):
                return s.shape[0] == 0
            return np.array_equal(s.col[self.diagonal], np.arange(s.shape[0]))
        rows = np.flatnonzero(s.indptr[1:] > s.indptr[:-1])
        outermost = s.col[s.indptr[rows] if self.upper else s.indptr[rows + 1] - 1]
        return bool(np.all(outermost > rows if self.upper else outermost < rows))

    def _refuse(self) -> None:
        s, n = self.symbolic, self.symbolic.shape[0]
        wrong = np.flatnonzero(s.col < s.row if self.upper else s.col > s.row)
        if wrong.size:
            row, col = int(s.row[wrong[0]]), int(s.col[wrong[0]])
            place = self.place(row)
            message = _matrix_words.wrong_side(
                self.upper, wrong.size, s.nnz, place[0], col % self.size if self.size else col, place[1]
            )
            raise ValueError(message)
        stored = np.zeros(n, dtype=bool)
        stored[s.row[s.row == s.col]] = True
        if self.unit:
            rows = np.flatnonzero(stored)
            raise ValueError(_matrix_words.unit_diagonal(rows.size, n, *self.place(int(rows[0]))))
        rows = np.flatnonzero(~stored)
        raise ValueError(_matrix_words.no_diagonal(rows.size, n, *self.place(int(rows[0]))))

    def place(self, row: int) -> tuple[int, str]:
        """Row of a member, and which member in words; no words where there is one alone."""
        if self.size == self.symbolic.shape[0]:
            return row, ""
        return row % self.size, f" of member {row // self.size}"

    @property
    def diagonal(self) -> Indices:
        """Where the diagonal entry of each row is stored, shape (n,); not for a diagonal of ones."""
        return self.symbolic.indptr[:-1] if self.upper else self.symbolic.indptr[1:] - 1

    @property
    def start(self) -> Indices:
        """Where the entries off the diagonal begin in each row, shape (n,)."""
        return self.symbolic.indptr[:-1] + (self.upper and not self.unit)

    @property
    def stop(self) -> Indices:
        """Where they end, shape (n,)."""
        return self.symbolic.indptr[1:] - (not self.upper and not self.unit)

    @cached_property
    def whole(self) -> tuple[Indices, Indices, Indices | None]:
        """Row pointers and columns with the diagonal stored, and where the given values stand among those; None where
        it is stored already."""
        s, n = self.symbolic, self.symbolic.shape[0]
        if not self.unit:
            return s.indptr, s.col, None
        dtype = index_dtype(s.nnz + n, s.shape)
        rows = np.arange(n, dtype=dtype)
        indptr = s.indptr + np.arange(n + 1, dtype=dtype)
        place = np.arange(s.nnz, dtype=dtype) + s.row + self.upper
        col = np.empty(s.nnz + n, dtype)
        col[place] = s.col
        col[indptr[:-1] if self.upper else indptr[1:] - 1] = rows
        return indptr, col, place
