"""tsgu and tsgu_jax, which have the same names."""

import importlib

from tests.benchmarks.feature_table.library import TIGHT, Library


class Tsgu(Library):
    name = distribution = "tsgu"
    called = (
        "`sparse_generic_solve` on a `SparseMatrix`, with `direct` for nonsymmetric A, and `bicgstab` where an "
        "iterative method is meant"
    )

    def __init__(self):
        from tests.benchmarks.feature_table.pytorch import PyTorch

        self.framework = PyTorch()
        self.package = importlib.import_module("tsgu")
        self.modules = ("tsgu",)
        self.solve, self.lstsq = self.package.sparse_generic_solve, self.package.sparse_generic_lstsq
        self.substitute = self.package.sparse_triangular_solve

    def matrix(self, system, values):
        import torch

        pattern = self.package.Pattern(torch.from_numpy(system.rows), torch.from_numpy(system.columns), system.A.shape)
        return pattern.matrix(values)

    def own(self, system, function, **options):
        return lambda values, b: function(self.matrix(system, values), b, **options)

    def default(self, system):
        return self.own(system, self.solve)

    def bicgstab(self, system, maxiter=None, tight=False, preconditioned=False):
        options = {"maxiter": maxiter} | ({"rtol": TIGHT} if tight else {})
        if preconditioned:
            options["M"] = self.package.precond.ilu(self.matrix(system, self.constant(system.values)))
        return self.own(system, self.solve, solve=self.package.bicgstab, **options)

    def cg(self, system, maxiter=None):
        return self.own(system, self.solve, solve=self.package.linear_cg, maxiter=maxiter)

    def direct(self, system):
        return self.own(system, self.solve, solve=self.package.direct, library="superlu")

    def multigrid(self, system, maxiter):
        M = self.package.precond.amg(self.matrix(system, self.constant(system.values)))
        return self.own(system, self.solve, solve=self.package.linear_cg, maxiter=maxiter, M=M)

    def least_squares(self, system):
        return self.own(system, self.lstsq)

    def triangular(self, system):
        return self.own(system, self.substitute, upper=True)

    def constant(self, array):
        import torch

        return torch.from_numpy(array)


class TsguJax(Tsgu):
    name = "tsgu_jax"
    called = "`solve`, the same"

    def __init__(self):
        from tests.benchmarks.feature_table.jax import Jax

        self.framework = Jax()
        self.package = importlib.import_module("tsgu_jax")
        self.modules = ("tsgu_jax",)
        self.solve, self.lstsq = self.package.solve, self.package.lstsq
        self.substitute = self.package.triangular_solve

    def matrix(self, system, values):
        return self.package.Pattern(system.rows, system.columns, system.A.shape).matrix(values)

    def constant(self, array):
        import jax.numpy as jnp

        return jnp.asarray(array)


OURS = (Tsgu, TsguJax)
