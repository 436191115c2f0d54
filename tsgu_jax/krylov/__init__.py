"""Krylov methods."""

from tsgu_jax.krylov._bicgstab import bicgstab
from tsgu_jax.krylov._cg import linear_cg
from tsgu_jax.krylov._gmres import gmres
from tsgu_jax.krylov._lsmr import lsmr
from tsgu_jax.krylov._minres import minres

__all__ = ["bicgstab", "gmres", "linear_cg", "lsmr", "minres"]
