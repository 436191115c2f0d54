"""Refusing, when a program is compiled, to call the host from one that JAX exports, or partitions over several devices.

An exported program may be run where nobody has imported this package. A partitioned one runs a callback on its first
device and hands the result to the others, who wait for it meanwhile; on the CPU they occupy the threads that the
callback needs, and the process hangs. Which of them a program is shows when it is lowered, which is where an operation
that does nothing else has its say. On one device nothing is left of it, and inside ``jax.shard_map``, where each device
calls the host for its own part, neither.
"""

from __future__ import annotations

from typing import Any

import jax
from jax import Array
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from tsgu._core.report import _solver_words

_alone = Primitive("tsgu_on_one_device")


def on_one_device(name: str, x: Array) -> Array:
    """x, for a callback that does the work of ``name``.

    Raises
    ------
    ValueError
        When the program is lowered, if it is exported, or partitioned over several devices.
    """
    same: Array = _alone.bind(x, name=name)
    return same


def _now(x: Array, *, name: str) -> Array:
    if isinstance(x, jax.Array) and len(x.devices()) > 1:
        raise ValueError(_solver_words.partitioned(name, len(x.devices())))
    return x


def _type(x: Any, *, name: str) -> Any:
    return x


def _lowered(context: Any, x: Any, *, name: str) -> list[Any]:
    refuse_export(name, context)
    devices = partitioned_over(context.module_context.axis_context)
    if devices > 1:
        raise ValueError(_solver_words.partitioned(name, devices))
    return [x]


def refuse_export(name: str, context: Any) -> None:
    """Raise a ValueError where what is lowered is exported."""
    if context.module_context.lowering_parameters.for_export:
        raise ValueError(_solver_words.exported(name))


def partitioned_over(where: Any) -> int:
    """How many devices JAX partitions over: none in a ``shard_map``, unless that leaves it some axes of the mesh."""
    mesh = getattr(where, "mesh", None)
    if mesh is None:
        return int(getattr(where, "num_devices", 1))
    return 1 if set(where.manual_axes) == set(mesh.axis_names) else int(mesh.size)


_alone.def_impl(_now)
_alone.def_abstract_eval(_type)
mlir.register_lowering(_alone, _lowered)
ad.deflinear2(_alone, lambda cotangent, x, *, name: [cotangent])
batching.primitive_batchers[_alone] = lambda args, axes, *, name: (on_one_device(name, args[0]), axes[0])
