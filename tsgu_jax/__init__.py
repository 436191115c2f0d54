"""Differentiable sparse linear solves for JAX: the parallel of ``tsgu`` for PyTorch."""

try:
    import jax as _jax
except ModuleNotFoundError as error:
    if error.name != "jax":
        raise
    raise ImportError('tsgu_jax needs JAX: pip install "tsgu[jax]"') from error

from tsgu._core.methods._settings import BICGSTABSettings, LinearCGSettings, MINRESSettings
from tsgu._core.report._failure import on_failure
from tsgu._core.report._log import Log, record
from tsgu._core.report._status import ColumnInfo, ConvergenceWarning, SolveInfo, Status
from tsgu_jax import precond
from tsgu_jax._lstsq import lstsq
from tsgu_jax._matrix._pattern import Pattern
from tsgu_jax._matrix._sparse_matrix import SparseMatrix
from tsgu_jax._methods._auto import auto
from tsgu_jax._methods._bicgstab import bicgstab
from tsgu_jax._methods._cg import linear_cg
from tsgu_jax._methods._direct import direct
from tsgu_jax._methods._gmres import gmres
from tsgu_jax._methods._lsmr import lsmr
from tsgu_jax._methods._minres import minres
from tsgu_jax._program._outcome import Info
from tsgu_jax._program._store import store as factor_store
from tsgu_jax._solve import solve
from tsgu_jax._triangular import triangular_solve

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
    "factor_store",
    "gmres",
    "linear_cg",
    "lsmr",
    "lstsq",
    "minres",
    "on_failure",
    "precond",
    "record",
    "solve",
    "triangular_solve",
]

del _jax
