r"""
Conductivity from temperatures, in JAX
======================================

The problem of :doc:`conductivity_torch` once more: a plate with a hole is heated at six places, thermometers say how
warm it gets, and the conductivity of each triangle of the mesh is wanted. Here the assembly, the solve, its gradient
and the optimiser are one compiled JAX program. At the end the gradient is compared with that of PyTorch.
"""

# sphinx_gallery_thumbnail_number = 3

import _conductivity
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
import torch
from matplotlib.colors import LogNorm

import tsgu
import tsgu_jax

jax.config.update("jax_enable_x64", True)  # a script may decide this for all of JAX; tsgu_jax never does

plate = _conductivity.plate()
mesh, n = plate.mesh, plate.free.size

# %%
# From parameters to a misfit
# ---------------------------
#
# As in torch, A is the sum of the element matrices, each times the conductivity of its triangle. The
# :class:`tsgu_jax.Pattern` is built once, outside of the compiled functions: its indices are sorted on the host, and
# laid out for fast products. What depends on theta is an exponential, a product and ``pattern.matrix``, the sum of what
# the triangles around a node contribute to the same entry.

pattern = tsgu_jax.Pattern(plate.row, plate.col, (n, n))


def matrix(theta):
    return pattern.matrix(jnp.exp(theta)[plate.element] * plate.local)


def misfit(theta, M, rtol=1e-8):
    X = tsgu_jax.solve(matrix(theta), plate.B, solve=tsgu_jax.linear_cg, M=M, rtol=rtol)
    return 0.5 * jnp.mean(((X[plate.sensors] - plate.data) / plate.sigma) ** 2)


def total_variation(theta, rounding=0.05):
    step = theta[plate.jump[:, 0]] - theta[plate.jump[:, 1]]
    return jnp.sum(plate.length * (jnp.sqrt(step**2 + rounding**2) - rounding))


def loss(theta, M):
    return misfit(theta, M) + 0.1 * total_variation(theta)


# %%
# Is the gradient right?
# ----------------------
#
# The hierarchy of algebraic multigrid is set up on the host too, and outside of ``jit``. It is data, as an array is,
# and an argument of what is compiled. Calls of a compiled function are recorded if it is first called inside the block;
# the log shows the solve for the temperatures and the adjoint one for the gradient.

uniform = jnp.zeros(mesh.nelements)
M = tsgu_jax.precond.amg(matrix(uniform))
accurate = jax.jit(jax.value_and_grad(lambda theta, M: misfit(theta, M, rtol=1e-12)))
theta, direction = jnp.asarray(0.3 * np.random.default_rng(0).standard_normal((2, mesh.nelements)))

with tsgu_jax.record() as log:
    derivative = accurate(theta, M)[1] @ direction
print(log)

h = 1e-4
quotient = (accurate(theta + h * direction, M)[0] - accurate(theta - h * direction, M)[0]) / (2 * h)
print(f"derivative {derivative:.8f}, difference quotient {quotient:.8f}")
assert abs(derivative - quotient) < 1e-6 * abs(quotient)

# %%
# Recover the conductivity
# ------------------------
#
# All iterations of L-BFGS are one ``scan``, so that a single program is compiled, with its line searches and solves.
# The preconditioner stays that of the uniform plate: another one would have levels of another size, for which JAX would
# have to compile again. It costs more steps of conjugate gradients than to set it up anew, as the torch version does,
# and the result is the same, since a preconditioner does not change what is solved.

optimiser = optax.lbfgs(memory_size=30)


@jax.jit
def minimise(theta, M):
    def objective(theta):
        return loss(theta, M)

    def iteration(carry, _):
        theta, state = carry
        value, gradient = optax.value_and_grad_from_state(objective)(theta, state=state)
        update, state = optimiser.update(gradient, state, theta, value=value, grad=gradient, value_fn=objective)
        return (optax.apply_updates(theta, update), state), value

    (theta, _), losses = jax.lax.scan(iteration, (theta, optimiser.init(theta)), length=50)
    return theta, losses


