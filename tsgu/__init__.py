"""Differentiable sparse linear solves for PyTorch. Names are loaded on first use, so that importing needs no torch."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tsgu._core.methods import _registry

if TYPE_CHECKING:
    from tsgu import precond
    from tsgu._core.methods._settings import BICGSTABSettings, LinearCGSettings, MINRESSettings
    from tsgu._core.report._failure import on_failure
    from tsgu._core.report._log import Log, record
    from tsgu._core.report._status import ColumnInfo, ConvergenceWarning, SolveInfo, Status
    from tsgu._lstsq import sparse_generic_lstsq
    from tsgu._matrix._pattern import Pattern
    from tsgu._matrix._sparse_matrix import SparseMatrix
    from tsgu._methods._auto import auto
    from tsgu._methods._bicgstab import bicgstab
    from tsgu._methods._cg import linear_cg
    from tsgu._methods._direct import direct
    from tsgu._methods._gmres import gmres
    from tsgu._methods._lsmr import lsmr
    from tsgu._methods._minres import minres
    from tsgu._rule._outcome import Info
    from tsgu._solve import sparse_generic_solve
    from tsgu._triangular import sparse_triangular_solve

__all__ = [
    "BICGSTABSettings",
    "ColumnInfo",
    "ConvergenceWarning",
    "Info",
    "LinearCGSettings",
    "Log",
    "MINRESSettings",
    "Pattern",
    "SolveInfo",
    "SparseMatrix",
    "Status",
    "auto",
    "bicgstab",
    "direct",
    "gmres",
    "linear_cg",
    "lsmr",
    "minres",
    "on_failure",
    "precond",
    "record",
    "sparse_generic_lstsq",
    "sparse_generic_solve",
    "sparse_triangular_solve",
]

_HOME = {
    "tsgu._core.methods._settings": ("BICGSTABSettings", "LinearCGSettings", "MINRESSettings"),
    "tsgu._core.report._failure": ("on_failure",),
    "tsgu._core.report._log": ("Log", "record"),
    "tsgu._core.report._status": ("ColumnInfo", "ConvergenceWarning", "SolveInfo", "Status"),
    "tsgu._lstsq": ("sparse_generic_lstsq",),
    "tsgu._matrix._sparse_matrix": ("Pattern", "SparseMatrix"),
    "tsgu._rule._outcome": ("Info",),
    "tsgu._solve": ("sparse_generic_solve",),
    "tsgu._triangular": ("sparse_triangular_solve",),
    **{f"tsgu._methods.{method.module}": (method.name,) for method in _registry.METHODS},
}

_NAMESPACES = ("precond",)


def __getattr__(name: str) -> Any:
    home = next((module for module, names in _HOME.items() if name in names), None)
    if home is None and name not in _NAMESPACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        value = import_module(f"tsgu.{name}") if home is None else getattr(import_module(home), name)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise ImportError(f'tsgu.{name} needs PyTorch: pip install "tsgu[torch]"') from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
