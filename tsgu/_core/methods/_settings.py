"""The ``settings=`` objects, for code written in their names, mapped to ``rtol, atol, maxiter, M``."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class LinearCGSettings:
    """Settings of :func:`linear_cg`.

    Parameters
    ----------
    max_cg_iterations : int, optional
        The same as ``maxiter``.
    cg_tolerance : float, optional
        The same as ``rtol``.

    Examples
    --------
    >>> from tsgu.utils.linear_cg import LinearCGSettings
    >>> LinearCGSettings(max_cg_iterations=1000, cg_tolerance=1e-8).arguments()
    {'maxiter': 1000, 'rtol': 1e-08}
    """

    max_cg_iterations: int | None = None
    cg_tolerance: float | None = None

    def arguments(self) -> dict[str, Any]:
        """The arguments of the method that these settings stand for."""
        return _given(maxiter=self.max_cg_iterations, rtol=self.cg_tolerance)


@dataclass(frozen=True)
class MINRESSettings:
    """Settings of :func:`minres`.

    Parameters
    ----------
    max_cg_iterations : int, optional
        The same as ``maxiter``.
    minres_tolerance : float, optional
        The same as ``rtol``.

    Examples
    --------
    >>> from tsgu.utils.minres import MINRESSettings
    >>> MINRESSettings(minres_tolerance=1e-6).arguments()
    {'rtol': 1e-06}
    """

    max_cg_iterations: int | None = None
    minres_tolerance: float | None = None

    def arguments(self) -> dict[str, Any]:
        """The arguments of the method that these settings stand for."""
        return _given(maxiter=self.max_cg_iterations, rtol=self.minres_tolerance)


@dataclass(frozen=True)
class BICGSTABSettings:
    """Settings of :func:`bicgstab`.

    Parameters
    ----------
    matvec_max : int, optional
        Largest number of products with A; a step takes two, so ``maxiter`` is half of it.
    abstol, reltol : float, optional
        The same as ``atol`` and ``rtol``: ``abstol`` is for the forward solve alone.
    precon : callable or matrix, optional
        The same as ``M``.

    Examples
    --------
    >>> from tsgu.utils.bicgstab import BICGSTABSettings
    >>> BICGSTABSettings(matvec_max=200, reltol=1e-6).arguments()
    {'maxiter': 100, 'rtol': 1e-06}
    """

    matvec_max: int | None = None
    abstol: float | None = None
    reltol: float | None = None
    precon: Callable[..., Any] | Any | None = None

    def arguments(self) -> dict[str, Any]:
        """The arguments of the method that these settings stand for."""
        steps = None if self.matvec_max is None else self.matvec_max // 2
        return _given(maxiter=steps, atol=self.abstol, rtol=self.reltol, M=self.precon)


def _given(**arguments: Any) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if value is not None}
