"""Minimal residuals and the settings object, under the import path of torchsparsegradutils."""

from tsgu._core.methods._settings import MINRESSettings
from tsgu._methods._minres import minres

__all__ = ["MINRESSettings", "minres"]
