"""Conjugate gradients and the settings object, under the import path of torchsparsegradutils."""

from tsgu._core._settings import LinearCGSettings
from tsgu.krylov import linear_cg

__all__ = ["LinearCGSettings", "linear_cg"]
