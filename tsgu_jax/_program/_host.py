"""The one way from a compiled program to the host: functions that see NumPy arrays, and must not call JAX.

XLA runs a callback on a thread that it needs for other programs. An operation of JAX in there, and be it the comparison
of two numbers, waits for a program that waits for this thread: the process hangs, though seldom in the first call. So
every callback of the package goes through this file, which turns all that comes in into NumPy arrays.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax import Array, lax

from tsgu_jax._program import _alone, _mesh

_WIDE = ("float64", "complex128", "int64")


def call(name: str, function: Callable[..., Any], result: Any, *args: Any, vmap_method: str = "expand_dims") -> Any:
    """``jax.pure_callback`` for a NumPy function that takes the leading dimensions of a batch, of size 1 for none.

    With ``vmap_method="sequential"`` it is called for one member after the other. ``name`` is what the user knows of
    it, for the error where the program is partitioned over several devices.

    XLA may run a callback on a thread of its own, where 64-bit types are off if the program was compiled under
    ``jax.enable_x64``: JAX would then round what goes in and refuse what comes out. So 64-bit numbers travel as pairs
    of 32-bit words.
    """
    arrays = _mesh.alike(*(jnp.asarray(a) for a in args))
    dtypes = [np.dtype(a.dtype) for a in arrays]

    def host(*words: npt.NDArray[Any]) -> Any:
        given = (_from_words(w, dtype) for w, dtype in zip(words, dtypes, strict=True))
        return jax.tree.map(_to_words, function(*given))

    first, *others = map(_packed, arrays)
    given = _alone.on_one_device(name, first), *others
    words = jax.pure_callback(_of_numpy(host), jax.tree.map(_shape, result), *given, vmap_method=vmap_method)
    words = _mesh.varying(words, _mesh.axes_of(arrays))  # JAX takes what comes from the host for the same everywhere
    return jax.tree.map(lambda w, like: _unpacked(w, like.dtype), words, result)


def inform(function: Callable[..., None], *args: Any) -> None:
    """``jax.debug.callback`` for a function of pytrees of NumPy arrays; one call for each member of a batch."""
    jax.debug.callback(_of_numpy(function), *args)


def _of_numpy(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as a callback: nothing that it is given can dispatch an operation of JAX."""

    def on_host(*args: Any) -> Any:
        return function(*jax.tree.map(np.asarray, args))

    return on_host


def _packed(a: Array) -> Array:
    if str(a.dtype) not in _WIDE:
        return a
    parts = jnp.stack([a.real, a.imag], axis=-1) if jnp.iscomplexobj(a) else a
    words: Array = lax.bitcast_convert_type(parts, jnp.uint32)
    return words


def _unpacked(words: Array, dtype: Any) -> Array:
    if str(dtype) not in _WIDE:
        return words
    if not jnp.issubdtype(dtype, jnp.complexfloating):
        return lax.bitcast_convert_type(words, dtype)
    parts = lax.bitcast_convert_type(words, jnp.float64)
    return lax.complex(parts[..., 0], parts[..., 1])


def _shape(like: Any) -> Any:
    if str(like.dtype) not in _WIDE:
        return like
    pair = (2, 2) if np.dtype(like.dtype).kind == "c" else (2,)
    return jax.ShapeDtypeStruct((*like.shape, *pair), jnp.uint32)


def _to_words(a: Any) -> npt.NDArray[Any]:
    a = np.asarray(a)
    if str(a.dtype) not in _WIDE:
        return a
    pair = (2, 2) if a.dtype.kind == "c" else (2,)
    return np.ascontiguousarray(a).reshape(-1).view(np.uint32).reshape(*a.shape, *pair)


def _from_words(words: npt.NDArray[Any], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    if str(dtype) not in _WIDE:
        return words
    shape = words.shape[: -2 if dtype.kind == "c" else -1]
    return np.ascontiguousarray(words).reshape(-1).view(dtype).reshape(shape)
