"""Calls of NumPy functions from compiled programs, in the precision of the program."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax import Array, lax

_WIDE = ("float64", "complex128", "int64")


def call(function: Callable[..., Any], result: Any, *args: Any, vmap_method: str = "expand_dims") -> Any:
    """``jax.pure_callback`` for a NumPy function that takes the leading dimensions of a batch, of size 1 for none.

    With ``vmap_method="sequential"`` it is called for one member after the other.

    XLA may run a callback on a thread of its own, where 64-bit types are off if the program was compiled under
    ``jax.enable_x64``: JAX would then round what goes in and refuse what comes out. So 64-bit numbers travel as pairs
    of 32-bit words.
    """
    arrays = [jnp.asarray(a) for a in args]
    dtypes = [np.dtype(a.dtype) for a in arrays]

    def host(*words: Any) -> Any:
        given = (_from_words(np.asarray(w), dtype) for w, dtype in zip(words, dtypes, strict=True))
        return jax.tree.map(_to_words, function(*given))

    words = jax.pure_callback(host, jax.tree.map(_shape, result), *map(_packed, arrays), vmap_method=vmap_method)
    return jax.tree.map(lambda w, like: _unpacked(w, like.dtype), words, result)


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
