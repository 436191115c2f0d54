"""The plate of the two conductivity examples: mesh, element matrices and measurements, in NumPy and scikit-fem."""

from dataclasses import dataclass

import numpy as np
from scipy.sparse.linalg import splu
from scipy.spatial import Delaunay
from skfem import Basis, BilinearForm, ElementTriP0, ElementTriP1, LinearForm, MeshTri
from skfem.helpers import dot, grad
from skfem.models.poisson import laplace

HOLE, RADIUS = np.array([0.42, 0.55]), 0.14  # of the hole in the plate of 1 m by 1 m, in metres
SOURCES = np.array([[0.2, 0.25], [0.5, 0.2], [0.8, 0.3], [0.2, 0.8], [0.55, 0.82], [0.8, 0.7]])


def triangulated(h):
    """The plate in triangles of about size h: a shaken hexagonal lattice, triangulated and smoothed."""
    rng = np.random.default_rng(0)
    x, y = np.meshgrid(np.arange(h, 1 - h / 2, h), np.arange(h, 1 - h / 2, h * np.sqrt(3) / 2))
    x[::2] += h / 2
    inner = np.stack([x.ravel(), y.ravel()], axis=1) + rng.uniform(-0.3 * h, 0.3 * h, (x.size, 2))
    inner = inner[(inner < 1 - h / 2).all(1) & (np.hypot(*(inner - HOLE).T) > RADIUS + 0.6 * h)]
    side = np.linspace(0, 1, round(1 / h) + 1)[:-1]
    angle = np.linspace(0, 2 * np.pi, round(2 * np.pi * RADIUS / h) + 1)[:-1]
    edges = [(side, 0 * side), (1 + 0 * side, side), (1 - side, 1 + 0 * side), (0 * side, 1 - side)]
    rim = HOLE[:, None] + RADIUS * np.stack([np.cos(angle), np.sin(angle)])
    points = np.concatenate([inner, *(np.stack(edge, axis=1) for edge in edges), rim.T])
    for _ in range(4):
        triangles = Delaunay(points).simplices
        triangles = triangles[np.hypot(*(points[triangles].mean(1) - HOLE).T) > RADIUS]
        total, count = np.zeros_like(points), np.zeros(len(points))
        np.add.at(total, triangles, points[triangles].sum(1, keepdims=True))
        np.add.at(count, triangles, 3.0)
        points[: len(inner)] = (total / count[:, None])[: len(inner)]
    return MeshTri(np.ascontiguousarray(points.T), np.ascontiguousarray(triangles.T))


def true_conductivity(x, y):
    """In W/(m K): concrete, with a disc that conducts three times better and a bar of insulation."""
    disc = np.hypot(x - 0.74, y - 0.42) < 0.14
    bar = (abs(x - 0.32) < 0.2) & (abs(y - 0.24) < 0.06)
    return np.where(disc, 3.0, np.where(bar, 0.3, 1.0))


def loads(basis):
    """The right-hand sides of all sources, shape (nodes, sources): spots of heat, 100 W per metre of thickness each."""
    width = 0.06

    def load(centre):
        density = lambda x: np.exp(-((x[0] - centre[0]) ** 2 + (x[1] - centre[1]) ** 2) / (2 * width**2))  # noqa: E731
        vector = LinearForm(lambda v, w: density(w.x) * v).assemble(basis)
        return 100 * vector / vector.sum()

    return np.stack([load(centre) for centre in SOURCES], axis=1)


def outer_nodes(mesh):
    """Nodes on the outer edge, which is kept at ambient temperature. The rim of the hole is insulated."""
    return np.flatnonzero((mesh.p == 0).any(0) | (mesh.p == 1).any(0))


@dataclass
class Plate:
    """A(kappa) = sum of kappa[element] * local at (row, col), on the nodes that are not held at ambient temperature."""

    mesh: MeshTri
    free: np.ndarray  # (n,), nodes whose temperature is unknown
    row: np.ndarray  # (nse,), numbers of unknowns
    col: np.ndarray  # (nse,)
    local: np.ndarray  # (nse,), entries of the element matrices for unit conductivity
    element: np.ndarray  # (nse,), the triangle of each
    B: np.ndarray  # (n, sources), in W/m
    jump: np.ndarray  # (edges, 2), the triangles on the two sides of each inner edge
    length: np.ndarray  # (edges,), in m
    sensors: np.ndarray  # (s,), numbers of unknowns
    data: np.ndarray  # (s, sources), temperatures above ambient, in K
    sigma: float  # standard deviation of their noise, in K


def plate(h=1 / 56):
    mesh = triangulated(h)
    basis = Basis(mesh, ElementTriP1())
    free = np.setdiff1d(np.arange(mesh.nvertices), outer_nodes(mesh))
    number = np.full(mesh.nvertices, -1)
    number[free] = np.arange(free.size)

    local = laplace.coo_data(basis).tolocal()  # (elements, 3, 3)
    row, col = np.broadcast_arrays(number[mesh.t.T][:, :, None], number[mesh.t.T][:, None, :])
    element = np.broadcast_to(np.arange(mesh.nelements)[:, None, None], local.shape)
    stays = (row >= 0) & (col >= 0)  # the others multiply temperatures that are zero

    inner = np.flatnonzero(mesh.f2t[1] >= 0)
    ends = mesh.p[:, mesh.facets[:, inner]]
    rng = np.random.default_rng(1)
    sensors = np.sort(rng.choice(free.size, free.size // 4, replace=False))
    exact = temperatures_on_finer_mesh(mesh)[free[sensors]]
    sigma = 0.1
    return Plate(
        mesh=mesh,
        free=free,
        row=row[stays],
        col=col[stays],
        local=local[stays],
        element=element[stays],
        B=loads(basis)[free],
        jump=mesh.f2t[:, inner].T,
        length=np.hypot(*(ends[:, 1] - ends[:, 0])),
        sensors=sensors,
        data=exact + sigma * rng.standard_normal(exact.shape),
        sigma=sigma,
    )


def temperatures_on_finer_mesh(mesh):
    """The experiment, at the nodes of the mesh: with four triangles for each one, and solved by SciPy."""
    fine = mesh.refined()  # whose first nodes are those of the mesh
    assert np.array_equal(fine.p[:, : mesh.nvertices], mesh.p)
    basis = Basis(fine, ElementTriP1())
    kappa = basis.with_element(ElementTriP0()).interpolate(true_conductivity(*fine.p[:, fine.t].mean(1)))
    A = BilinearForm(lambda u, v, w: w.kappa * dot(grad(u), grad(v))).assemble(basis, kappa=kappa)
    free = np.setdiff1d(np.arange(fine.nvertices), outer_nodes(fine))
    temperatures = np.zeros((fine.nvertices, len(SOURCES)))
    temperatures[free] = splu(A.tocsc()[free][:, free]).solve(loads(basis)[free])
    return temperatures[: mesh.nvertices]
