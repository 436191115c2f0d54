"""What an adapter of a library offers.

An adapter offers what its library has, as ``method(system) -> solver(A, b)``. What it does not override, the library
must not have: that is looked up among its public names. ``tight`` asks for a relative residual of 1e-12, so that what
may be wrong is the rule and not the tolerance; without it the defaults of the library hold.
"""

import importlib
import re
from importlib.metadata import version

from tests.benchmarks.feature_table.systems import System

TIGHT = 1e-12


class NoAPIError(Exception):
    """The library has no such notion."""


class Library:
    name: str
    distribution: str
    framework: object
    modules: tuple[str, ...]  # where its documentation says that its public names are
    iterative = True
    called: str  # how, for the page

    def __str__(self) -> str:
        return f"{self.name} {version(self.distribution)}"

    def has(self, words: str) -> None:
        """Nothing of that name in the library: said so. Otherwise the adapter is incomplete, which is an error."""
        found = [
            f"{module}.{name}"
            for module in self.modules
            for name in dir(importlib.import_module(module))
            if re.search(words, name, re.IGNORECASE)
        ]
        assert not found, f"{self.name} has {found}, which its adapter does not use"
        raise NoAPIError

    def default(self, system: System):
        """The shortest call that solves a symmetric positive definite system."""
        raise NotImplementedError

    def general(self, system: System):
        """For a small nonsymmetric system, what its documentation recommends; tight."""
        return self.direct(system)

    def adjoint_by_default(self, system: System):
        """The same, where nothing is said of the adjoint."""
        return self.general(system)

    def bicgstab(self, system: System, maxiter=None, tight=False, preconditioned=False):
        return self.has("bicgstab")

    def cg(self, system: System, maxiter=None):
        return self.has("^(linear_)?cg$")

    def direct(self, system: System):
        return self.has("direct|^lu$|splu|spsolve|factor")

    def multigrid(self, system: System, maxiter):
        return self.has("amg|multigrid")

    def least_squares(self, system: System):
        return self.has("lstsq|lsmr|lsqr|least")

    def triangular(self, system: System):
        return self.has("triang")

    def batch(self, system: System):
        """For several matrices on one pattern in one call."""
        return self.general(system)

    factoring: str | None = None  # what factors in a compiled program is called like this
