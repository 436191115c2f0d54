"""The V-cycle of multigrid as a dense matrix, by its definition, on levels that are given."""

import numpy as np
import scipy.sparse as sp

from tests.contract.systems import System
from tsgu._core.factors import _amg
from tsgu._core.pattern import _symbolic


def levels_of(system: System, kind: str, max_coarse: int) -> _amg.Hierarchy:
    """The levels, which the package finds: what a cycle makes of them is what the tests are about."""
    A = sp.csr_array(system.dense)
    symbolic = _symbolic.from_csr(A.indptr, A.indices, A.shape)
    return _amg.build(A.data, symbolic, kind, 1, {"max_coarse": max_coarse})


def eigenvalue(level: _amg.Level) -> float:
    """The bound of the eigenvalues of D^-1 A that the scale of a level stands for."""
    return 4 / 3 / (level.scale * level.A.diagonal())[0].real


def smoother(A: np.ndarray, degree: int, largest: float) -> np.ndarray:
    """Q with I - Q A = W_degree(1 - 2 D^-1 A / lambda) / (2 degree + 1).

    W_k(cos t) = sin((k + 1/2) t) / sin(t / 2) is the Chebyshev polynomial of the fourth kind.
    """
    eigenvalues, vectors = np.linalg.eig(A / np.diag(A)[:, None])
    angle = np.arccos((1 - 2 * eigenvalues / largest).astype(complex))
    values = np.sin((degree + 0.5) * angle) / np.sin(angle / 2) / (2 * degree + 1)
    Q = (np.eye(len(A)) - (vectors * values) @ np.linalg.inv(vectors)) @ np.linalg.inv(A)
    return Q if np.iscomplexobj(A) else Q.real


def cycle(levels: _amg.Hierarchy, degree: int, depth: int = 0) -> np.ndarray:
    """M with I - M A = (I - Q A) (I - P M' R A) (I - Q A), M' the same on the next level, the inverse on the last."""
    if depth == len(levels.levels):
        return levels.coarse
    level = levels.levels[depth]
    A, P, R = (m.toarray() for m in (level.A, level.P, level.R))
    eye, Q = np.eye(len(A)), smoother(A, degree, eigenvalue(level))
    return (eye - (eye - Q @ A) @ (eye - P @ cycle(levels, degree, depth + 1) @ R @ A) @ (eye - Q @ A)) @ np.linalg.inv(
        A
    )
