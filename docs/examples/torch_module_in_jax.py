"""
A torch module with a solve inside, trained in JAX
==================================================

Heat spreads over a network of bars and is lost to the air at every joint. At a third of the joints the temperature was
measured. How well does each bar conduct? A neural network maps the place of a bar to its conductance, a sparse solve
maps conductances to temperatures, and together they are one ``torch.nn.Module``. If the rest of the project is written
in JAX, the module need not be written again: `torch2jax <https://pypi.org/project/torch2jax/>`_ makes a JAX function of
it, for ``jit``, ``grad`` and optax, and the solve inside becomes that of ``tsgu_jax``.
"""

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
import torch
import torch2jax
from matplotlib.collections import LineCollection
from scipy.spatial import Delaunay, KDTree

import tsgu
import tsgu_jax
from tsgu_jax.interop import to_jax, to_torch  # importing it tells torch2jax about sparse solves

# %%
# The network
# -----------
# Joints stand on a grid, moved at random, and the bars between them are the edges of a triangulation.

rng = np.random.default_rng(0)
side = 30
joints = (np.mgrid[:side, :side].reshape(2, -1).T + rng.uniform(-0.3, 0.3, (side**2, 2))) / (side - 1)
n = len(joints)
corners = Delaunay(joints).simplices
bars = np.unique(np.sort(corners[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2)), axis=0)
bars = bars[np.linalg.norm(joints[bars[:, 0]] - joints[bars[:, 1]], axis=1) < 2 / side]
middles = joints[bars].mean(axis=1)

# %%
# The module
# ----------
# A bar of conductance c between the joints i and j adds c to the entries (i, i) and (j, j) of the matrix, and -c to
# (i, j) and (j, i); a joint adds what it loses to the air. :meth:`tsgu.SparseMatrix.from_coo` adds what is given for
# one place. All that is owed to torch2jax is that the indices are plain attributes: it makes a parameter of every
# buffer.


class Bars(torch.nn.Module):
    def __init__(self, features):
        super().__init__()
        self.conductance = torch.nn.Sequential(
            torch.nn.Linear(features, 32),
            torch.nn.Tanh(),
            torch.nn.Linear(32, 32),
            torch.nn.Tanh(),
            torch.nn.Linear(32, 1),
        )
        i, j = torch.from_numpy(bars.T)
        joint = torch.arange(n)
        self.row, self.col = torch.cat([i, j, i, j, joint]), torch.cat([i, j, j, i, joint])

    def forward(self, place, heat):
        c = torch.exp(self.conductance(place)).flatten()
        values = torch.cat([c, c, -c, -c, torch.full((n,), 0.05)])
        A = tsgu.SparseMatrix.from_coo(self.row, self.col, values, (n, n))
        return tsgu.sparse_generic_solve(A, heat, solve=tsgu.direct)


# %%
# Networks find fine detail more easily from waves than from coordinates.

waves = 4 * rng.standard_normal((2, 16))
place = torch.from_numpy(np.hstack([np.sin(middles @ waves), np.cos(middles @ waves)])).float()
torch.manual_seed(0)
module = Bars(place.shape[1])

# %%
# In truth a ring conducts badly, and the left side better than the right one. In each of 16 experiments one joint
# is heated.

radius = np.linalg.norm(middles - 0.5, axis=1)
true = np.exp(0.5 * np.sin(6 * middles[:, 0]) - 3 * np.exp(-(((radius - 0.3) / 0.06) ** 2)))


def temperatures(conductance, heat):
    """By numpy.linalg, for the truth."""
    A = 0.05 * np.eye(n)
    i, j = bars.T
    for row, col, sign in ((i, i, 1), (j, j, 1), (i, j, -1), (j, i, -1)):
        np.add.at(A, (row, col), sign * conductance)
    return np.linalg.solve(A, heat)


