r"""
A Gaussian Markov random field, fitted by maximum likelihood
============================================================

The temperature of a lake was measured at one place in eight, with noise. What is it elsewhere, and how sure can one be?
A Gaussian Markov random field answers both by sparse linear algebra. The field :math:`u` has mean zero and the
*precision* (the inverse of the covariance)

.. math:: Q = \tau (\kappa^2 I + L)^2,

with the graph Laplacian :math:`L` of the cells of the lake: that of a Matérn field of range
:math:`\rho = \sqrt 8 / \kappa` and standard deviation :math:`s = (4 \pi \kappa^2 \tau)^{-1/2}` (Lindgren, Rue and
Lindström 2011). Given measurements :math:`y` with noise of standard deviation :math:`\sigma`, the precision becomes
:math:`P = Q + D / \sigma^2`, where the diagonal :math:`D` marks the cells that were measured. Here :math:`\rho`,
:math:`s` and :math:`\sigma` are learned from :math:`y`.
"""

import matplotlib.pyplot as plt
import numpy as np
import scipy.sparse as sp
import torch

import tsgu

# %%
# The model
# ---------
# A pier divides the lake. What counts is the way through the water, and the Laplacian knows it: cells on opposite sides
# of the pier are no neighbours. The boat that measured left out a disc on one side.


