r"""
Conductivity from temperatures, in PyTorch
==========================================

A plate with a hole is heated at six places, one after the other, and thermometers say how warm it gets. How well does
each point of the plate conduct heat? The temperature u above ambient and the conductivity :math:`\kappa` satisfy

.. math:: -\nabla \cdot (\kappa \nabla u) = q, \qquad u = 0 \text{ on the outer edge}, \qquad
          \kappa \, \partial_n u = 0 \text{ on the rim of the hole}.

Finite elements turn this into A(theta) X = B, with one column for each source of heat and one parameter theta, the
logarithm of the conductivity, for each triangle. The fit of X to the measurements is a function of thousands of
parameters, and is minimised by its gradient. That gradient passes through the sparse solve: it costs one more solve,
with the same matrix, however many parameters there are.

The mesh, the element matrices and the measurements are made with scikit-fem, once and without torch:

.. dropdown:: _conductivity.py

   .. literalinclude:: /examples/_conductivity.py

The same problem in JAX is in :doc:`conductivity_jax`.
"""

# sphinx_gallery_thumbnail_number = 2

import _conductivity
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.colors import LogNorm

import tsgu

plate = _conductivity.plate()
mesh, n = plate.mesh, plate.free.size
B, data = torch.from_numpy(plate.B), torch.from_numpy(plate.data)
sensors, element, local = map(torch.from_numpy, (plate.sensors, plate.element, plate.local))
print(f"{mesh.nelements} triangles, {n} unknown temperatures, {B.shape[1]} sources, {sensors.numel()} thermometers")

# %%
# From parameters to a matrix
# ---------------------------
#
# The stiffness matrix is linear in the conductivity: A is the sum of the element matrices, each times the conductivity
# of its triangle. Where the entries stand never changes, so the :class:`tsgu.Pattern` is built once. What happens for
# each theta is an exponential, which keeps the conductivity positive, a product, and the sum of what the triangles
# around a node contribute to the same entry, which is ``pattern.matrix``. All of it is ordinary differentiable torch.
#
# The nodes on the outer edge are not in the matrix. Their temperature is known to be zero, so that their rows and
# columns can go; A stays symmetric and positive definite, as conjugate gradients needs it.

pattern = tsgu.Pattern(torch.from_numpy(plate.row), torch.from_numpy(plate.col), (n, n))


def matrix(theta):
    return pattern.matrix(theta.exp()[element] * local)


# %%
# The loss
# --------
#
# The misfit is measured in units of the noise, which alone would make it one half.
#
# It is not enough. Heat spreads, so that temperatures hardly depend on the fine detail of the conductivity, and a
# perfect fit would use that freedom to reproduce the noise. The total variation, the jump over each edge times the
# edge's length, suppresses detail and yet permits the few sharp steps that inclusions in a material have. It is rounded
# where the jump is zero, since the optimiser asks for a derivative there. The factor 0.1 is chosen so that the misfit
# of the result is about that of the noise, and not far less.

jump, length = torch.from_numpy(plate.jump), torch.from_numpy(plate.length)


def misfit(theta, M, rtol=1e-8):
    X = tsgu.sparse_generic_solve(matrix(theta), B, solve=tsgu.linear_cg, M=M, rtol=rtol)
    return 0.5 * ((X[sensors] - data) / plate.sigma).square().mean()


def total_variation(theta, rounding=0.05):
    step = theta[jump[:, 0]] - theta[jump[:, 1]]
    return (length * ((step.square() + rounding**2).sqrt() - rounding)).sum()


def loss(theta, M, rtol=1e-8):
    return misfit(theta, M, rtol) + 0.1 * total_variation(theta)


# %%
# Is the gradient right?
# ----------------------
#
# A preconditioner changes neither the solution nor the gradient, only the way there. Algebraic multigrid suits this
# matrix; set up for a uniform plate, it serves any plate that is not too different. The derivative of the loss along a
# random direction is compared with central differences, at a random theta. For that the solves are made more accurate,
# since a difference quotient magnifies their error.

uniform = torch.zeros(mesh.nelements, dtype=torch.float64)
M = tsgu.precond.amg(matrix(uniform))
print(M)

generator = torch.Generator().manual_seed(0)
theta, direction = 0.3 * torch.randn(2, mesh.nelements, generator=generator, dtype=torch.float64)
theta.requires_grad_()
with tsgu.record() as log:
    (gradient,) = torch.autograd.grad(loss(theta, M, rtol=1e-12), theta)
print(log)