_, heated = KDTree(joints).query(np.mgrid[0.1:0.9:4j, 0.1:0.9:4j].reshape(2, -1).T)
heat = np.eye(n)[:, heated]
seen = np.sort(rng.choice(n, n // 3, replace=False))
noise = 0.002
measured = temperatures(true, heat)[seen] + noise * rng.standard_normal((len(seen), 16))
heat, measured = torch.from_numpy(heat).float(), torch.from_numpy(measured).float()

# %%
# From torch to JAX
# -----------------
# The parameters travel as a dictionary. Loss and gradients of the JAX function are those of the module.

f = torch2jax.t2j(module)
parameters = {name: to_jax(value, copy=True) for name, value in module.state_dict().items()}
place_jax, heat_jax, measured_jax = map(to_jax, (place, heat, measured))


def loss(parameters):
    x = f(place_jax, heat_jax, state_dict=parameters)
    return jnp.mean(((x[seen] - measured_jax) / noise) ** 2)


value, gradients = jax.jit(jax.value_and_grad(loss))(parameters)

expected = (((module(place, heat)[seen] - measured) / noise) ** 2).mean()
expected.backward()
np.testing.assert_allclose(value, expected.detach(), rtol=1e-5)
for name, parameter in module.named_parameters():
    error = np.linalg.norm(gradients[name] - parameter.grad.numpy()) / np.linalg.norm(parameter.grad)
    print(f"{name:22} relative difference of the gradients {error:.1e}")
    assert error < 1e-4  # single precision, and a condition number of some hundreds

# %%
# The training
# ------------
# From here on it is ordinary JAX. Measured in units of the noise, a perfect fit has a loss of 1.

steps = 500
optimiser = optax.adam(optax.cosine_decay_schedule(1e-2, steps))


@jax.jit
def step(parameters, state):
    value, gradients = jax.value_and_grad(loss)(parameters)
    updates, state = optimiser.update(gradients, state)
    return optax.apply_updates(parameters, updates), state, value


state = optimiser.init(parameters)
losses = []
with tsgu_jax.record() as log:
    for _ in range(steps):
        parameters, state, value = step(parameters, state)
        losses.append(float(value))
print(f"loss {losses[0]:.1f} at first, {losses[-1]:.3f} at last; {len(log)} solves")
assert losses[-1] < losses[0] / 50
assert losses[-1] < 1.1
assert len(log) == 2 * steps
assert all(solve.converged for solve in log)

# %%
# Back to torch
# -------------
# The trained parameters are loaded into the module. It has found the ring, and predicts an experiment that it has not
# seen, at joints where nothing was ever measured: one in the middle is heated.

module.load_state_dict({name: to_torch(value) for name, value in parameters.items()})
new = np.eye(n)[:, KDTree(joints).query([0.5, 0.5])[1]]
with torch.no_grad():
    learned = torch.exp(module.conductance(place)).flatten().numpy()
    predicted = module(place, torch.from_numpy(new).float()).numpy()

unseen = np.setdiff1d(np.arange(n), seen)
expected, predicted = temperatures(true, new)[unseen], predicted[unseen]
error = np.linalg.norm(predicted - expected) / np.linalg.norm(expected)
off = np.abs(np.log(learned / true)).mean()
print(f"conductances are off by {off:.1%} on average, predicted temperatures by {error:.1%}")
assert off < 0.1
assert error < 0.05

# %%

fig, axes = plt.subplots(1, 2, figsize=(10, 5.2), sharex=True, sharey=True, layout="compressed")
for ax, conductance, title in zip(axes, (true, learned), ("True conductances", "Learned conductances"), strict=True):
    lines = LineCollection(joints[bars], array=conductance, norm="log", cmap="viridis", linewidths=2)
    lines.set_clim(true.min(), true.max())
    ax.add_collection(lines)
    ax.set(title=title, aspect="equal", xlabel="x (m)")
axes[0].plot(*joints[seen].T, "o", color="black", markersize=3, label="measured")
axes[0].plot(*joints[heated].T, "^", color="red", markersize=7, label="heated")
axes[0].set_ylabel("y (m)")
fig.legend(loc="outside lower center", ncols=2)
fig.colorbar(lines, ax=axes, label="conductance (W/K)")

# %%

fig, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
left.semilogy(losses)
left.axhline(1, color="black", linestyle="--", linewidth=1, label="noise of the measurements")
left.set(title="Training", xlabel="step", ylabel="mean square misfit / variance of the noise")
left.legend()
right.loglog(expected, predicted, ".")
right.loglog([1e-3, 0.3], [1e-3, 0.3], color="black", linestyle="--", linewidth=1, label="equality")
right.set(title="An experiment not seen", xlabel="true temperature (K)", ylabel="predicted temperature (K)")
right.legend()
plt.show()
