r"""
Newton's method, and the derivative of its result
=================================================

Silicon conducts heat worse the warmer it is, so a hot spot on a chip makes itself hotter. The temperature T of a thin
square chip that is heated from above and cooled by its package from below satisfies

.. math:: -\nabla \cdot (d \, k(T) \nabla T) + c \, (T - T_0) = q, \qquad k(T) = k_0 \, (T / T_0)^{-p},

with insulated edges. It is solved by Newton's method, F(T, theta) = 0, one sparse linear system with the Jacobian J in
each iteration. Then comes the question of a designer: how does the temperature depend on the power of each block of the
chip, and on what is known of the material?

The answer is the implicit function theorem: :math:`dT/d\theta = -J^{-1} \, \partial F / \partial\theta`, with J at the
solution. It needs no derivative of the iteration, only solves with one matrix. One factorisation of J serves all of
them.
"""

import matplotlib.pyplot as plt
import torch

import tsgu

# %%
# The discretisation
# ------------------
#
# Finite volumes on a grid of square cells: between two neighbours flows heat in proportion to the difference of their
# temperatures and to the conductivity at the mean of the two. The parameters theta are the powers of four blocks of
# circuits, in W, and the exponent p.

SIDE, THICKNESS, COOLING, K0, T0 = 10e-3, 0.5e-3, 1e4, 148.0, 300.0  # m, m, W/(m^2 K), W/(m K), K
m = 80
n, h = m * m, SIDE / m
cell = torch.arange(n).reshape(m, m)  # [y, x]
left = torch.cat([cell[:, :-1].flatten(), cell[:-1].flatten()])  # the two cells beside each inner face
right = torch.cat([cell[:, 1:].flatten(), cell[1:].flatten()])

centre = (torch.arange(m, dtype=torch.float64) + 0.5) * h * 1e3  # in mm
y, x = torch.meshgrid(centre, centre, indexing="ij")
blocks = {"CPU": (1, 3, 6, 8), "GPU": (5, 9, 5, 9), "memory": (1, 9, 1, 3), "modem": (1, 3, 4, 5)}  # x, x, y, y in mm
areas = torch.stack([((x > a) & (x < b) & (y > c) & (y < d)).flatten() for a, b, c, d in blocks.values()]).double()
shares = areas / areas.sum(1, keepdim=True)


def flow(T_left, T_right, theta):
    """The heat that flows through a face, in W."""
    k = K0 * ((T_left + T_right) / (2 * T0)) ** -theta[-1]
    return THICKNESS * k * (T_left - T_right)


def balance(T, theta):
    """F(T, theta): what each cell loses, less what it receives, in W."""
    through = flow(T[left], T[right], theta)
    out = torch.zeros_like(T).index_add(0, left, through).index_add(0, right, -through)
    return out + COOLING * h**2 * (T - T0) - theta[:-1] @ shares


# %%
# The Jacobian
# ------------
#
# A flow depends on two temperatures. Its two derivatives are all that differentiation has to supply: ``torch.func``
# takes them for all faces at once, and each appears in the balance of two cells. The dense Jacobian, of 41 million
# entries, never exists. It is not symmetric, since the conductivity changes with the temperature.

row = torch.cat([left, left, right, right, cell.flatten()])
col = torch.cat([left, right, left, right, cell.flatten()])
pattern = tsgu.Pattern(row, col, (n, n))
slopes = torch.func.vmap(torch.func.grad(flow, argnums=(0, 1)), in_dims=(0, 0, None))


@torch.no_grad()
def jacobian(T, theta):
    to_left, to_right = slopes(T[left], T[right], theta)
    cooling = torch.full((n,), COOLING * h**2, dtype=T.dtype)
    values = torch.cat([to_left, to_right, -to_left, -to_right, cooling])
    return pattern.matrix(values)


# %%
# Newton, with factors kept or made anew
# --------------------------------------
#
# ``tsgu.direct.prepare(A)`` factors A and returns an object with ``.solve(B)`` and ``.solve_transpose(G)``. The list
# keeps count.

made = []


def factored(A):
    made.append(tsgu.direct.prepare(A))
    return made[-1]


@torch.no_grad()
def newton(theta, chord=False):
    """T with F(T, theta) = 0, and the residual before each step; ``chord`` keeps the first factors."""
    T = torch.full((n,), T0, dtype=torch.float64)
    load = (theta[:-1] @ shares).norm()
    factors, residuals = None, []
    while True:
        residual = balance(T, theta)
        residuals.append((residual.norm() / load).item())
        if residuals[-1] < 1e-11:
            return T, residuals
        assert len(residuals) < 100, "Newton's method does not converge"
        if factors is None or not chord:
            factors = factored(jacobian(T, theta))
        T -= factors.solve(residual)


theta = torch.tensor([25.0, 30.0, 5.0, 2.0, 1.3], dtype=torch.float64, requires_grad=True)
T, residuals = newton(theta)
newton_factorisations = len(made)
T_chord, residuals_chord = newton(theta, chord=True)
chord_factorisations = len(made) - newton_factorisations
print(f"hottest cell {T.max():.0f} K, {T.max() - T0:.0f} K above the package")
print(f"Newton: {len(residuals) - 1} steps, {newton_factorisations} factorisations")
print(f"chord: {len(residuals_chord) - 1} steps, {chord_factorisations} factorisation")

