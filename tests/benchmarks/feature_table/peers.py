"""The libraries beside ours, each called as its documentation says."""

import importlib
from functools import partial

import numpy as np

from tests.benchmarks.feature_table.library import TIGHT, Library


class TorchSparseGradUtils(Library):
    name = distribution = "torchsparsegradutils"
    modules = ("torchsparsegradutils", "torchsparsegradutils.utils")
    called = (
        "`sparse_generic_solve` on a sparse COO tensor, with `bicgstab` for nonsymmetric A and, the first row aside, a "
        "`transpose_solve` that calls `bicgstab` on `A.t()` with the same settings, where a preconditioner could be "
        "transposed by hand"
    )

    def __init__(self):
        from tests.benchmarks.feature_table.pytorch import SparseTensor

        self.framework = SparseTensor()
        self.package = importlib.import_module("torchsparsegradutils")
        self.utils = importlib.import_module("torchsparsegradutils.utils")

    def default(self, system):
        return self.package.sparse_generic_solve

    def general(self, system):
        return self.bicgstab(system, tight=True)

    def adjoint_by_default(self, system):
        return partial(self.general(system), transpose_solve=None)

    def bicgstab(self, system, maxiter=None, tight=False, preconditioned=False):
        settings = self.utils.BICGSTABSettings(matvec_max=2 * maxiter if maxiter else None)
        if tight:
            settings = settings._replace(abstol=0.0, reltol=TIGHT, matvec_max=20 * system.n)
        if preconditioned:
            settings = settings._replace(precon=self.framework.variable(system, system.values).to_dense().inverse())

        def transpose_solve(A, G, settings):
            return self.utils.bicgstab(A.t(), G, settings=settings)

        return partial(
            self.package.sparse_generic_solve,
            solve=self.utils.bicgstab,
            transpose_solve=transpose_solve,
            settings=settings,
        )

    def cg(self, system, maxiter=None):
        settings = self.utils.LinearCGSettings()
        if maxiter:
            settings = settings._replace(max_cg_iterations=maxiter)
        return partial(self.package.sparse_generic_solve, solve=self.utils.linear_cg, settings=settings)

    def least_squares(self, system):
        return self.package.sparse_generic_lstsq

    def triangular(self, system):
        return lambda A, b: self.package.sparse_triangular_solve(A, b[:, None], upper=True)[:, 0]

    def batch(self, system):
        import torch

        indices = torch.from_numpy(np.stack([system.rows, system.columns]))

        def solver(values, b):
            matrices = [torch.sparse_coo_tensor(indices, one, system.A.shape).coalesce() for one in values]
            return self.package.sparse_generic_solve(torch.stack(matrices), b, solve=self.utils.bicgstab)

        return solver


class TorchSla(Library):
    name, distribution = "torch-sla", "torch-sla"
    modules = ("torch_sla",)
    called = '`spsolve`, which chooses SciPy\'s LU; `backend="pytorch"` for iterative methods'

    def __init__(self):
        from tests.benchmarks.feature_table.pytorch import PyTorch

        self.framework = PyTorch()
        self.package = importlib.import_module("torch_sla")

    def own(self, system, function=None, **options):
        import torch

        row, col = torch.from_numpy(system.rows), torch.from_numpy(system.columns)
        function = function or self.package.spsolve
        return lambda values, b: function(values, row, col, system.A.shape, b, **options)

    def default(self, system):
        return self.own(system)

    def bicgstab(self, system, maxiter=None, tight=False, preconditioned=False):
        options = {"maxiter": maxiter} if maxiter else {}
        options |= {"preconditioner": "ilu0"} if preconditioned else {}
        return self.own(system, backend="pytorch", method="bicgstab", **options)

    def cg(self, system, maxiter=None):
        options = {"maxiter": maxiter} if maxiter else {}
        return self.own(system, backend="pytorch", method="cg", **options)

    def direct(self, system):
        return self.own(system, backend="scipy", method="lu")

    def multigrid(self, system, maxiter):
        return self.own(system, backend="pytorch", method="cg", preconditioner="amg", maxiter=maxiter)

    def least_squares(self, system):
        return self.own(system, backend="pytorch", method="lsmr")

    def batch(self, system):
        return self.own(system, self.package.spsolve_batch_same_layout)


