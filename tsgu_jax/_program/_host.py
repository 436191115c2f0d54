"""The one way from a compiled program to the host: functions that see NumPy arrays, and must not call JAX.

XLA runs what it calls on a thread that it needs for other programs. An operation of JAX in there, and be it the
comparison of two numbers, waits for a program that waits for this thread: the process hangs, though seldom in the first
call. So everything that a program calls goes through this file, which hands over NumPy arrays.

A function of the package's own is called by its name (:mod:`tsgu_jax._program._ffi`), which leaves the program fit to
be kept and exported. One of the user's has no name that holds in another process, and on an accelerator the arrays have
to travel first: there it is a callback of JAX.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax import Array, lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from tsgu_jax._program import _alone, _ffi, _internals, _mesh

_WIDE = ("float64", "complex128", "int64")


def call(name: str, function: Callable[..., Any], result: Any, *args: Any, vmap_method: str = "expand_dims") -> Any:
    """The results of a NumPy function that takes the leading dimensions of a batch, of size 1 for none.

    With ``vmap_method="sequential"`` it is called for one member after the other. ``name`` is what the user knows of
    it, for the error where the program is partitioned over several devices.
    """
    arrays = _mesh.alike(*(jnp.asarray(a) for a in args))
    first, *others = arrays
    given = _alone.on_one_device(name, first), *others
    text = _ffi.text_of(function)
    if text is None or jax.default_backend() != "cpu":
        found = _called_by_jax(function, result, given, vmap_method)
    else:
        leaves, structure = jax.tree.flatten(result)
        found = jax.tree.unflatten(structure, _ffi.call(text, leaves, given, vmap_method))
    return _mesh.varying(found, _mesh.axes_of(arrays))  # what comes from the host counts as the same everywhere


def _called_by_jax(function: Callable[..., Any], result: Any, args: Any, vmap_method: str) -> Any:
    """By ``jax.pure_callback``.

    XLA may run a callback on a thread of its own, where 64-bit types are off if the program was compiled under
    ``jax.enable_x64``: JAX would then round what goes in and refuse what comes out. So 64-bit numbers travel as pairs
    of 32-bit words.
    """
    dtypes = [np.dtype(a.dtype) for a in args]

    def host(*words: npt.NDArray[Any]) -> Any:
        given = (_from_words(w, dtype) for w, dtype in zip(words, dtypes, strict=True))
        return jax.tree.map(_to_words, function(*given))

    words = jax.pure_callback(
        _of_numpy(host), jax.tree.map(_shape, result), *map(_packed, args), vmap_method=vmap_method
    )
    return jax.tree.map(lambda w, like: _unpacked(w, like.dtype), words, result)


def inform(function: Callable[..., None], *args: Any, effect: bool) -> Array:
    """Tell the host: call a function of the package with how many leading dimensions are those of batches, and arrays.

    Under ``vmap`` it is one call for the batch. An array that is the same for all members has dimensions of size 1.

    With ``effect`` the call is an effect to JAX, for which ``jax.effects_barrier`` waits. An error in the call is then
    raised again by every barrier to come, and at the end of the process. Without, the call is made where the zero that
    it returns is needed (:func:`after`), and whoever waits for what is after it has waited for the call.
    """
    text = _ffi.text_of(function)
    assert text is not None, f"{function} cannot be found by its name"
    (zero,) = inform_p.bind(*_mesh.alike(*map(jnp.asarray, args)), text=text, lead=0, effect=effect)
    return cast(Array, zero)


def after(zero: Array, x: Array) -> Array:
    """x, to be had once the call is made that returned this zero."""
    same, _ = lax.optimization_barrier((x, zero))
    return same


inform_p = Primitive("tsgu_inform")
inform_p.multiple_results = True


def _told(*args: Any, text: str, lead: int, effect: bool) -> list[Any]:
    """Outside of compiled programs."""
    _ffi.function_of(text)(lead, *(np.asarray(a) for a in args))
    return [jnp.int32(0)]


def _typed(*args: Any, text: str, lead: int, effect: bool) -> Any:
    return [_internals.number_type(args[0], np.int32)], _internals.debug_effects() if effect else frozenset()


def _batched(args: Any, axes: Any, *, text: str, lead: int, effect: bool) -> tuple[list[Any], list[Any]]:
    moved = (
        jnp.asarray(a)[None] if axis is None else jnp.moveaxis(a, axis, 0) for a, axis in zip(args, axes, strict=True)
    )
    return inform_p.bind(*moved, text=text, lead=lead + 1, effect=effect), [None]


def _lowered_through_jax(context: Any, *args: Any, **params: Any) -> Any:
    _alone.refuse_export("the report of a solve", context)
    return _through_jax(context, *args, **params)


def _lowered_to_ffi(context: Any, *args: Any, text: str, lead: int, effect: bool) -> Any:
    if _alone.partitioned_over(context.module_context.axis_context) > 1:  # where XLA must be told who makes the call
        return _lowered_through_jax(context, *args, text=text, lead=lead, effect=effect)
    _alone.refuse_export("the report of a solve", context)
    return _ffi.lowering(context, *args, text=_ffi.with_first(text, lead))


def _by_jax(*args: Any, text: str, lead: int, effect: bool) -> list[Any]:
    jax.debug.callback(_of_numpy(partial(_ffi.function_of(text), lead)), *args)
    return [jnp.int32(0)]


def _not_differentiated(primals: Any, tangents: Any, **params: Any) -> tuple[list[Any], list[Any]]:
    zeros = inform_p.bind(*primals, **params)
    return zeros, [ad.Zero(jax.typeof(zero).to_tangent_aval()) for zero in zeros]


_through_jax = mlir.lower_fun(_by_jax, multiple_results=True)
inform_p.def_impl(_told)
inform_p.def_effectful_abstract_eval(_typed)
batching.primitive_batchers[inform_p] = _batched
ad.primitive_jvps[inform_p] = _not_differentiated
mlir.register_lowering(inform_p, _lowered_to_ffi, platform="cpu")
mlir.register_lowering(inform_p, _lowered_through_jax)


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
