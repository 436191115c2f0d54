"""Minimal residuals and the settings object, under the import path of torchsparsegradutils."""

from tsgu._core._settings import MINRESSettings
from tsgu.krylov import minres

__all__ = ["MINRESSettings", "minres"]
