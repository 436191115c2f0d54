"""Stabilised bi conjugate gradients and the settings object, under the import path of torchsparsegradutils."""

from tsgu._core._settings import BICGSTABSettings
from tsgu.krylov import bicgstab

__all__ = ["BICGSTABSettings", "bicgstab"]