with torch.no_grad():
    h = 1e-4
    ahead, behind = (loss(theta + step * direction, M, rtol=1e-12) for step in (h, -h))
    quotient = ((ahead - behind) / (2 * h)).item()
derivative = (gradient @ direction).item()
print(f"derivative {derivative:.8f}, difference quotient {quotient:.8f}")
assert abs(derivative - quotient) < 1e-6 * abs(quotient)

# %%
# The log shows what this took: one solve for the temperatures and one for the gradient, the adjoint, each of six
# columns. Both are part of ``log`` because a gradient is no better than the solve behind it.
#
# Recover the conductivity
# ------------------------
#
# From a uniform plate on, by L-BFGS. The preconditioner is set up again after every 20 iterations, since the field
# moves away from the one that it was made for.

theta = uniform.clone().requires_grad_()
optimiser = torch.optim.LBFGS(
    [theta], max_iter=20, history_size=30, line_search_fn="strong_wolfe", tolerance_grad=0, tolerance_change=0
)
losses, steps = [], []


def closure():
    optimiser.zero_grad()
    with tsgu.record() as log:
        value = loss(theta, M)
        value.backward()
    losses.append(value.item())
    steps.append(log[0].iterations)
    return value


for _ in range(4):
    M = tsgu.precond.amg(matrix(theta))
    optimiser.step(closure)

theta = theta.detach()
truth = torch.from_numpy(np.log(_conductivity.true_conductivity(*mesh.p[:, mesh.t].mean(1))))
error = ((theta - truth).norm() / truth.norm()).item()
print(f"error {error:.2f}, where the uniform plate has 1; misfit {misfit(theta, M).item():.2f}")
assert error < 0.25
assert 0.4 < misfit(theta, M) < 0.6  # neither missed nor over-fitted

# %%
# The experiment
# --------------
#
# The thermometers are at a quarter of the nodes, the noise has a standard deviation of 0.1 K. The measurements come
# from a finer mesh and another solver, so that the errors of the finite elements are in them as well.

figure, (left, right) = plt.subplots(1, 2, figsize=(9.6, 4.2), layout="compressed")
left.triplot(*mesh.p, mesh.t.T, color="0.8", linewidth=0.5)
left.plot(*mesh.p[:, plate.free[plate.sensors]], ".", color="tab:blue", markersize=3)
left.plot(*_conductivity.SOURCES.T, "*", color="tab:red", markersize=12)
left.set(aspect="equal", xlabel="x (m)", ylabel="y (m)", title="Thermometers (dots) and sources (stars)")
u = np.zeros(mesh.nvertices)
with torch.no_grad():
    u[plate.free] = tsgu.linear_cg(matrix(theta), B[:, 2], M=M)
picture = right.tripcolor(*mesh.p, mesh.t.T, u, shading="gouraud", cmap="inferno")
right.set(aspect="equal", xlabel="x (m)", ylabel="y (m)", title="Temperature under the third source")
figure.colorbar(picture, ax=right, label="u above ambient (K)")
plt.show()

# %%
# What was found
# --------------
#
# The disc, which conducts three times better than the rest, and the bar of insulation are found in shape and in value,
# though each thermometer feels all of the plate at once.

figure, axes = plt.subplots(1, 3, figsize=(11, 3.6), layout="compressed", sharey=True)
fields = {"True": truth, "Initial": uniform, "Recovered": theta}
for ax, (title, field) in zip(axes, fields.items(), strict=True):
    picture = ax.tripcolor(*mesh.p, mesh.t.T, facecolors=field.exp().numpy(), norm=LogNorm(0.25, 4))
    ax.set(aspect="equal", xlabel="x (m)", title=title)
axes[0].set_ylabel("y (m)")
bar = figure.colorbar(picture, ax=axes, label="conductivity (W/(m K))", ticks=[0.25, 0.5, 1, 2, 4])
bar.ax.minorticks_off()
bar.ax.set_yticklabels(["0.25", "0.5", "1", "2", "4"])
plt.show()

# %%
# The steps of conjugate gradients grow as the conductivity moves away from that of the preconditioner, and fall where
# the preconditioner is set up again.

figure, (above, below) = plt.subplots(2, 1, figsize=(7, 5), layout="constrained", sharex=True)
above.semilogy(losses)
above.set(ylabel="loss", title="Four times 20 iterations of L-BFGS")
above.grid(alpha=0.3)
below.plot(steps, drawstyle="steps-mid")
below.set(xlabel="evaluation of loss and gradient", ylabel="steps of a solve", ylim=(0, None))
below.grid(alpha=0.3)
plt.show()

assert steps[-1] < max(steps) / 2
