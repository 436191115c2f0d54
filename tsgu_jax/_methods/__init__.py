"""Krylov methods."""

from tsgu_jax._methods._bicgstab import bicgstab
from tsgu_jax._methods._cg import linear_cg
from tsgu_jax._methods._gmres import gmres
from tsgu_jax._methods._lsmr import lsmr
from tsgu_jax._methods._minres import minres

__all__ = ["bicgstab", "gmres", "linear_cg", "lsmr", "minres"]
