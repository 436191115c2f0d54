"""What JAX offers no settled way to do: every use of names that may move is in this file, with the reason beside it."""

from contextlib import AbstractContextManager
from functools import cache
from typing import Any

import jax
import numpy as np


def is_traced(*trees: Any) -> bool:
    """Whether anything in these pytrees is a tracer, which has no numbers; there is no other question for that."""
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(trees))


def concretely() -> AbstractContextManager[None]:
    """What is made of concrete arrays inside the block is concrete, whatever is traced around it.

    ``jax.ensure_compile_time_eval`` is not enough inside ``jax.shard_map`` and ``jax.linear_transpose``.
    """
    context: AbstractContextManager[None] = jax.core.eval_context()
    return context


def varying_axes(tracer: Any) -> frozenset[Any]:
    """The axes of a mesh over which a tracer varies inside ``jax.shard_map``; releases of JAX differ in the name."""
    kind: Any = jax.typeof(tracer)
    manual = getattr(kind, "manual_axis_type", kind)
    axes: frozenset[Any] = getattr(manual, "vma", frozenset()) if manual is kind else manual.varying
    return axes


def number_type(kind: Any, dtype: Any) -> Any:
    """The type of one number of this dtype, which varies over a mesh as an array of the type given."""
    sharding = kind.sharding.update(spec=jax.sharding.PartitionSpec())
    return kind.update(shape=(), dtype=np.dtype(dtype), weak_type=False, sharding=sharding)


def evaluated(jaxpr: Any, consts: Any, *args: Any) -> list[Any]:
    """The results of a program that JAX has traced, without compiling it apart."""
    results: list[Any] = jax.core.eval_jaxpr(jaxpr, consts, *args)
    return results


@cache
def debug_effects() -> Any:
    """What keeps an operation without results in a program, wherever ``jax.debug.callback`` may stand.

    JAX has no public name for it, but tells it of a program with such a callback.
    """
    return jax.make_jaxpr(lambda: jax.debug.callback(lambda: None))().effects