theta, losses = minimise(uniform, M)
truth = np.log(_conductivity.true_conductivity(*mesh.p[:, mesh.t].mean(1)))
error = np.linalg.norm(theta - truth) / np.linalg.norm(truth)
print(f"error {error:.2f}, where the uniform plate has 1; misfit {accurate(theta, M)[0]:.2f}")
assert error < 0.25
assert 0.4 < accurate(theta, M)[0] < 0.6  # neither missed nor over-fitted

figure, axes = plt.subplots(1, 2, figsize=(8.4, 3.8), layout="compressed", sharey=True)
for ax, (title, field) in zip(axes, {"True": truth, "Recovered": np.asarray(theta)}.items(), strict=True):
    picture = ax.tripcolor(*mesh.p, mesh.t.T, facecolors=np.exp(field), norm=LogNorm(0.25, 4))
    ax.set(aspect="equal", xlabel="x (m)", title=title)
axes[0].set_ylabel("y (m)")
bar = figure.colorbar(picture, ax=axes, label="conductivity (W/(m K))", ticks=[0.25, 0.5, 1, 2, 4])
bar.ax.minorticks_off()
bar.ax.set_yticklabels(["0.25", "0.5", "1", "2", "4"])
plt.show()

# %%

figure, ax = plt.subplots(figsize=(7, 3), layout="constrained")
ax.semilogy(losses)
ax.set(xlabel="iteration of L-BFGS", ylabel="loss")
ax.grid(alpha=0.3)
plt.show()

# %%
# The same gradient from PyTorch
# ------------------------------
#
# Two frameworks, two programs, one rule: the misfit and its gradient at the uniform plate and at the recovered one
# agree to the accuracy of the solves.

pattern_torch = tsgu.Pattern(torch.from_numpy(plate.row), torch.from_numpy(plate.col), (n, n))
local, element, B = map(torch.from_numpy, (plate.local, plate.element, plate.B))


def misfit_and_gradient_torch(theta):
    theta = torch.tensor(np.asarray(theta), requires_grad=True)
    A = pattern_torch.matrix(theta.exp()[element] * local)
    X = tsgu.sparse_generic_solve(A, B, solve=tsgu.linear_cg, M=tsgu.precond.amg(A), rtol=1e-12)
    value = 0.5 * ((X[plate.sensors] - torch.from_numpy(plate.data)) / plate.sigma).square().mean()
    value.backward()
    return value.item(), theta.grad.numpy()


for name, field in {"recovered": theta, "uniform": uniform}.items():
    value_jax, gradient_jax = accurate(field, M)
    value_torch, gradient_torch = misfit_and_gradient_torch(field)
    relative = np.linalg.norm(gradient_jax - gradient_torch) / np.linalg.norm(gradient_torch)
    print(f"{name}: misfits {value_jax:.10f} and {value_torch:.10f}, gradients differ by {relative:.0e}")
    assert abs(value_jax - value_torch) < 1e-9 * value_torch
    assert relative < 1e-9

# %%
# Where the uniform plate conducts too little, in the disc, the gradient is negative: more conductivity would reduce the
# misfit. In and around the bar it is positive.

figure, axes = plt.subplots(1, 3, figsize=(12.4, 3.4), layout="compressed", sharey=True)
fields = {"PyTorch": gradient_torch, "JAX": gradient_jax, "JAX - PyTorch": gradient_jax - gradient_torch}
for ax, (title, field) in zip(axes, fields.items(), strict=True):
    size = np.abs(field).max()
    picture = ax.tripcolor(*mesh.p, mesh.t.T, facecolors=field, cmap="RdBu_r", vmin=-size, vmax=size)
    ax.set(aspect="equal", xlabel="x (m)", title=title)
    figure.colorbar(picture, ax=ax)
axes[0].set_ylabel("y (m)")
figure.suptitle("Derivative of the misfit by the log conductivity of each triangle")
plt.show()
