"""Between PyTorch and JAX: conversions, solvers of one framework for the other, torch functions turned into JAX ones.

The one part of the project that imports both frameworks. Importing it makes the solves and the constructors of sparse
tensors known to the package torch2jax, where that is installed.
"""

try:
    import torch as _torch
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise ImportError('tsgu_jax.interop needs PyTorch beside JAX: pip install "tsgu[interop]"') from error

from importlib.util import find_spec as _find_spec

from tsgu_jax.interop._convert import to_jax, to_torch
from tsgu_jax.interop._solvers import jax_solver, torch_solver

if _find_spec("torch2jax") is not None:
    from tsgu_jax.interop import _ordinary as _ordinary
    from tsgu_jax.interop import _torch2jax as _torch2jax

__all__ = ["jax_solver", "to_jax", "to_torch", "torch_solver"]

del _torch
