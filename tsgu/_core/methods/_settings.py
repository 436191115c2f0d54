"""The ``settings=`` objects, for code written in their names, mapped to ``rtol, atol, maxiter, M``.

Their fields are those of torchsparsegradutils, in its order. A field that is left at None stands for the default of the
method.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from tsgu._core.methods._options import AtMostN

_LANCZOS = "max_lanczos_quadrature_iterations is for log determinants, which nothing here computes"
_VERBOSE = "verbose_linalg prints nothing here: record() tells what each solve did, record(progress=True) as it goes on"
_LOGGER = "logger hears of nothing here: record() tells what each solve did"


class LinearCGSettings(NamedTuple):
    """Settings of :func:`linear_cg`.

    Parameters
    ----------
    max_cg_iterations : int, optional
        The same as ``maxiter``.
    max_lanczos_quadrature_iterations : int, optional
        Has no meaning here, which a warning says.
    cg_tolerance : float, optional
        The same as ``rtol``.
    terminate_cg_by_size : bool, optional
        Whether to take no more steps than there are unknowns.
    verbose_linalg : bool, optional
        Has no meaning here, which a warning says where it is true; see :func:`record`.

    Examples
    --------
    >>> from tsgu.utils import LinearCGSettings
    >>> settings = LinearCGSettings(max_cg_iterations=1000, cg_tolerance=1e-8)
    >>> settings._replace(cg_tolerance=1e-6).arguments()
    {'maxiter': 1000, 'rtol': 1e-06}
    """

    max_cg_iterations: int | None = None
    max_lanczos_quadrature_iterations: int | None = None
    cg_tolerance: float | None = None
    terminate_cg_by_size: bool = False
    verbose_linalg: bool = False

    def arguments(self) -> dict[str, Any]:
        """The arguments of the method that these settings stand for."""
        steps = AtMostN(self.max_cg_iterations) if self.terminate_cg_by_size else self.max_cg_iterations
        return _given(maxiter=steps, rtol=self.cg_tolerance)

    def without_meaning(self) -> list[str]:
        """What is given and has no meaning here."""
        return _said(
            (self.max_lanczos_quadrature_iterations is not None, _LANCZOS), (bool(self.verbose_linalg), _VERBOSE)
        )


class MINRESSettings(NamedTuple):
    """Settings of :func:`minres`.

    Parameters
    ----------
    max_cg_iterations : int, optional
        The same as ``maxiter``.
    minres_tolerance : float, optional
        The same as ``rtol``.
    verbose_linalg : bool, optional
        Has no meaning here, which a warning says where it is true; see :func:`record`.

    Examples
    --------
    >>> from tsgu.utils import MINRESSettings
    >>> MINRESSettings(minres_tolerance=1e-6).arguments()
    {'rtol': 1e-06}
    """

    max_cg_iterations: int | None = None
    minres_tolerance: float | None = None
    verbose_linalg: bool = False

    def arguments(self) -> dict[str, Any]:
        """The arguments of the method that these settings stand for."""
        return _given(maxiter=self.max_cg_iterations, rtol=self.minres_tolerance)

    def without_meaning(self) -> list[str]:
        """What is given and has no meaning here."""
        return _said((bool(self.verbose_linalg), _VERBOSE))


class BICGSTABSettings(NamedTuple):
    """Settings of :func:`bicgstab`.

    Parameters
    ----------
    matvec_max : int, optional
        Largest number of products with A; a step takes two, so ``maxiter`` is half of it.
    abstol, reltol : float, optional
        The same as ``atol`` and ``rtol``: ``abstol`` is for the forward solve alone.
    precon : callable or matrix, optional
        The same as ``M``.
    logger : logging.Logger, optional
        Has no meaning here, which a warning says; see :func:`record`.

    Examples
    --------
    >>> from tsgu.utils import BICGSTABSettings
    >>> BICGSTABSettings(matvec_max=200, reltol=1e-6).arguments()
    {'maxiter': 100, 'rtol': 1e-06}
    """

    matvec_max: int | None = None
    abstol: float | None = None
    reltol: float | None = None
    precon: Callable[..., Any] | Any | None = None
    logger: Any = None

    def arguments(self) -> dict[str, Any]:
        """The arguments of the method that these settings stand for."""
        steps = None if self.matvec_max is None else self.matvec_max // 2
        return _given(maxiter=steps, atol=self.abstol, rtol=self.reltol, M=self.precon)

    def without_meaning(self) -> list[str]:
        """What is given and has no meaning here."""
        return _said((self.logger is not None, _LOGGER))


def _given(**arguments: Any) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if value is not None}


def _said(*cases: tuple[bool, str]) -> list[str]:
    return [text for holds, text in cases if holds]
