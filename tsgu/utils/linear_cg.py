"""Conjugate gradients and the settings object, under the import path of torchsparsegradutils."""

from tsgu._core.methods._settings import LinearCGSettings
from tsgu._methods._cg import linear_cg

__all__ = ["LinearCGSettings", "linear_cg"]
