"""Krylov methods."""

from tsgu.krylov._bicgstab import bicgstab
from tsgu.krylov._cg import linear_cg
from tsgu.krylov._gmres import gmres
from tsgu.krylov._lsmr import lsmr
from tsgu.krylov._minres import minres

__all__ = ["bicgstab", "gmres", "linear_cg", "lsmr", "minres"]
