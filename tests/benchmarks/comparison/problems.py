"""The cases: a matrix, right-hand sides b and cotangents w, all drawn from a fixed seed."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp


@dataclass(frozen=True)
class Case:
    """A x = b and what is asked of it: x, and the gradients of <w, x> with respect to the stored values of A and to b.

    The columns of b and of w have norm one. Some libraries know only absolute tolerances; then these are relative, too.
    """

    name: str
    family: str
    A: sp.csr_array
    b: np.ndarray
    w: np.ndarray
    definite: bool  # symmetric positive definite
    modes: np.ndarray | None = None  # the near-null space, for multigrid on systems of equations

    @property
    def n(self) -> int:
        return self.A.shape[0]

    @property
    def columns(self) -> int:
        return 1 if self.b.ndim == 1 else self.b.shape[1]

    @property
    def complex(self) -> bool:
        return np.iscomplexobj(self.A.data)

    @property
    def rows(self) -> np.ndarray:
        """The row of each stored entry; their columns are ``A.indices``."""
        return np.repeat(np.arange(self.n, dtype=self.A.indices.dtype), np.diff(self.A.indptr))

    def save(self, path: Path) -> None:
        arrays = {"data": self.A.data, "indices": self.A.indices, "indptr": self.A.indptr}
        rest = {key: value for key, value in asdict(self).items() if key != "A" and value is not None}
        np.savez(path, **arrays, **rest)

    @classmethod
    def load(cls, path: Path) -> "Case":
        with np.load(path) as file:
            saved = dict(file)
        n = saved["indptr"].size - 1
        A = sp.csr_array(tuple(saved.pop(key) for key in ("data", "indices", "indptr")), shape=(n, n))
        return cls(A=A, **{key: value.item() if value.ndim == 0 else value for key, value in saved.items()})


def grid(m: int, dimension: int) -> sp.csr_array:
    """The 5-point or 7-point Laplacian on a grid of m points a side."""
    second = sp.diags_array([-np.ones(m - 1), 2 * np.ones(m), -np.ones(m - 1)], offsets=[-1, 0, 1])
    A = second
    for _ in range(dimension - 1):
        A = sp.kron(A, sp.eye_array(m)) + sp.kron(sp.eye_array(A.shape[0]), second)
    return sp.csr_array(A)


def convection_diffusion(m: int) -> sp.csr_array:
    """-Laplace u + v . grad u on the unit square by first-order upwind differences, times h^2; v turns around."""
    h = 1 / (m + 1)
    y, x = np.meshgrid(h * np.arange(1, m + 1), h * np.arange(1, m + 1), indexing="ij")
    upwind = []
    for speed, axis in ((100 * (2 * y - 1) * x, 1), (-100 * (2 * x - 1) * y, 0)):
        for sign in (1, -1):
            rate = h * np.maximum(sign * speed, 0).ravel()
            shift = sp.eye_array(m, k=-sign)
            neighbour = sp.kron(sp.eye_array(m), shift) if axis else sp.kron(shift, sp.eye_array(m))
            upwind.append(sp.diags_array(rate) @ (sp.eye_array(m * m) - neighbour))
    return sp.csr_array(grid(m, 2) + sum(upwind))


def helmholtz(m: int) -> sp.csr_array:
    """-Laplace u - (1 + 0.1 i) k^2 u on the unit square, times h^2, with twenty points a wavelength."""
    return sp.csr_array(grid(m, 2) - (1 + 0.1j) * (2 * np.pi / 20) ** 2 * sp.eye_array(m * m))


def anisotropic(m: int) -> sp.csr_array:
    """Diffusion a hundred times slower across a direction that the grid does not follow, by bilinear elements."""
    from pyamg import gallery

    stencil = gallery.diffusion_stencil_2d(epsilon=0.01, theta=np.pi / 6, type="FE")
    return gallery.stencil_grid(stencil, (m, m), format="csr")


def elasticity(m: int) -> tuple[Any, np.ndarray]:
    """Plane elasticity on an m x m grid of bilinear elements, and its rigid motions."""
    from pyamg import gallery

    return gallery.linear_elasticity((m, m))


def example(name: str) -> tuple[Any, np.ndarray | None]:
    """A matrix that PyAMG ships, and its near-null space where it is given."""
    from pyamg import gallery

    found = gallery.load_example(name)
    return found["A"], found.get("B")


@dataclass(frozen=True)
class Recipe:
    """How a case is made, and in which runs it is."""

    name: str
    family: str
    make: Callable[[], Any]
    definite: bool = True
    columns: int | None = None
    runs: tuple[str, ...] = ("full",)

    def case(self) -> Case:
        made = self.make()
        A, modes = made if isinstance(made, tuple) else (made, None)
        A = sp.csr_array(A)
        A.sum_duplicates()
        A.eliminate_zeros()
        rng = np.random.default_rng(0)
        shape = (A.shape[0],) if self.columns is None else (A.shape[0], self.columns)
        sides = [rng.standard_normal(shape).astype(A.dtype) for _ in range(2)]
        if np.iscomplexobj(A.data):
            sides = [side + 1j * rng.standard_normal(shape) for side in sides]
        b, w = (side / np.linalg.norm(side, axis=0) for side in sides)
        return Case(self.name, self.family, A, b, w, self.definite, modes)


def recipes(quick: bool) -> list[Recipe]:
    """The cases of the full run, or smaller ones for a quick one."""
    return [recipe for recipe in RECIPES if ("quick" if quick else "full") in recipe.runs]


POISSON2, POISSON3 = "2-D Poisson", "3-D Poisson"
CONVECTION, HELMHOLTZ, MANY, GALLERY = "convection-diffusion", "Helmholtz", "64 right-hand sides", "PyAMG gallery"

QUICK = ("quick",)

RECIPES = [
    Recipe("2-D Poisson 64^2", POISSON2, lambda: grid(64, 2), runs=("quick", "full")),
    Recipe("2-D Poisson 300^2", POISSON2, lambda: grid(300, 2)),
    Recipe("2-D Poisson 1000^2", POISSON2, lambda: grid(1000, 2)),
    Recipe("3-D Poisson 16^3", POISSON3, lambda: grid(16, 3), runs=QUICK),
    Recipe("3-D Poisson 30^3", POISSON3, lambda: grid(30, 3)),
    Recipe("3-D Poisson 60^3", POISSON3, lambda: grid(60, 3)),
    Recipe("3-D Poisson 100^3", POISSON3, lambda: grid(100, 3)),
    Recipe("convection-diffusion 64^2", CONVECTION, lambda: convection_diffusion(64), False, runs=QUICK),
    Recipe("convection-diffusion 300^2", CONVECTION, lambda: convection_diffusion(300), False),
    Recipe("complex Helmholtz 40^2", HELMHOLTZ, lambda: helmholtz(40), False, runs=QUICK),
    Recipe("complex Helmholtz 150^2", HELMHOLTZ, lambda: helmholtz(150), False),
    Recipe("64 right-hand sides, 2-D Poisson 30^2", MANY, lambda: grid(30, 2), columns=64, runs=QUICK),
    Recipe("64 right-hand sides, 2-D Poisson 100^2", MANY, lambda: grid(100, 2), columns=64),
    Recipe("elastic bar", GALLERY, lambda: example("bar")),
    Recipe("discontinuous Galerkin diffusion", GALLERY, lambda: example("local_disc_galerkin_diffusion")),
    Recipe("plane elasticity 100^2", GALLERY, lambda: elasticity(100)),
    Recipe("rotated anisotropic diffusion 300^2", GALLERY, lambda: anisotropic(300)),
]
"""Within a family from small to large: who exceeds the limit at one size is not tried at the next."""