class Lake:
    def __init__(self, side):
        y, x = (np.mgrid[:side, :side] + 0.5) / side - 0.5
        self.water = (np.hypot(x, y) < 0.48) & ((abs(x) > 0.025) | (y > 0.15))
        path = sp.diags_array([1.0, 1.0], offsets=[-1, 1], shape=(side, side))
        cells = np.flatnonzero(self.water)
        W = sp.kronsum(path, path).tocsr()[cells][:, cells]
        L = sp.diags_array(W.sum(axis=0)) - W
        self.n = cells.size
        reached = torch.from_numpy(np.flatnonzero((np.hypot(x - 0.24, y) > 0.12)[self.water]))
        self.measured = reached[torch.randperm(len(reached))[: self.n // 8]]
        D = sp.diags_array(np.isin(np.arange(self.n), self.measured).astype(float))

        # Every matrix is a combination of these four, and stands on the pattern of the largest, row by row.
        place = (L @ L).sorted_indices().tocoo().coords
        self.pattern = tsgu.Pattern(*map(torch.from_numpy, place), (self.n, self.n))
        self.terms = [torch.from_numpy(X.tocsr()[place]) for X in (sp.eye_array(self.n), L, L @ L, D)]

    def matrices(self, theta):
        """The root of Q, Q and P, for the logarithms of range, standard deviation and noise."""
        length, s, sigma = theta.exp()
        kappa2 = 8 / length**2
        tau = 1 / (4 * torch.pi * kappa2 * s**2)
        eye, L, square, D = self.terms
        root = tau.sqrt() * (kappa2 * eye + L)
        Q = tau * (kappa2**2 * eye + 2 * kappa2 * L + square)
        return [self.pattern.matrix(values) for values in (root, Q, Q + D / sigma**2)]

    def preconditioners(self, theta):
        """For Q and P. Both are close to squares, so that a cycle of multigrid for the root is applied twice."""
        root = self.matrices(theta.detach())[0]
        shifted = root.with_values(root.values + self.terms[3] / theta[2].detach().exp())
        cycles = [tsgu.precond.amg(A) for A in (root, shifted)]
        return [lambda v, cycle=cycle: cycle(cycle(v)) for cycle in cycles]


# %%
# The likelihood
# --------------
# With :math:`b = y / \sigma^2` where something was measured and 0 elsewhere, and m measurements,
#
# .. math:: -2 \log p(y) = \log\det P - \log\det Q + 2 m \log \sigma + y^T y / \sigma^2 - b^T P^{-1} b + \text{const}.
#
# The solve in the last term is differentiated by tsgu. Determinants of large sparse matrices are out of reach of
# iterative methods, but their derivatives are not: :math:`d \log\det P = \operatorname{tr}(P^{-1} dP)` is the mean of
# :math:`z^T P^{-1} dP\, z` over random signs :math:`z` (Hutchinson 1989). So the product :math:`(P^{-1} z)^T P z`, with
# the first factor held fixed, stands in for the determinant: its gradient is right in expectation, its value means
# nothing. All signs are solved for at once, as columns. The same ones serve P and Q, whose errors largely cancel.


def stand_in(A, M, signs):
    solved = tsgu.linear_cg(A.detach(), signs, M=M, rtol=1e-4)
    return (solved * (A @ signs)).sum() / signs.shape[1]


def fit_to_data(lake, P, theta, y):
    sigma = theta[2].exp()
    b = torch.zeros(lake.n, dtype=torch.float64).index_copy(0, lake.measured, y) / sigma**2
    mean = tsgu.sparse_generic_solve(P, b, solve=tsgu.linear_cg, M=lake.preconditioners(theta)[1])
    return (2 * len(y) * theta[2] + y @ y / sigma**2 - b @ mean) / 2, mean


def gradient(lake, theta, y, signs):
    theta = theta.detach().requires_grad_()
    _, Q, P = lake.matrices(theta)
    for_Q, for_P = lake.preconditioners(theta)
    determinants = (stand_in(P, for_P, signs) - stand_in(Q, for_Q, signs)) / 2
    return torch.autograd.grad(determinants + fit_to_data(lake, P, theta, y)[0], theta)[0]


def random_signs(n, count):
    return torch.randint(2, (n, count)).double() * 2 - 1


# %%
# Nature draws a field, :math:`u = Q^{-1/2} w` with white noise :math:`w`.

truth = torch.tensor([20.0, 1.0, 0.3], dtype=torch.float64)  # range in cells, standard deviation and noise in kelvin


def measure(lake):
    root = lake.matrices(truth.log())[0]
    u = tsgu.linear_cg(root, torch.randn(lake.n, dtype=torch.float64), M=tsgu.precond.amg(root))
    return u, u[lake.measured] + truth[2] * torch.randn(len(lake.measured), dtype=torch.float64)


# %%
# Is the gradient right?
# ----------------------
# On a small lake everything can be computed from the dense covariance of y, by another formula. The mean of fifty
# estimates, from 32 signs each, has a standard error of a few per cent. The exact gradient must lie within four of it.

torch.manual_seed(0)
start = torch.tensor([8.0, 2.0, 0.6], dtype=torch.float64).log()
small = Lake(24)
_, y = measure(small)
estimates = torch.stack([gradient(small, start, y, random_signs(small.n, 32)) for _ in range(50)])
mean, error = estimates.mean(dim=0), estimates.std(dim=0) / 50**0.5

theta = start.clone().requires_grad_()
prior = torch.linalg.inv(small.matrices(theta)[1].to_dense())
covariance = prior[small.measured][:, small.measured] + (2 * theta[2]).exp() * torch.eye(len(y))
(exact,) = torch.autograd.grad((torch.logdet(covariance) + y @ torch.linalg.solve(covariance, y)) / 2, theta)
print(f"exact    {exact.numpy().round(2)}\nestimate {mean.numpy().round(2)}\nerror    {error.numpy().round(2)}")
assert ((mean - exact).abs() < 4 * error).all()
assert (error < 0.05 * exact.abs()).all()

# %%
# The fit
# -------
# The same signs serve in every step. So the gradient is a smooth function, and a quasi-Newton method, which asks for
# gradients alone, gets there in a dozen steps.

lake = Lake(80)
field, y = measure(lake)
signs = random_signs(lake.n, 32)
theta = start.clone().requires_grad_()
optimiser = torch.optim.LBFGS([theta], lr=1, max_iter=1)
course = [start.exp()]


def closure():
    theta.grad = gradient(lake, theta, y, signs)
    return 0.0  # the likelihood itself, which is not used


with tsgu.record() as log:
    for _ in range(16):
        optimiser.step(closure)
        course.append(theta.detach().exp())
fitted = theta.detach()
print(f"{len(log)} solves with {lake.n} unknowns took at most {max(solve.iterations for solve in log)} iterations")
assert all(solve.converged for solve in log)
assert theta.grad.norm() < 0.1

# %%
# How far off may the result be? For many measurements, the inverse of the second derivative of :math:`-\log p` is the
# covariance of the parameters; differences of the gradient give it. Other signs would have led to slightly other
# parameters; how much, is seen from the gradients that they have here. The error is that of both.

ahead, behind = (torch.stack([gradient(lake, fitted + e, y, signs) for e in d * torch.eye(3)]) for d in (0.01, -0.01))
inverse = torch.linalg.inv((ahead - behind) / 0.02)
others = torch.stack([gradient(lake, fitted, y, random_signs(lake.n, 32)) for _ in range(8)])
by_data, by_signs = inverse.diagonal().sqrt(), (others @ inverse).std(dim=0)
error = (by_data**2 + by_signs**2).sqrt()
for name, *row in zip(("range", "deviation", "noise"), truth, fitted.exp(), by_data, by_signs, strict=True):
    print("{:10}true {:5.2f}, fitted {:5.2f}, relative error by data {:.3f}, by signs {:.3f}".format(name, *row))
assert ((fitted - truth.log()).abs() < 3 * error).all()
assert (error < 0.25).all()  # the start was off by 0.7 to 0.9

# %%

names = ("range (cells)", "standard deviation (K)", "noise (K)")
fig, axes = plt.subplots(1, 3, figsize=(10, 3.2), layout="constrained")
for ax, values, e, true, name in zip(axes, torch.stack(course).T.numpy(), error.numpy(), truth, names, strict=True):
    ax.plot(values, marker=".", label="fit")
    ax.errorbar(16, values[-1], 2 * e * values[-1], color="C0", capsize=3, label="two standard errors")
    ax.axhline(true, color="black", linestyle="--", label="truth")
    ax.set(title=name, xlabel="step", ylim=(0, None))
axes[2].legend()

# %%
# The answer
# ----------
# The posterior mean is one solve. For the standard deviation the posterior is sampled: solving for a right-hand side of
# covariance :math:`P` gives a sample of covariance :math:`P^{-1}`, and 200 of them are solved for at once. This leaves
# a relative standard error of :math:`1 / \sqrt{400}`, 5 %. Ten exact deviations, from columns of :math:`P^{-1}`, must
# lie within four of it.

root, _, P = lake.matrices(fitted)
M = lake.preconditioners(fitted)[1]
mean = fit_to_data(lake, P, fitted, y)[1]
right_hand_sides = root @ torch.randn(lake.n, 200, dtype=torch.float64)
right_hand_sides[lake.measured] += torch.randn(len(y), 200, dtype=torch.float64) / fitted[2].exp()
deviation = tsgu.linear_cg(P, right_hand_sides, M=M).square().mean(dim=1).sqrt()

cells, ten = torch.randperm(lake.n)[:10], torch.arange(10)
columns = torch.zeros(lake.n, 10, dtype=torch.float64)
columns[cells, ten] = 1.0
exact = tsgu.linear_cg(P, columns, M=M)[cells, ten].sqrt()
torch.testing.assert_close(deviation[cells], exact, rtol=0.2, atol=0)

# %%
# The truth is known here, so the answer can be judged. Two standard deviations should cover 95.4 % of it. They inherit
# the errors of the parameters, though: off by a tenth, they cover 92.8 % or 97.2 %. And neighbouring cells are right or
# wrong together, which adds about one per cent.

there, elsewhere = lake.measured, torch.from_numpy(np.setdiff1d(np.arange(lake.n), lake.measured))
noise, error = (y - field[there]).square().mean().sqrt(), (mean - field)[there].square().mean().sqrt()
covered = ((mean - field).abs() < 2 * deviation)[elsewhere].double().mean()
print(f"Where measured, the error of the measurement is {noise:.2f} K, that of the posterior mean {error:.2f} K.")
print(f"Elsewhere, {covered:.1%} of the truth lies within two standard deviations.")
assert error < 0.8 * noise
assert 0.91 < covered < 0.99

# %%

fig, axes = plt.subplots(2, 2, figsize=(9, 8), layout="constrained")
measurements = torch.full((lake.n,), torch.nan, dtype=torch.float64).index_copy(0, there, y)
signed = {"cmap": "RdBu_r", "vmin": -field.abs().max(), "vmax": field.abs().max()}
panels = {
    "True field": (field, "temperature, average removed (K)", signed),
    "Measurements": (measurements, "temperature, average removed (K)", signed),
    "Posterior mean": (mean, "temperature, average removed (K)", signed),
    "Posterior standard deviation": (deviation, "standard deviation (K)", {"cmap": "viridis", "vmin": 0}),
}
for ax, (title, (values, label, style)) in zip(axes.flat, panels.items(), strict=True):
    picture = np.full(lake.water.shape, np.nan)
    picture[lake.water] = values
    image = ax.imshow(picture, origin="lower", **style)
    ax.contour(lake.water, levels=[0.5], colors="black", linewidths=0.8)
    ax.set_title(title)
    ax.axis("off")
    fig.colorbar(image, ax=ax, label=label, shrink=0.85)
plt.show()
