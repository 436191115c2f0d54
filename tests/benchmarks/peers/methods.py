"""What tsgu and tsgu_jax share: the arguments of a method, and the steps that it told of.

Multigrid is told the near-null space where there is one, as PyAMG is; without it, it is Ruge and Stueben's.
"""

from functools import partial


def choice(package, method, case, rtol):
    """The arguments of a solve, of the matrix; ``package`` is tsgu or tsgu_jax, which have the same names."""
    name, _, extra = method.partition(" ")
    solver = getattr(package, name)
    if name == "direct":
        return lambda A: {"solve": solver, "library": extra.strip("()").lower()}
    if not extra:
        return lambda A: {"solve": solver, "rtol": rtol}
    build = package.precond.ilu
    if extra == "+ amg":
        build = package.precond.amg
        if case.modes is not None:
            build = partial(build, kind="smoothed_aggregation", B=case.modes)
    return lambda A: {"solve": solver, "rtol": rtol, "M": build(A)}


def told(log):
    """The steps of the forward and of the adjoint solve, where the method takes steps."""
    steps = {info.transposed: info.iterations for info in log}
    return steps.get(False), steps.get(True)
