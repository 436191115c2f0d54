"""The import paths of torchsparsegradutils, for code written with them.

Each method has a module of its own name here. The modules are imported first and the names bound to the methods after,
so that ``from tsgu.utils import linear_cg`` gives the method also after ``import tsgu.utils.linear_cg``.
"""

from tsgu._core.methods._settings import BICGSTABSettings, LinearCGSettings, MINRESSettings
from tsgu.utils import bicgstab as _bicgstab
from tsgu.utils import linear_cg as _linear_cg
from tsgu.utils import minres as _minres

bicgstab = _bicgstab.bicgstab
linear_cg = _linear_cg.linear_cg
minres = _minres.minres

__all__ = [
    "BICGSTABSettings",
    "LinearCGSettings",
    "MINRESSettings",
    "bicgstab",
    "linear_cg",
    "minres",
]