# %%
# Newton's method squares the residual in each step, up to a factor. The chord method, which keeps the Jacobian of the
# first step, reduces it by the same factor each time. Which of them is quicker depends on how many solves a
# factorisation costs.

r = torch.tensor(residuals)
assert (r[2:] < r[1:-1] ** 2).all()
rates = torch.tensor(residuals_chord[-4:]) / torch.tensor(residuals_chord[-5:-1])
assert rates.max() < 1.1 * rates.min()
assert chord_factorisations == 1
assert torch.allclose(T, T_chord, rtol=1e-9)

figure, (field, convergence) = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
extent = (0, SIDE * 1e3, 0, SIDE * 1e3)


def outline(ax, color, title):
    for name, (a, b, c, d) in blocks.items():
        ax.add_patch(plt.Rectangle((a, c), b - a, d - c, fill=False, color=color))
        ax.text(a, d + 0.1, name, color=color)
    ax.set(xlabel="x (mm)", title=title)


image = field.imshow(T.reshape(m, m).numpy(), origin="lower", extent=extent, cmap="inferno")
outline(field, "white", "Temperature")
field.set_ylabel("y (mm)")
figure.colorbar(image, ax=field, label="T (K)")
convergence.semilogy(residuals, "o-", label=f"Newton, {newton_factorisations} factorisations")
convergence.semilogy(residuals_chord, ".-", label="chord, 1 factorisation")
convergence.set(xlabel="steps taken", ylabel="residual / load", title="Convergence")
convergence.grid(alpha=0.3)
convergence.legend()
plt.show()

# %%
# An implicit layer in three lines
# --------------------------------
#
# Newton's method runs without a graph. At its result T one more Newton step is taken, and only in this step does
# autograd see theta, as it enters F:
#
# .. math:: T - J^{-1} F(T, \theta), \qquad \frac{d}{d\theta} \left( T - J^{-1} F(T, \theta) \right)
#           = -J^{-1} \frac{\partial F}{\partial \theta}.
#
# T and J are constants here. The value of the step is zero to rounding, and its derivative is what the theorem says; a
# second derivative, in which T and J move as well, is not to be had from it. J is factored at the solution, once more
# after those of the iteration, since the last of them belong to the step before. The backward pass solves with the
# transpose of J, by the same factors: what is prepared can be given as ``solve=``, and its answer is checked by a
# product with J.


def temperature(theta):
    T, _ = newton(theta)
    J = jacobian(T, theta)
    return T - tsgu.sparse_generic_solve(J, balance(T, theta), solve=factored(J))


made.clear()
T = temperature(theta)
factors = made[-1]
means = shares @ T  # of each block
adjoint = torch.stack([torch.autograd.grad(mean, theta, retain_graph=True)[0] for mean in means])

print("            " + "".join(f"{name:>10}" for name in [*blocks, "p"]))
for name, mean, gradient in zip(blocks, means, adjoint, strict=True):
    print(f"{name:>6}{mean:6.0f}" + "".join(f"{entry:10.3f}" for entry in gradient))
print(f"{len(made)} factorisations")

# %%
# Each row of the table is a block of circuits, with its mean temperature in K and the derivatives of that by the
# powers, in K/W, and by the exponent, in K. Each row took one solve with the transpose.
#
# Seen the other way, each parameter has a field, the derivative of the temperature everywhere. That is one solve with J
# for each, all in one call, again by the factors that are there.

T = T.detach()
unit = torch.eye(5, dtype=T.dtype)
columns = [torch.autograd.functional.jvp(lambda theta: balance(T, theta), theta.detach(), e)[1] for e in unit]
sensitivity = -factors.solve(torch.stack(columns, dim=1))  # (n, 5)
forward = shares @ sensitivity

assert len(made) == len(residuals)  # one for each step of Newton's method and one at the solution
assert torch.allclose(forward, adjoint, rtol=1e-9)
for e, found in zip(unit, sensitivity.T, strict=True):
    step = 1e-3 * (theta.detach() @ e)
    ahead, behind = (newton(theta + sign * step * e)[0] for sign in (1, -1))
    quotient = (ahead - behind) / (2 * step)
    print(f"relative difference from the quotient {(found - quotient).norm() / quotient.norm():.0e}")
    assert (found - quotient).norm() < 1e-6 * quotient.norm()

# %%
# The two ways agree, and both agree with central differences, for which the whole nonlinear problem is solved ten
# times. Power warms its own block most. A larger exponent warms the hot blocks, from which less heat escapes sideways,
# and cools the rest.

figure, axes = plt.subplots(1, 3, figsize=(12.4, 3.9), layout="compressed", sharey=True)
cpu, gpu, exponent = (sensitivity[:, j].reshape(m, m).numpy() for j in (0, 1, 4))
for ax, derivative, name in zip(axes, (cpu, gpu), ("CPU", "GPU"), strict=False):
    image = ax.imshow(derivative, origin="lower", extent=extent, vmin=0, vmax=cpu.max())
    outline(ax, "white", f"By the power of the {name}")
figure.colorbar(image, ax=axes[:2], label="K/W")
size = abs(exponent).max()
image = axes[2].imshow(exponent, origin="lower", extent=extent, cmap="RdBu_r", vmin=-size, vmax=size)
outline(axes[2], "black", "By the exponent p")
figure.colorbar(image, ax=axes[2], label="K")
axes[0].set_ylabel("y (mm)")
figure.suptitle("Derivatives of the temperature")
plt.show()
