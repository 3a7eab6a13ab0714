"""A procedural, protein-like model: what a reconstruction is tested on when the answer must be known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from verglas.errors import InputError
from verglas.simulate.density import check_fits
from verglas.simulate.model import Model
from verglas.simulate.noise import stream
from verglas.types.arrays import FloatArray, any_arrays

# An alpha helix rises 1.5 A and turns 100 degrees per residue (Pauling, Corey and Branson 1951). On a hexagonal lattice
# of 10.2 A a residue of 110 Da then has 135 A^3: the 0.81 Da/A^3 of proteins (Matthews 1968; Fischer et al. 2004).
_RISE_A, _TURN_DEG, _SPACING_A = 1.5, 100.0, 10.2
# Scattering at k = 0 in carbon atoms: N + C + C + O with their hydrogens, and what the mean residue has beyond that.
_BACKBONE, _SIDE_CHAIN = 4.1, 5.0
# Backbone and side chain as one blob each: the spread of their atoms and thermal motion.
_B_FACTORS_A2 = np.array([30.0, 50.0])
_FILL = 0.32  # share of the enclosing sphere that is protein
_SMALLEST_A = 30.0  # diameter whose sphere holds the smallest asymmetric unit, some 40 residues
_SCALES = np.linspace(0.85, 1.2, 15)
_CLEARANCE_A = 2.5  # from the boundary of the asymmetric unit: copies stay 5 A apart
_PROBES = 20000  # points that measure how much of the sphere a shape takes

# Where the centres of domains lie, in a sphere of radius 1 about the origin; the z axis is that of Cn and Dn.
_SHAPES: dict[str, Callable[[FloatArray], npt.NDArray[np.bool_]]] = {
    "globule": lambda p: np.ones(len(p), bool),
    "rod": lambda p: np.hypot(p[:, 0], p[:, 1]) < 0.25,
    "disc": lambda p: np.abs(p[:, 2]) < 0.2,
    "ring": lambda p: (np.abs(np.hypot(p[:, 0], p[:, 1]) - 0.65) < 0.15) & (np.abs(p[:, 2]) < 0.3),
    "shell": lambda p: np.linalg.norm(p, axis=1) > 0.6,
    "dumbbell": lambda p: (np.abs(p[:, 2]) > 0.45) | (np.hypot(p[:, 0], p[:, 1]) < 0.12),
    "arch": lambda p: (np.abs(np.hypot(p[:, 0], p[:, 1]) - 0.65) < 0.2) & (np.abs(p[:, 2]) < 0.25) & (p[:, 1] > -0.15),
    "cone": lambda p: np.hypot(p[:, 0], p[:, 1]) < 0.35 * (1 - p[:, 2]),
}
SHAPES = tuple(_SHAPES)


@dataclass(frozen=True)
class _Domain:
    centre_A: FloatArray
    radius_A: float
    frame: FloatArray  # (3, 3): rows are the axes of the ellipsoid; helices run along the last
    aspect: FloatArray  # (3,) semi-axes / radius, product 1

    def contains(self, points: FloatArray) -> npt.NDArray[np.bool_]:
        local = (points - self.centre_A) @ self.frame.T / (self.radius_A * self.aspect)
        return (local**2).sum(-1) <= 1.0

    def scale_by(self, factor: float) -> _Domain:
        return replace(self, centre_A=self.centre_A * factor, radius_A=self.radius_A * factor)

    @property
    def reach_A(self) -> float:
        return float(np.linalg.norm(self.centre_A) + self.radius_A * self.aspect.max())


def phantom(
    box: int, pixel_size_A: float, diameter_A: float, symmetry: str = "C1", seed: int = 0, shape: str = "globule"
) -> Model:
    """Protein-like pseudo-atoms: bundles of alpha helices of several sizes, packed into one asymmetric particle.

    Ellipsoidal domains touch one another inside the asymmetric unit (the cell of the points nearer to it than to its
    copies), each filled with parallel helices on a hexagonal lattice at the density of protein. A residue is two
    pseudo-atoms, backbone and side chain, with the scattering of the carbon atoms they stand for. There are no loops
    between helices and no cofactors.

    Parameters
    ----------
    box, pixel_size_A : int, float
        Grid the phantom has to fit (checked; the atoms do not depend on it).
    diameter_A : float
        Diameter of the sphere about the origin that the model reaches, at least 30 A times the
        cube root of the group's order.
    symmetry : str
        Point group (Cn, Dn, T, O, I1 to I4); C1 is clearly asymmetric.
    seed : int
        The same seed gives the same model.
    shape : {"globule", "rod", "disc", "ring", "shell", "dumbbell", "arch", "cone"}
        What the domains make up: all of the sphere; a rod, two lobes or a cone along z; a disc, a ring or an open arch
        about it; a hollow ball.

    Returns
    -------
    Model
        About 0.0024 diameter_A^3 pseudo-atoms for a globule, centre of mass at the origin.

    Raises
    ------
    InputError
        The diameter is too small for the group and shape, or does not fit the box; no such shape.

    Examples
    --------
    >>> from verglas import simulate
    >>> m = simulate.phantom(box=64, pixel_size_A=2.0, diameter_A=80)
    >>> 900 < len(m) < 1400, round(m.radius_A) in (38, 39, 40)
    (True, True)
    """
    from verglas.geometry import symmetry_matrices

    if shape not in _SHAPES:
        raise InputError(f"phantom: expected a shape of {', '.join(SHAPES)}, got {shape!r}")
    operators = symmetry_matrices(symmetry)
    order = len(operators)
    smallest_A = _SMALLEST_A * order ** (1 / 3)
    if not diameter_A >= smallest_A:
        raise InputError(
            f"phantom: expected a diameter of at least {smallest_A:.0f} A for {symmetry} ({order} copies), "
            f"got {diameter_A:g}"
        )
    rng = stream(seed, 0)
    planes = _cell_planes(operators, rng)
    domains = _layout(planes, order, rng, shape)
    full = diameter_A / 2 / max((d.reach_A for d in domains), default=1.0)
    # Helices end where a domain does, so the atoms reach less far than the ellipsoids: of several scales of the layout
    # take the one that comes nearest to the diameter from below, and let the last few percent be a plain dilation.
    best: Model | None = None
    for scale in full * _SCALES:
        unit = _fill([d.scale_by(scale) for d in domains], planes, stream(seed, 1))
        model = None if unit is None else unit.symmetrise(symmetry).recentre()
        if model and 2 * model.radius_A <= diameter_A and (best is None or model.radius_A > best.radius_A):
            best = model
    if best is None:
        raise InputError(
            f"phantom: no residue fits the asymmetric unit of {symmetry} ({shape}) in {diameter_A:g} A; make it larger"
        )
    xyz = best.xyz_A * (diameter_A / 2 / best.radius_A)
    kind = "phantom" if shape == "globule" else shape
    best = replace(best, xyz_A=xyz, name=f"{kind} {symmetry} {diameter_A:g} A seed {seed}")
    check_fits(best, box, pixel_size_A, rotated=True)
    return best


def _cell_planes(operators: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Unit normals of the planes that bound the asymmetric unit: r is inside if r . n >= 0 for all.

    The cell holds the points nearer to a direction p than to its copies; of 200 random directions the one farthest
    from its copies is taken, which makes the cell compact.
    """
    others = operators[~np.isclose(np.trace(operators, axis1=1, axis2=2), 3.0)]
    if len(others) == 0:
        return np.zeros((0, 3))
    directions = rng.standard_normal((200, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    differences = directions[:, None] - np.einsum("gij,dj->dgi", others, directions)
    best = differences[np.argmax((differences**2).sum(-1).min(1))]
    return best / np.linalg.norm(best, axis=1, keepdims=True)


def _volume_share(shape: str) -> float:
    """Of the sphere, what a shape takes."""
    probes = np.random.default_rng(0).uniform(-1, 1, (_PROBES, 3))
    probes = probes[np.linalg.norm(probes, axis=1) <= 1]
    return float(_SHAPES[shape](probes).mean())


def _layout(planes: FloatArray, order: int, rng: np.random.Generator, shape: str) -> list[_Domain]:
    """Touching ellipsoids of decreasing size inside the cell, the unit sphere and the shape."""
    fill = _FILL * _volume_share(shape)
    unit_radius = (fill / order) ** (1 / 3)  # of a sphere with the volume of the asymmetric unit, R = 1
    largest, smallest = (0.62, 0.34) if order == 1 else (0.75, 0.42)
    placed: list[_Domain] = []
    volume = 0.0
    while volume < fill / order and len(placed) < 40:
        share = min(1.0, volume * order / fill)
        size = unit_radius * (largest + (smallest - largest) * share)
        domain = None
        while domain is None and size > 0.2 * unit_radius:
            domain = _place(size, placed, planes, rng, shape)
            size *= 0.85 if domain is None else 1.0
        if domain is None:
            break
        placed.append(domain)
        volume += size**3
    if order == 1:  # with symmetry the frame is fixed by the axes
        centre = np.average([d.centre_A for d in placed], axis=0, weights=[d.radius_A**3 for d in placed])
        placed = [replace(d, centre_A=d.centre_A - centre) for d in placed]
    return placed


def _place(
    size: float, placed: list[_Domain], planes: FloatArray, rng: np.random.Generator, shape: str
) -> _Domain | None:
    """A domain of radius ``size`` in the unit ball and the shape that touches the others; None if there is no room."""
    for _ in range(50):
        centres = rng.uniform(-1, 1, (2000, 3))
        good = np.linalg.norm(centres, axis=1) <= 1 - 1.2 * size
        good &= (centres @ planes.T >= 0.7 * size).all(1)
        good &= _SHAPES[shape](centres)
        if placed:
            gaps = [np.linalg.norm(centres - d.centre_A, axis=1) - size - d.radius_A for d in placed]
            nearest = np.min(gaps, axis=0)
            good &= (nearest > -0.25 * size) & (nearest < -0.05 * size)
        frame, aspect = _random_frame(rng), np.exp(rng.uniform(-0.3, 0.3, 3))
        if good.any():
            return _Domain(centres[np.argmax(good)], size, frame, aspect / aspect.prod() ** (1 / 3))
    return None


def _random_frame(rng: np.random.Generator) -> FloatArray:
    """Rotation matrix from a random quaternion (Shoemake 1992: four normals, normalised)."""
    w, x, y, z = (q := rng.standard_normal(4)) / np.linalg.norm(q)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def _fill(domains: list[_Domain], planes: FloatArray, rng: np.random.Generator) -> Model | None:
    """Helices in every domain; a residue belongs to the first domain that holds it, and stays clear of the cell."""
    parts = []
    for i, domain in enumerate(domains):
        axis_points, atoms, side = _helices(domain, rng)
        keep = domain.contains(axis_points)
        keep &= (axis_points @ planes.T >= _CLEARANCE_A).all(1)
        for earlier in domains[:i]:
            keep &= ~earlier.contains(axis_points)
        keep &= (atoms @ planes.T >= _CLEARANCE_A).all((1, 2))
        weights = np.column_stack([np.full(len(side), _BACKBONE), side])[keep]
        b_factors = np.tile(_B_FACTORS_A2 + rng.uniform(0, 25), (len(weights), 1))
        parts.append((atoms[keep].reshape(-1, 3), weights.ravel(), b_factors.ravel()))
    if not sum(len(xyz) for xyz, _, _ in parts):
        return None
    xyz, weight, b_factor = (np.concatenate([part[i] for part in parts]) for i in range(3))
    return Model(xyz, np.array("C"), weight, b_factor)


def _helices(domain: _Domain, rng: np.random.Generator) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Residues of a helix lattice that covers a domain: points on the axes (n, 3), atoms (n, 2, 3), side weights."""
    reach = domain.radius_A * domain.aspect.max() + _SPACING_A
    count = int(np.ceil(reach / _SPACING_A))
    u, v = np.meshgrid(np.arange(-2 * count, 2 * count + 1), np.arange(-2 * count, 2 * count + 1))
    lattice = _SPACING_A * np.column_stack([(u + v / 2).ravel(), (v * np.sqrt(3) / 2).ravel()])
    lattice = lattice[np.linalg.norm(lattice, axis=1) <= reach] + rng.uniform(-0.3, 0.3, 2) * _SPACING_A
    rise = np.arange(-reach, reach, _RISE_A)
    start = rng.uniform(0, 360, (len(lattice), 1))  # phase of each helix
    angle = np.deg2rad(start + _TURN_DEG * np.arange(len(rise)))
    z = rise + rng.uniform(0, _RISE_A, (len(lattice), 1))
    axis = np.stack([*np.broadcast_arrays(lattice[:, :1], lattice[:, 1:], z)], -1).reshape(-1, 3)
    outward = np.stack([np.cos(angle), np.sin(angle), 0 * angle], -1).reshape(-1, 3)
    side = rng.uniform(0.1, 1.9, len(axis)) * _SIDE_CHAIN
    reach_side = 3.3 + 0.3 * side + rng.uniform(-0.4, 0.4, len(axis))
    local = np.stack([axis + 2.0 * outward, axis + reach_side[:, None] * outward], 1)
    local[:, 1, 2] += rng.uniform(-1, 1, len(axis))
    return axis @ domain.frame + domain.centre_A, local @ domain.frame + domain.centre_A, side


@any_arrays
def hinge(model: Model, angle_deg: float, *, axis: npt.ArrayLike = (0, 0, 1), side: npt.ArrayLike = (1, 0, 0)) -> Model:
    """Another conformation: the half of the atoms with ``r . side > 0`` rotated about an axis through the origin.

    Parameters
    ----------
    model : Model
        Atoms.
    angle_deg : float
        Rotation, counter-clockwise looking against the axis.
    axis, side : (3,)
        Rotation axis, and the normal of the plane that divides the model; they need not be unit vectors.

    Examples
    --------
    >>> from verglas import simulate
    >>> m = simulate.hinge(simulate.Model([[10.0, 0, 0], [-10.0, 0, 0]], "C"), 90)
    >>> m.xyz_A.round(6).tolist()
    [[0.0, 10.0, 0.0], [-10.0, 0.0, 0.0]]
    """
    from scipy.spatial.transform import Rotation

    unit = np.asarray(axis, np.float64) / np.linalg.norm(axis)
    turned = Rotation.from_rotvec(np.deg2rad(angle_deg) * unit).apply(model.xyz_A)
    chosen = model.xyz_A @ np.asarray(side, np.float64) > 0
    # + 0.0 makes -0.0 a plain 0, which files and comparisons of bytes would tell apart.
    xyz = np.where(chosen[:, None], turned, model.xyz_A) + 0.0
    return Model(xyz, model.elements, model.weights, model.b_factors_A2, f"{model.name} hinge {angle_deg:g}")
