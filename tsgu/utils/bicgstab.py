"""Stabilised bi conjugate gradients and the settings object, under the import path of torchsparsegradutils."""

from tsgu._core.methods._settings import BICGSTABSettings
from tsgu._methods._bicgstab import bicgstab

__all__ = ["BICGSTABSettings", "bicgstab"]
