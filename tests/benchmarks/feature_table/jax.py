"""Derivatives by JAX of ``solver(A, b)``, compiled, from NumPy to NumPy. A is the values of the stored entries."""

import re
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np


class Jax:
    def solution(self, solver, system):
        return run(solver, system.values, system.b)

    def gradient(self, solver, system, scale=1.0):
        with jax.enable_x64(True):
            gradient = np.asarray(compiled_gradient(solver, system)(system.values, np.float64(scale)))
        return gradient.conj()  # to PyTorch's convention, in which the truth is given

    def reverse_over_reverse(self, solver, system, direction):
        gradient = jax.grad(loss(solver, system))
        return run(jax.grad(lambda A, moved: gradient(A) @ moved), system.values, direction)

    def forward_over_reverse(self, solver, system, direction):
        gradient = jax.grad(loss(solver, system))
        return run(lambda A, moved: jax.jvp(gradient, (A,), (moved,))[1], system.values, direction)

    def tangent(self, solver, system, direction):
        def tangent(A, moved, b):
            return jax.jvp(lambda A: solver(A, b), (A,), (moved,))[1]

        return run(tangent, system.values, direction, system.b)

    def mapped(self, solver, system, sides):
        return run(jax.vmap(solver, (None, 0)), system.values, sides)

    def batch_gradient(self, solver, systems):
        """One call for several matrices on one pattern, by ``vmap``."""
        values, b, weights = (
            np.stack([getattr(system, part) for system in systems]) for part in ("values", "b", "weights")
        )
        return run(jax.grad(lambda A, b: (weights * jax.vmap(solver)(A, b) ** 2).sum() / 2), values, b)

    def program(self, solver, system):
        """The largest array in the compiled gradient, and the text of the program."""
        text = compiled_gradient(solver, system).as_text()
        shapes = re.findall(r"\w\d+\[([\d,]+)\]", text)
        return max(int(np.prod([int(length) for length in shape.split(",")])) for shape in shapes), text

    def finish(self):
        jax.effects_barrier()  # a report may come late


def run(function, *arrays):
    with jax.enable_x64(True):
        return np.asarray(jax.jit(function)(*map(jnp.asarray, arrays)))


@lru_cache(maxsize=1)
def compiled_gradient(solver, system):
    """Of the values and a factor, kept while the same is asked for."""
    with jax.enable_x64(True):
        gradient = jax.jit(jax.grad(lambda A, scale: scale * loss(solver, system)(A)))
        return gradient.lower(system.values, np.float64(1.0)).compile()


def loss(solver, system):
    def loss(A):
        x = solver(A, jnp.asarray(system.b))
        return (system.weights * (x * x.conj()).real).sum() / 2

    return loss
