"""Functions of NumPy arrays as operations of XLA on the CPU, by its foreign function interface.

XLA hands over a C structure with the arguments, the results and a text; the text names the function. A program that
holds such a name is the same in each process, so that it can be kept in JAX's compilation cache and exported, where
``jax.pure_callback`` puts the address of a Python object into the program. The function is given views of XLA's own
memory, and JAX takes no part in the call.

The structures are those of ``xla/ffi/api/c_api.h``, which comes with jaxlib, of version 0 of that interface: fields are
only ever added at the end of one.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import sys
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import jax
import numpy as np
import numpy.typing as npt

TARGET = "tsgu_host"
"""The name by which XLA knows the one handler of the package."""

_PACKAGE = __name__.partition(".")[0] + "."

_MAJOR, _MINOR = 0, 1
_METADATA, _EXECUTE, _INTERNAL = 1, 3, 13

_DTYPES = {
    1: np.dtype(np.bool_),
    4: np.dtype(np.int32),
    5: np.dtype(np.int64),
    8: np.dtype(np.uint32),
    9: np.dtype(np.uint64),
    11: np.dtype(np.float32),
    12: np.dtype(np.float64),
    15: np.dtype(np.complex64),
    18: np.dtype(np.complex128),
}


class _Version(ctypes.Structure):
    _fields_ = [
        ("struct_size", ctypes.c_size_t),
        ("extension", ctypes.c_void_p),
        ("major", ctypes.c_int),
        ("minor", ctypes.c_int),
    ]


class _Metadata(ctypes.Structure):
    _fields_ = [("struct_size", ctypes.c_size_t), ("version", _Version), ("traits", ctypes.c_uint32)]


class _Extension(ctypes.Structure):
    _fields_ = [
        ("struct_size", ctypes.c_size_t),
        ("type", ctypes.c_int),
        ("next", ctypes.c_void_p),
        ("metadata", ctypes.POINTER(_Metadata)),
    ]


class _ErrorArguments(ctypes.Structure):
    _fields_ = [
        ("struct_size", ctypes.c_size_t),
        ("extension", ctypes.c_void_p),
        ("message", ctypes.c_char_p),
        ("code", ctypes.c_int),
    ]


class _Api(ctypes.Structure):
    _fields_ = [
        ("struct_size", ctypes.c_size_t),
        ("extension", ctypes.c_void_p),
        ("version", _Version),
        ("internal", ctypes.c_void_p),
        ("error", ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.POINTER(_ErrorArguments))),
    ]


class _Buffer(ctypes.Structure):
    _fields_ = [
        ("struct_size", ctypes.c_size_t),
        ("extension", ctypes.c_void_p),
        ("dtype", ctypes.c_int),
        ("data", ctypes.c_void_p),
        ("rank", ctypes.c_int64),
        ("dims", ctypes.POINTER(ctypes.c_int64)),
    ]


class _Buffers(ctypes.Structure):
    _fields_ = [
        ("struct_size", ctypes.c_size_t),
        ("extension", ctypes.c_void_p),
        ("size", ctypes.c_int64),
        ("types", ctypes.c_void_p),
        ("buffers", ctypes.POINTER(ctypes.POINTER(_Buffer))),
    ]


class _Text(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("size", ctypes.c_size_t)]


class _Attributes(ctypes.Structure):
    _fields_ = [
        ("struct_size", ctypes.c_size_t),
        ("extension", ctypes.c_void_p),
        ("size", ctypes.c_int64),
        ("types", ctypes.c_void_p),
        ("names", ctypes.c_void_p),
        ("texts", ctypes.POINTER(ctypes.POINTER(_Text))),
    ]


class _Frame(ctypes.Structure):
    _fields_ = [
        ("struct_size", ctypes.c_size_t),
        ("extension", ctypes.POINTER(_Extension)),
        ("api", ctypes.POINTER(_Api)),
        ("context", ctypes.c_void_p),
        ("stage", ctypes.c_int),
        ("arguments", _Buffers),
        ("results", _Buffers),
        ("attributes", _Attributes),
    ]


def _array(buffer: _Buffer) -> npt.NDArray[Any]:
    """The memory of a buffer as an array."""
    shape = tuple(buffer.dims[: buffer.rank])
    dtype = _DTYPES[buffer.dtype]
    size = dtype.itemsize
    for length in shape:
        size *= length
    if size == 0:
        return np.empty(shape, dtype)
    memory = memoryview((ctypes.c_char * size).from_address(buffer.data))
    return np.frombuffer(memory, dtype).reshape(shape)


def _handle(frame_at: Any) -> int | None:
    frame = frame_at.contents
    if frame.extension and frame.extension.contents.type == _METADATA:
        version = frame.extension.contents.metadata.contents.version
        version.major, version.minor = _MAJOR, _MINOR
        return None
    try:
        text = frame.attributes.texts[0].contents
        function = _function(ctypes.string_at(text.data, text.size))
        given, results = frame.arguments, frame.results
        found = function(*(_array(given.buffers[i].contents) for i in range(given.size)))
        found = found if isinstance(found, tuple | list) else (0 if found is None else found,)
        for i in range(results.size):
            _array(results.buffers[i].contents)[...] = found[i]
    except BaseException as error:  # of which C must not hear in another way, also not of KeyboardInterrupt
        message = f"{type(error).__name__}: {error}".encode()
        arguments = _ErrorArguments(ctypes.sizeof(_ErrorArguments), None, message, _INTERNAL)
        code: int = frame.api.contents.error(ctypes.byref(arguments))
        return code
    return None


_handler = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.POINTER(_Frame))(_handle)
jax.ffi.register_ffi_target(TARGET, jax.ffi.pycapsule(_handler), platform="cpu")


def text_of(function: Callable[..., Any]) -> str | None:
    """The text that names a function of this package, or a ``partial`` of one with numbers, texts and tuples of such.

    None where another process could not find it by name.
    """
    given: tuple[Any, ...] = ()
    named: Any = function
    if isinstance(function, partial) and not function.keywords:
        named, given = function.func, function.args
    module, name = getattr(named, "__module__", ""), getattr(named, "__name__", "")
    if not module.startswith(_PACKAGE) or getattr(sys.modules[module], name, None) is not named:
        return None
    return json.dumps([module, name, *given])


def with_first(text: str, *arguments: Any) -> str:
    """The text for the same function with more arguments before the arrays."""
    return json.dumps([*json.loads(text), *arguments])


def function_of(text: str) -> Callable[..., Any]:
    """The function that a text names."""
    return _function(text.encode())


@lru_cache(maxsize=4096)
def _function(text: bytes) -> Callable[..., Any]:
    module, name, *given = _tuples(json.loads(text))
    if not module.startswith(_PACKAGE):
        raise ValueError(f"a program asks for {name} of {module}, which is no part of this package.")
    return partial(getattr(importlib.import_module(module), name), *given)


def _tuples(given: Any) -> Any:
    return tuple(map(_tuples, given)) if isinstance(given, list) else given


def call(text: str, results: list[Any], args: Any, vmap_method: str) -> list[Any]:
    """The results, given by shape and dtype, of the function that a text names."""
    found = jax.ffi.ffi_call(TARGET, results, vmap_method=vmap_method)(*args, text=text)
    return list(found)


lowering = jax.ffi.ffi_lowering(TARGET, has_side_effect=True)
"""How a call is written into a program that is made for what it does, not for its result, which is zero."""
