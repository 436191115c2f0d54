"""Conditions that stay such under ``vmap``, where ``lax.cond`` would run both branches for all members."""

from jax import Array
from jax.custom_batching import custom_vmap


@custom_vmap
def in_all(flag: Array) -> Array:
    """Whether the flag, of shape (), is true for all members of a batch: one answer for all."""
    return flag


@in_all.def_vmap
def _(size: int, batched: list[bool], flag: Array) -> tuple[Array, bool]:
    return in_all(flag.all(axis=0)), False


def in_any(flag: Array) -> Array:
    """The same for one of them."""
    return ~in_all(~flag)
