"""Differentiable sparse linear solves for JAX: the parallel of ``tsgu`` for PyTorch."""

try:
    import jax as _jax
except ModuleNotFoundError as error:
    if error.name != "jax":
        raise
    raise ImportError('tsgu_jax needs JAX: pip install "tsgu[jax]"') from error

from tsgu._core.methods._settings import BICGSTABSettings, LinearCGSettings, MINRESSettings
from tsgu._core.report._log import Log, record
from tsgu._core.report._status import ColumnInfo, ConvergenceWarning, SolveInfo
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
from tsgu_jax._solve import solve
from tsgu_jax._triangular import triangular_solve

__all__ = [
    "BICGSTABSettings",
    "ColumnInfo",
    "ConvergenceWarning",
    "LinearCGSettings",
    "Log",
    "MINRESSettings",
    "Pattern",
    "SolveInfo",
    "SparseMatrix",
    "auto",
    "bicgstab",
    "direct",
    "gmres",
    "linear_cg",
    "lsmr",
    "lstsq",
    "minres",
    "precond",
    "record",
    "solve",
    "triangular_solve",
]

del _jax
