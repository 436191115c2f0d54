"""The rows of the table: each an experiment on a library, which returns what was seen."""

import re
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from unittest.mock import patch

import numpy as np
from scipy.sparse.linalg._dsolve import linsolve

from tests.benchmarks.feature_table import systems
from tests.benchmarks.feature_table.library import Library, NoAPIError
from tests.benchmarks.feature_table.systems import off

RIGHT = 1e-5  # a relative error below which a derivative is called right

ROWS: dict[str, Callable[[Library], str]] = {}


def row(title: str):
    def register(experiment):
        ROWS[title] = experiment
        return experiment

    return register


def judged(error: float, right: float = RIGHT) -> str:
    if error <= right:
        return "yes"
    return "not finite" if np.isinf(error) else f"off by {figure(error)}"


def figure(number: float) -> str:
    """One digit: 0.3, 0.01, 3e-11."""
    return re.sub("e-0", "e-", f"{number:.1g}" if number >= 0.01 else f"{number:.0e}")


def dense(library, solver, system) -> bool:
    """Whether the gradient is computed with something of size n by n."""
    return library.framework.program(solver, system)[0] >= system.n**2


def direction(system):
    return np.random.default_rng(2).standard_normal(system.values.size)


@row("gradient of A")
def gradient(library):
    """With nothing said of the adjoint. As many entries as A has, made without anything of size n by n."""
    system = systems.nonsymmetric()
    solver = library.adjoint_by_default(system)
    found = library.framework.gradient(solver, system)
    assert found.shape == system.values.shape
    answer = judged(off(found, systems.gradient(system)))
    return f"{answer}, dense" if dense(library, solver, system) else answer


@row("gradient of a complex A")
def complex_gradient(library):
    system = systems.nonsymmetric(complex_=True)
    return judged(off(library.framework.gradient(library.general(system), system), systems.gradient(system)))


@row("gradient of a loss times 1e-12")
def scaled(library):
    """With the iterative method, if there is one, at its defaults: no worse than that of the loss itself."""
    system = systems.nonsymmetric()
    solver = library.bicgstab(system) if library.iterative else library.general(system)
    truth = systems.gradient(system)
    plain = off(library.framework.gradient(solver, system), truth)
    scaled = off(1e12 * library.framework.gradient(solver, system, 1e-12), truth)
    return "yes" if scaled <= max(RIGHT, 2 * plain) else judged(scaled)


@row("Hessian product, reverse over reverse")
def reverse_over_reverse(library):
    return second(library, library.framework.reverse_over_reverse)


@row("Hessian product, forward over reverse")
def forward_over_reverse(library):
    return second(library, library.framework.forward_over_reverse)


def second(library, product):
    """By what is recommended, and if that is wrong by the iterative method, should it be another."""
    system = systems.nonsymmetric()
    truth = systems.hessian_product(system, direction(system))
    answer = judged(off(product(library.general(system), system, direction(system)), truth))
    if answer != "yes" and library.iterative:
        other = off(product(library.bicgstab(system, tight=True), system, direction(system)), truth)
        answer += f"; {judged(other)} by bicgstab" if judged(other) == "yes" else ""
    return answer


@row("forward mode")
def forward(library):
    system = systems.nonsymmetric()
    found = library.framework.tangent(library.general(system), system, direction(system))
    return judged(off(found, systems.tangent(system, direction(system))))


@row("vmap over b")
def mapped(library):
    system = systems.nonsymmetric()
    sides = np.stack([system.b, 2 * system.b[::-1]])
    found = library.framework.mapped(library.general(system), system, sides)
    return judged(off(found, np.linalg.solve(system.A.toarray(), sides.T).T))


@row("batch of matrices, with gradient")
def batch(library):
    system = systems.nonsymmetric()
    members = [system, system.with_values(system.values * (1 + 0.1 * np.abs(direction(system))))]
    found = library.framework.batch_gradient(library.batch(system), members)
    return judged(off(found, np.stack([systems.gradient(member) for member in members])))


@row("block of right-hand sides, with gradient")
def block(library):
    system = systems.nonsymmetric(columns=3)
    return judged(off(library.framework.gradient(library.general(system), system), systems.gradient(system)))


@row("methods")
def methods(library):
    """The methods that its adapter has, each of which must solve a system."""
    system = systems.nonsymmetric()
    found = ["iterative"] if library.iterative else []
    if found:
        assert systems.residual(system, library.framework.solution(library.bicgstab(system), system)) < 1e-3
    with suppress(NoAPIError):
        solver = library.direct(system)
        assert systems.residual(system, library.framework.solution(solver, system)) < 1e-12
        found.append("dense direct" if dense(library, solver, system) else "direct")
    return ", ".join(found)


