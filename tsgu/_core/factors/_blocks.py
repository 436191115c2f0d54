"""The diagonal blocks of a matrix: how many there are, and whether one is singular."""

from typing import Any

import numpy as np
import numpy.typing as npt

from tsgu._core.report import _matrix_words

Array = npt.NDArray[Any]


def check_size(block: Any) -> int:
    if isinstance(block, bool) or not isinstance(block, int | np.integer) or block < 1:
        raise ValueError(f"block must be an integer >= 1; got {block!r}.")
    return int(block)


def count(n: int, block: int) -> int:
    """Number of blocks; the last one is smaller where ``block`` does not divide n."""
    return -(-n // block)


def check_inverses(blocks: Array, inverses: Array, n: int) -> None:
    """Refuse a singular block, given the blocks and what an LU factorisation took for their inverses.

    A block is singular if the spectral radius of |B^-1| |B| leaves no digit: the condition number of the best scaling
    of equations and unknowns (Higham, *Accuracy and Stability of Numerical Algorithms*, 2nd ed., section 7.3), so that
    a block which is merely badly scaled passes.
    """
    eps = np.finfo(blocks.dtype).eps
    with np.errstate(over="ignore", invalid="ignore"):
        products = abs(inverses) @ abs(blocks)
        suspect = np.flatnonzero(~(products.sum(axis=-1).max(axis=-1, initial=0) * eps < 1))  # above the radius
    singular = [
        index
        for index in suspect.tolist()
        if not np.isfinite(products[index]).all() or abs(np.linalg.eigvals(products[index])).max() * eps >= 1
    ]
    if singular:
        first, block = singular[0], blocks.shape[-1]
        rows = first * block, min((first + 1) * block, n)
        raise ValueError(_matrix_words.singular_block(first, rows, len(singular)))
