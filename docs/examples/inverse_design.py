r"""
Inverse design: a wavelength splitter
=====================================

Light of two colours arrives in one waveguide. Which arrangement of material sends one colour to the upper output and
the other to the lower? There is no formula for it. But what arrives can be differentiated with respect to the
permittivity of every pixel, for the price of one more solve, and a design is then found by gradient ascent.

A field :math:`u` with wave number :math:`k = 2 \pi / \lambda`, polarised out of the plane, obeys the Helmholtz
equation

.. math:: \Delta u + k^2 \varepsilon u = f.

Its matrix is complex, indefinite and not symmetric: a case for :data:`tsgu.direct`, whose LU factors serve the forward
and the adjoint solve.
"""

import matplotlib.pyplot as plt
import numpy as np
import scipy.linalg
import scipy.sparse as sp
import torch

import tsgu

# %%
# The structure
# -------------
# Lengths are in micrometres. One guide comes from the left, two leave to the right. In the square between them each
# pixel may be anything from air to silicon nitride.

h, nx, ny = 0.04, 160, 120  # size and number of pixels
absorber = 20  # pixels at each side that absorb what leaves
air, nitride = 1.0, 4.0  # relative permittivity
box = (slice(40, 120), slice(24, 96))
across = torch.arange(ny) + 0.5


def guide(shift):
    """Permittivity across a guide of width 0.4, ``shift`` pixels above the middle."""
    return torch.where((across - ny / 2 - shift).abs() < 5, nitride, air).double()