class JaxIterative(Library):
    name, distribution = "jax.scipy", "jax"
    modules = ("jax.scipy.sparse.linalg",)
    called = "`jax.scipy.sparse.linalg` on a `BCOO`, `bicgstab` for nonsymmetric A"

    def __init__(self):
        from tests.benchmarks.feature_table.jax import Jax

        self.framework = Jax()
        self.linalg = importlib.import_module("jax.scipy.sparse.linalg")

    def own(self, system, method, **options):
        from jax.experimental.sparse import BCOO

        indices = np.stack([system.rows, system.columns], axis=1)

        def solver(values, b):
            A = BCOO((values, indices), shape=system.A.shape, indices_sorted=True, unique_indices=True)
            return method(A, b, **options)[0]

        return solver

    def default(self, system):
        return self.cg(system)

    def general(self, system):
        return self.bicgstab(system, tight=True)

    def bicgstab(self, system, maxiter=None, tight=False, preconditioned=False):
        options = {"maxiter": maxiter} | ({"tol": TIGHT} if tight else {})
        if preconditioned:
            inverse = np.linalg.inv(system.A.toarray())
            options["M"] = lambda v: inverse @ v
        return self.own(system, self.linalg.bicgstab, **options)

    def cg(self, system, maxiter=None):
        return self.own(system, self.linalg.cg, maxiter=maxiter)


class JaxDirect(Library):
    name, distribution = "jax spsolve", "jax"
    modules = ("jax.experimental.sparse.linalg",)
    iterative = False
    called = "`jax.experimental.sparse.linalg.spsolve`"

    def __init__(self):
        from tests.benchmarks.feature_table.jax import Jax

        self.framework = Jax()

    def default(self, system):
        return self.direct(system)

    def direct(self, system):
        from jax.experimental.sparse.linalg import spsolve

        return lambda values, b: spsolve(values, system.A.indices, system.A.indptr, b)


class Lineax(Library):
    name = distribution = "lineax"
    modules = ("lineax",)
    called = (
        "`linear_solve` with `BiCGStab` for nonsymmetric A, on a `FunctionLinearOperator` that multiplies with a "
        "`BCOO`, since it has no sparse operator; its tolerances have no default and are 1e-6, as in its "
        "documentation, or 1e-12; what it chooses by default for such an operator is a dense factorisation"
    )
    factoring = "getrf"

    def __init__(self):
        from tests.benchmarks.feature_table.jax import Jax

        self.framework = Jax()
        self.package = importlib.import_module("lineax")

    def own(self, system, tags=(), solver=None, **options):
        import jax
        from jax.experimental.sparse import BCOO

        indices = np.stack([system.rows, system.columns], axis=1)

        def solve(values, b):
            A = BCOO((values, indices), shape=system.A.shape, indices_sorted=True, unique_indices=True)
            structure = jax.ShapeDtypeStruct((system.A.shape[1], *b.shape[1:]), b.dtype)
            operator = self.package.FunctionLinearOperator(lambda x: A @ x, structure, tags)
            chosen = {} if solver is None else {"solver": solver}
            return self.package.linear_solve(operator, b, **chosen, options=options).value

        return solve

    def tolerances(self, tight=False):
        return {"rtol": TIGHT, "atol": TIGHT} if tight else {"rtol": 1e-6, "atol": 1e-6}

    def default(self, system):
        return self.own(system, self.package.positive_semidefinite_tag)

    def general(self, system):
        return self.bicgstab(system, tight=True)

    def bicgstab(self, system, maxiter=None, tight=False, preconditioned=False):
        options = {}
        if preconditioned:
            options["preconditioner"] = self.package.MatrixLinearOperator(np.linalg.inv(system.A.toarray()))
        return self.own(system, (), self.package.BiCGStab(max_steps=maxiter, **self.tolerances(tight)), **options)

    def cg(self, system, maxiter=None):
        solver = self.package.CG(max_steps=maxiter, **self.tolerances())
        return self.own(system, self.package.positive_semidefinite_tag, solver)

    def direct(self, system):
        return self.own(system, (), self.package.LU())

    def least_squares(self, system):
        return self.own(system, (), self.package.LSMR(**self.tolerances()))

    def triangular(self, system):
        return self.own(system, self.package.upper_triangular_tag, self.package.Triangular())


class Klujax(Library):
    name = distribution = "klujax"
    modules = ("klujax",)
    iterative = False
    factoring = "solve"
    called = "`solve`"

    def __init__(self):
        from tests.benchmarks.feature_table.jax import Jax

        self.framework = Jax()
        self.package = importlib.import_module("klujax")

    def default(self, system):
        return self.direct(system)

    def direct(self, system):
        return lambda values, b: self.package.solve(system.rows, system.columns, values, b)


PEERS = (TorchSparseGradUtils, TorchSla, JaxIterative, JaxDirect, Lineax, Klujax)
