"""The built-in problem: stationary heat conduction in a plate."""

from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

SIDE = 100


def heat_conduction(m: int = SIDE) -> tuple[sp.csr_array, npt.NDArray[np.float64]]:
    """-div(k grad u) = f in the unit square, u = 0 on its boundary, by finite volumes on m x m cells.

    With the difference operators Dx and Dy from cells to the faces between them, A = Dx^T k Dx + Dy^T k Dy: five points
    per row, symmetric positive definite. The conductivity k varies by a factor of ten; f heats a disc.

    Returns
    -------
    A : csr_array, shape (m^2, m^2)
    b : ndarray, shape (m^2,)
    """

    def conductivity(x: Any, y: Any) -> Any:
        return 10 ** (0.5 * np.sin(2 * np.pi * x) * np.cos(3 * np.pi * y)).ravel()

    centre, face = (np.arange(m) + 1) / (m + 1), (np.arange(m + 1) + 0.5) / (m + 1)
    difference = sp.diags_array([np.ones(m), -np.ones(m)], offsets=[0, -1], shape=(m + 1, m))
    Dx, Dy = sp.kron(difference, sp.eye_array(m)), sp.kron(sp.eye_array(m), difference)
    kx, ky = conductivity(face[:, None], centre[None, :]), conductivity(centre[:, None], face[None, :])
    A = sp.csr_array(Dx.T @ sp.diags_array(kx) @ Dx + Dy.T @ sp.diags_array(ky) @ Dy)
    f = (centre[:, None] - 0.3) ** 2 + (centre[None, :] - 0.6) ** 2 < 0.15**2
    return A, f.ravel() / (m + 1) ** 2
