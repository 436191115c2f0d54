"""The V-cycle of multigrid as a dense matrix, by its definition, on levels that are given."""

from dataclasses import replace

import numpy as np
import scipy.sparse as sp

from tests.contract.systems import System
from tsgu._core.factors import _amg, _galerkin
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


def with_values(levels: _amg.Hierarchy, A: np.ndarray, degree: int) -> _amg.Hierarchy:
    """The levels of another matrix with the same transfers, by dense products.

    The eigenvalue of a level is that which the package takes: whether it is one, is for a test to say.
    """
    transfers = [(level.P, level.R) for level in levels.levels]
    sizes, spectra = [level.A.nnz for level in levels.levels[1:]], [level.spectrum for level in levels.levels]
    found = _galerkin.anew(sp.csr_array(A), transfers, sizes, spectra, degree, levels.hermitian)
    new = []
    for level, scale in zip(levels.levels, found.scales, strict=True):
        largest = (4 / 3 / (scale * np.diag(A))[:1]).real
        new.append(replace(level, A=sp.csr_array(A), scale=4 / (3 * largest * np.diag(A))))
        A = level.R.toarray() @ A @ level.P.toarray()
    return replace(levels, levels=tuple(new), coarse=np.linalg.inv(A))