straight = guide(0).expand(nx, ny)
given = straight.clone()
given[nx // 2 :] = torch.maximum(guide(24), guide(-24))

# %%
# The matrix
# ----------
# Waves must leave without an echo. Near the boundary the coordinate is bent into the complex plane, where
# :math:`e^{ikx}` decays: :math:`\partial_x` becomes :math:`s^{-1} \partial_x` with :math:`s = 1 + i \sigma(x) / k`. So
# the matrix is complex. It is not symmetric, because the entry that couples two neighbours is divided by the :math:`s`
# of its row, which differs between the two. Nothing has to be done about it: the adjoint solves with the transpose.


def stretching(position, n, k):
    depth = np.maximum(absorber - position, position - (n - absorber)).clip(0) / absorber
    return sp.diags_array(1 / (1 + 40j * depth**3 / k))


def second_derivative(n, k):
    difference = sp.diags_array([1.0, -1.0], offsets=[0, -1], shape=(n + 1, n)) / h
    centres, faces = stretching(np.arange(n) + 0.5, n, k), stretching(np.arange(n + 1), n, k)
    return -centres @ difference.T @ faces @ difference


# %%
# A guide carries light in the shape of a *mode*, the leading eigenvector of the problem across it. The mode is the
# source on the left; on the right, the overlap with it is what arrived. The unit of both is a guide that goes straight
# through, so a transmission of 1 means that nothing is lost.
#
# Of the matrix only the diagonal depends on the design. :meth:`tsgu.SparseMatrix.from_scipy` reads the Laplacian once,
# with its pattern, and :math:`k^2 \varepsilon` is added to the entries on the diagonal.


class Colour:
    def __init__(self, wavelength):
        self.k = 2 * np.pi / wavelength
        laplacian = sp.kronsum(second_derivative(ny, self.k), second_derivative(nx, self.k))
        self.laplacian = tsgu.SparseMatrix.from_scipy(laplacian)
        self.diagonal = self.laplacian.pattern.row == self.laplacian.pattern.col
        _, modes = scipy.linalg.eigh_tridiagonal(
            self.k**2 * guide(0).numpy() - 2 / h**2,
            np.full(ny - 1, 1 / h**2),
            select="i",
            select_range=(ny - 1, ny - 1),
        )
        self.mode = torch.from_numpy(modes[:, 0]).to(torch.complex128)
        self.source = torch.zeros(nx, ny, dtype=torch.complex128)
        self.source[absorber + 2] = self.mode
        self.unit = self.field(straight)[-absorber - 3] @ self.mode

    def field(self, permittivity):
        shift = self.k**2 * permittivity.flatten()[self.laplacian.pattern.row]
        A = self.laplacian.with_values(self.laplacian.values + self.diagonal * shift)
        return tsgu.sparse_generic_solve(A, self.source.flatten(), solve=tsgu.direct).reshape(nx, ny)

    def transmissions(self, permittivity):
        """What arrives in the upper and in the lower output."""
        there = self.field(permittivity)[-absorber - 3]
        return torch.stack([there @ self.mode.roll(shift) / self.unit for shift in (24, -24)]).abs() ** 2


colours = Colour(1.55), Colour(1.25)

# %%
# The design
# ----------
# One number per pixel. A blur over 0.12 forbids details too small to be made; a sigmoid, steeper from step to step,
# drives the material to one of the two.

y, x = np.mgrid[-3:4, -3:4]
cone = torch.from_numpy((3.5 - np.hypot(x, y)).clip(0))[None, None]


def permittivity_of(theta, steepness):
    padded = torch.nn.functional.pad(theta[None, None], (3, 3, 3, 3), mode="replicate")
    density = torch.sigmoid(steepness * torch.nn.functional.conv2d(padded, cone / cone.sum())[0, 0])
    permittivity = given.clone()
    permittivity[box] = air + (nitride - air) * density
    return permittivity


def transmissions(permittivity):
    """A row for each colour, a column for each output."""
    return torch.stack([colour.transmissions(permittivity) for colour in colours])


# %%
# Before anything is built on a gradient, it is compared with a central difference, here in a direction at random. The
# trace counts what goes where it should.

torch.manual_seed(0)
theta, direction = torch.randn(2, 80, 72, dtype=torch.float64)
theta.requires_grad_()
(gradient,) = torch.autograd.grad(transmissions(permittivity_of(theta, 1)).trace(), theta)
with torch.no_grad():
    ahead, behind = (transmissions(permittivity_of(theta + e * direction, 1)).trace() for e in (1e-4, -1e-4))
torch.testing.assert_close((gradient * direction).sum(), (ahead - behind) / 2e-4, rtol=1e-6, atol=0)

# %%
# The ascent starts from an even mixture of the materials.

theta = torch.zeros(80, 72, dtype=torch.float64, requires_grad=True)
optimiser = torch.optim.Adam([theta], lr=0.1, maximize=True)
steps, course = 60, []
with tsgu.record() as log:
    for step in range(steps):
        optimiser.zero_grad()
        reached = transmissions(permittivity_of(theta, steepness=30 ** (step / steps)))
        reached.trace().backward()
        optimiser.step()
        course.append(reached.detach().diagonal())

# %%
# A step took four solves, two of them adjoint. Each ended with its true residual.

print(f"{len(log)} solves, the largest relative residual is {max(solve.residual for solve in log):.1e}")
assert len(log) == 4 * steps
assert sum(solve.transposed for solve in log) == 2 * steps
assert all(solve.converged and solve.residual < 1e-10 for solve in log)

# %%
# What came of it
# ---------------
# Rounded to the two materials, as it would be made, the design still works. Rows are colours, columns are outputs.

before = permittivity_of(torch.zeros_like(theta), 1)
after = torch.where(permittivity_of(theta.detach(), 30) > (air + nitride) / 2, nitride, air).double()
first, last = transmissions(before), transmissions(after)
print(f"before\n{first.numpy().round(3)}\nafter\n{last.numpy().round(3)}")

torch.testing.assert_close(first[:, 0], first[:, 1])  # nothing in the mixture tells above from below
assert last.sum(dim=1).max() < 1  # no more comes out than went in
assert (last.diagonal() > 4 * first.diagonal()).all()
assert max(last[0, 1], last[1, 0]) < 0.02

# %%
# The fields are drawn with the outlines of the structure, in units of the amplitude in a guide that goes straight.

fig, axes = plt.subplots(2, 3, figsize=(12, 6.2), sharex=True, sharey=True, layout="constrained")
image = {"origin": "lower", "extent": (0, nx * h, 0, ny * h)}
for row, permittivity, when in zip(axes, (before.numpy(), after.numpy()), ("before", "after"), strict=True):
    material = row[0].imshow(permittivity.T, cmap="Blues", vmin=air, vmax=nitride, **image)
    row[0].set(title=f"Permittivity {when}", ylabel="y (µm)")
    for ax, colour, name in zip(row[1:], colours, ("1.55 µm", "1.25 µm"), strict=True):
        field = colour.field(torch.from_numpy(permittivity)) / colour.field(straight).abs().max()
        wave = ax.imshow(field.real.numpy().T, cmap="RdBu_r", vmin=-1, vmax=1, **image)
        ax.contour(permittivity.T, levels=[2.4], colors="black", linewidths=0.5, extent=image["extent"])
        ax.set(title=f"Field {when}, wavelength {name}")
for ax in axes[1]:
    ax.set_xlabel("x (µm)")
fig.colorbar(material, ax=axes[:, 0], label="relative permittivity", location="left", shrink=0.8)
fig.colorbar(wave, ax=axes[:, 2], label="real part of the field / incoming amplitude", shrink=0.8)

# %%

fig, ax = plt.subplots(figsize=(7, 3.5), layout="constrained")
ax.plot(torch.stack(course).numpy(), label=["1.55 µm to the upper output", "1.25 µm to the lower output"])
ax.set(title="Light that arrives where it should", xlabel="step", ylabel="transmission", ylim=(0, 1), xlim=(0, steps))
ax.grid(alpha=0.3)
ax.legend(loc="lower right")
plt.show()
