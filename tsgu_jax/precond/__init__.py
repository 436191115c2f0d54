"""Preconditioners: approximations of the inverse of A, given as ``M`` to a Krylov method.

Built once, a preconditioner serves any number of solves, their adjoints and all derivatives, also with matrices near
the one that it was built from: the solution and its gradients do not depend on it. A preconditioner is a pytree: give
it to a compiled function as an argument.

========================  ======================================  =================================================
:func:`jacobi`            also of traced values                   equations of different scale
:func:`block_jacobi`      also of traced values                   several unknowns per node
:func:`ilu`               on the host, not symmetric              general matrices, :data:`bicgstab`, :data:`gmres`
:func:`amg`               of concrete values, needs PyAMG         elliptic problems, with every method
========================  ======================================  =================================================

Examples
--------
>>> import jax.numpy as jnp, tsgu_jax
>>> from jax.experimental.sparse import BCOO
>>> A = BCOO.fromdense(jnp.array([[4.0, 1.0], [1.0, 3.0]]))
>>> tsgu_jax.linear_cg(A, jnp.array([1.0, 2.0]), M=tsgu_jax.precond.jacobi(A)).round(4)
Array([0.0909, 0.6364], dtype=float32)
"""

from tsgu_jax.precond._amg import amg
from tsgu_jax.precond._base import Preconditioner
from tsgu_jax.precond._ilu import ilu
from tsgu_jax.precond._jacobi import block_jacobi, jacobi

__all__ = ["Preconditioner", "amg", "block_jacobi", "ilu", "jacobi"]
