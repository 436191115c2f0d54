"""A catalogue of systems with declared properties, which decide what method meets what."""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import scipy.sparse as sp

from tsgu._core.methods import _registry


@dataclass(frozen=True)
class System:
    """A matrix given by coordinates, as a user would: perhaps unsorted, with duplicates or explicit zeros.

    Square, (n, n), unless ``m`` says how many rows it has.
    """

    name: str
    row: np.ndarray
    col: np.ndarray
    values: np.ndarray
    n: int
    hermitian: bool = False
    definite: bool = False
    encircles: bool = False
    layouts: tuple[str, ...] = field(default=("coo", "csr", "csr32", "values"))
    m: int | None = None

    @property
    def shape(self) -> tuple[int, int]:
        return (self.n if self.m is None else self.m, self.n)

    @property
    def complex(self) -> bool:
        return np.iscomplexobj(self.values)

    @cached_property
    def dense(self) -> np.ndarray:
        dense = np.zeros(self.shape, self.values.dtype)
        np.add.at(dense, (self.row, self.col), self.values)
        return dense

    @cached_property
    def stored(self) -> np.ndarray:
        """Where an entry is stored, zero or not."""
        stored = np.zeros(self.shape, bool)
        stored[self.row, self.col] = True
        return stored

    @cached_property
    def condition(self) -> float:
        return float(np.linalg.cond(self.dense)) if self.n else 1.0

    def __repr__(self) -> str:
        return self.name


def _system(name, dense, stored=None, **properties):
    row, col = np.nonzero(dense if stored is None else stored)
    return System(name, row, col, dense[row, col], dense.shape[0], **properties)


def _poisson(m):
    second = sp.diags_array([-np.ones(m - 1), 2 * np.ones(m), -np.ones(m - 1)], offsets=[-1, 0, 1])
    eye = sp.eye_array(m)
    return (sp.kron(eye, second) + sp.kron(second, eye)).toarray()


def _sparse_random(n, rng, density=0.15):
    return rng.standard_normal((n, n)) * (rng.random((n, n)) < density)


def _catalogue():
    rng = np.random.default_rng(7)
    n = 24
    poisson = _poisson(5)
    noise = _sparse_random(n, rng)
    general = noise + np.diag(3 + rng.random(n))
    imaginary = _sparse_random(n, rng)
    hermitian = (noise + noise.T) / 2 + 1j * (imaginary - imaginary.T) / 2
    convection = poisson + 0.9 * (np.eye(25, k=1) - np.eye(25, k=-1)) * (poisson != 0)
    signs = np.where(np.arange(n) % 3 == 0, -1.0, 1.0)
    scales = np.logspace(-0.7, 0.7, 25)
    yield _system("poisson", poisson, hermitian=True, definite=True)
    yield _system("badly scaled", scales[:, None] * poisson * scales, hermitian=True, definite=True)
    yield _system("indefinite", (noise + noise.T) / 2 + 6 * np.diag(signs), hermitian=True)
    yield _system("hermitian definite", hermitian + 8 * np.eye(n), hermitian=True, definite=True)
    yield _system("hermitian indefinite", hermitian + 8 * np.diag(signs), hermitian=True)
    yield _system("convection", convection)
    yield _system("general", general)
    yield _system("complex general", general + 1j * imaginary)
    yield _system("complex symmetric", (poisson - (1.5 - 0.7j) * np.eye(25)))
    yield _system("zero diagonal", np.roll(general, 1, axis=0), encircles=True)
    explicit = general.copy()
    explicit[general == 0] = 0
    yield _system("explicit zeros", explicit, (general != 0) | (rng.random((n, n)) < 0.1))
    row, col = np.nonzero(general)
    shuffled = rng.permutation(row.size)
    yield System("unsorted", row[shuffled], col[shuffled], general[row, col][shuffled], n, layouts=("coo", "values"))
    part = rng.random(row.size)
    values = general[row, col]
    twice = np.concatenate([values * part, values * (1 - part)])
    again = rng.permutation(2 * row.size)
    yield System(
        "duplicates", np.tile(row, 2)[again], np.tile(col, 2)[again], twice[again], n, layouts=("coo", "values")
    )
    yield _system("one unknown", np.array([[3.0]]), hermitian=True, definite=True)
    yield _system("no unknowns", np.zeros((0, 0)), hermitian=True, definite=True)


SYSTEMS = tuple(_catalogue())
BY_NAME = {system.name: system for system in SYSTEMS}

METHODS = tuple(method.name for method in _registry.square())
ITERATIVE = tuple(method.name for method in _registry.krylov())


def unsuited(method: str, system: System) -> str | None:
    """Why a method is not meant for a system; None where it is."""
    traits = _registry.method(method)
    if traits.definite and not (system.hermitian and system.definite):
        return f"{method} needs a Hermitian positive definite matrix"
    if traits.hermitian and not system.hermitian:
        return f"{method} needs a Hermitian matrix"
    if not traits.surrounded and system.encircles:
        return f"eigenvalues all around the origin leave {method} no polynomial that is small on them"
    return None


PAIRS = [(method, system) for method in METHODS for system in SYSTEMS if unsuited(method, system) is None]


def right_hand_side(system: System, columns: int | None, seed: int = 3) -> np.ndarray:
    """A random right-hand side, (m,) or (m, columns), of the system's field."""
    rng = np.random.default_rng(seed)
    shape = (system.shape[0],) if columns is None else (system.shape[0], columns)
    b = rng.standard_normal(shape)
    return b + 1j * rng.standard_normal(shape) if system.complex else b
