"""Krylov methods."""

from tsgu._methods._bicgstab import bicgstab
from tsgu._methods._cg import linear_cg
from tsgu._methods._gmres import gmres
from tsgu._methods._lsmr import lsmr
from tsgu._methods._minres import minres

__all__ = ["bicgstab", "gmres", "linear_cg", "lsmr", "minres"]
