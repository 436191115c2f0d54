"""Preconditioners: approximations of the inverse of A, given as ``M`` to a Krylov method.

Built once, a preconditioner serves any number of solves, their adjoints and all derivatives, also with matrices near
the one that it was built from: the solution and its gradients do not depend on it.

========================  ======================================  =================================================
:func:`jacobi`            any device, real and complex            equations of different scale
:func:`block_jacobi`      any device, real and complex            several unknowns per node
:func:`ilu`               host, real and complex, not symmetric   general matrices, :data:`bicgstab`, :data:`gmres`
:func:`amg`               any device, needs PyAMG                 elliptic problems, with every method
========================  ======================================  =================================================

Examples
--------
>>> import torch, tsgu
>>> A = torch.tensor([[4.0, 1.0], [1.0, 3.0]], dtype=torch.float64).to_sparse()
>>> M = tsgu.precond.jacobi(A)
>>> tsgu.linear_cg(A, torch.tensor([1.0, 2.0], dtype=torch.float64), M=M)
tensor([0.0909, 0.6364], dtype=torch.float64)
"""

from tsgu.precond._amg import amg
from tsgu.precond._base import Preconditioner
from tsgu.precond._ilu import ilu
from tsgu.precond._jacobi import block_jacobi, jacobi

__all__ = ["Preconditioner", "amg", "block_jacobi", "ilu", "jacobi"]