@row("factored once for solve and gradient")
def factored(library):
    """By the calls of SuperLU, and in a compiled program those of other factorisations."""
    system = systems.nonsymmetric()
    solver = library.direct(system)
    if "tsgu_jax" in sys.modules:  # which would find the factors of an earlier experiment
        sys.modules["tsgu_jax"].factor_store.clear()
    with counted() as calls:
        library.framework.gradient(solver, system)
    program = library.framework.program(solver, system)[1]
    targets = re.findall(r'custom_call_target="([^"]+)"', program) if library.factoring else []
    times = len(calls) + sum(library.factoring in target for target in targets)
    assert times, f"no factorisation of {library.name} was seen"
    answer = "yes" if times == 1 else f"no, {times} times"
    return f"{answer}, dense" if dense(library, solver, system) else answer


@row("multigrid preconditioner")
def multigrid(library):
    """A plane of 40 000 unknowns, for which conjugate gradients alone take some 400 steps, in 30."""
    system = systems.poisson_2d(200)
    x = library.framework.solution(library.multigrid(system, 30), system)
    residual = systems.residual(system, x)
    return "yes" if residual < 1e-5 else f"residual {figure(residual)}"


@row("preconditioner transposed in the adjoint")
def transposed(library):
    """Exact factors, so that a step or two is enough for whoever transposes them, and ten are not for the others."""
    system = systems.convection()
    solver = library.bicgstab(system, maxiter=10, preconditioned=True)
    assert systems.residual(system, library.framework.solution(solver, system)) < 1e-4
    answer = []
    report = reported(lambda: answer.append(library.framework.gradient(solver, system)), library)
    return "yes" if answer and off(answer[0], systems.gradient(system)) < 1e-3 else f"no, {report}"


@row("least squares, with gradient")
def least_squares(library):
    """At the default tolerances, so that less is asked for."""
    system = systems.tall()
    found = library.framework.gradient(library.least_squares(system), system)
    return judged(off(found, systems.least_squares_gradient(system)), right=1e-3)


@row("triangular solve, with gradient")
def triangular(library):
    system = systems.triangle()
    solver = library.triangular(system)
    answer = judged(off(library.framework.gradient(solver, system), systems.gradient(system)))
    return f"{answer}, dense" if dense(library, solver, system) else answer


@row("residual by default, 1-D Poisson, n = 2000")
def default_residual(library):
    return residual(library, library.default)


@row("the same by conjugate gradients")
def cg_residual(library):
    return residual(library, library.cg)


def residual(library, method):
    system = systems.poisson_1d()
    solver = method(system)
    answer = []
    report = reported(lambda: answer.append(library.framework.solution(solver, system)), library)
    if not answer:
        return report
    found = figure(systems.residual(system, answer[0]))
    return found if report == "silent" else f"{found}, {report}"


@row("too few steps")
def limited(library):
    system = systems.system(systems.line(400))
    solver = library.cg(system, maxiter=25)
    return told(lambda: library.framework.solution(solver, system), library)


@row("too few steps in the adjoint alone")
def limited_adjoint(library):
    system = systems.eigenvector()
    solver = library.cg(system, maxiter=25)
    assert systems.residual(system, library.framework.solution(solver, system)) < 1e-5
    return told(lambda: library.framework.gradient(solver, system), library)


@row("conjugate gradients, indefinite A")
def indefinite(library):
    system = systems.indefinite()
    solver = library.cg(system)
    return told(lambda: library.framework.solution(solver, system), library)


@row("direct, singular A")
def singular(library):
    system = systems.singular()
    solver = library.direct(system)
    return told(lambda: library.framework.solution(solver, system), library)


def told(call: Callable[[], np.ndarray], library: Library) -> str:
    """How a call that cannot succeed ends; not a number tells, too."""
    answer = []
    report = reported(lambda: answer.append(call()), library)
    return "NaN" if report == "silent" and not np.all(np.isfinite(answer[0])) else report


def reported(call: Callable[[], object], library: Library) -> str:
    """Whether a call raises an exception or warns."""
    with warned() as caught:
        try:
            call()
            library.framework.finish()
        except Exception:
            return "raises"
    return "warns" if caught else "silent"


@contextmanager
def warned() -> Iterator[list[warnings.WarningMessage]]:
    """The warnings for the user, without those of PyTorch about sparse tensors in general."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", UserWarning)
        warnings.filterwarnings("ignore", "Sparse", UserWarning)
        yield caught


@contextmanager
def counted() -> Iterator[list[str]]:
    """The factorisations by SuperLU, whoever asks SciPy for them."""
    calls: list[str] = []

    def counting(name):
        function = getattr(linsolve._superlu, name)

        def call(*args, **kwargs):
            calls.append(name)
            return function(*args, **kwargs)

        return patch.object(linsolve._superlu, name, call)

    with counting("gstrf"), counting("gssv"):
        yield calls
