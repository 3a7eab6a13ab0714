"""How well a map supports a model: Fourier shell correlation, real-space correlations, Q-scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from verglas import fourier, masks
from verglas.assessment.fsc import first_crossing
from verglas.assessment.model_density import frequencies, inside_map, model_density, near_atoms
from verglas.assessment.q_score import q_scores
from verglas.errors import InputError
from verglas.types import Map
from verglas.types.arrays import FloatArray
from verglas.types.atoms import Atoms
from verglas.types.convert import AtomsLike, MapLike, atoms_of, map_of
from verglas.types.display import Shown
from verglas.types.settings import JobSettings, setting, settings_from

_LEAST_INSIDE = 0.9  # of the atoms; fewer: the model belongs elsewhere
_LEAST_DENSITY = 0.3  # mean density at atoms above the map's mean, in standard deviations
_SOFT_EDGE_A = 6.0
_D99 = 0.99
_B_SHAPE_A2 = 10.0  # of a carbon's own potential


@dataclass(frozen=True)
class MapModelSettings(JobSettings, job="map_model"):
    """How a map and a model are compared."""

    resolution_A: float | None = setting(
        None, "Of the map: the model's density ends there", more_than=0, default_words="that at which both agree best"
    )
    mask_radius_A: float = setting(3.0, "Of the mask about every atom", more_than=0)
    sigma_A: float = setting(0.6, "Of the Gaussian of Q-scores", more_than=0)


@dataclass(frozen=True, eq=False, repr=False)
class MapModel(Shown):
    """A map against a model.

    Attributes
    ----------
    atoms : Atoms
        In the map's frame.
    q : (n,) float64
        Q-score of every atom; NaN where its spheres leave the map.
    density : (n,) float64
        Map at every atom, in standard deviations of the map above its mean; NaN outside.
    frequency_per_A, fsc, fsc_masked : (shells,) float64
        Map against the model's density, over the box and within a soft mask about the atoms.
    correlations : mapping of str -> float
        ``box``, ``mask`` (within a radius of the atoms), ``volume`` (as many of the highest voxels of the model's
        density), ``peaks`` (the highest of either), ``vr_mask`` (within radii that follow resolution and B-factor).
    d_model_A : float
        Where the model's density has to end to agree best with the map.
    d99_A : float
        What the map can be cut at before its correlation with itself falls below 0.99: what its Fourier terms carry.
    resolution_A : float
        At which correlations were taken.
    """

    atoms: Atoms
    q: FloatArray
    density: FloatArray
    frequency_per_A: FloatArray
    fsc: FloatArray
    fsc_masked: FloatArray
    correlations: Mapping[str, float]
    d_model_A: float
    d99_A: float
    resolution_A: float

    def __repr__(self) -> str:
        return f"MapModel({self.atoms.name}: Q {self.q_mean:.3f}, CC_mask {self.correlations['mask']:.3f})"

    def d_fsc_A(self, threshold: float = 0.5, *, masked: bool = True) -> float:
        """Resolution at which map and model agree to a threshold."""
        curve = self.fsc_masked if masked else self.fsc
        return first_crossing(self.frequency_per_A, curve - threshold)[0]

    @property
    def q_scores(self) -> pd.DataFrame:
        """Per atom: chain, residue, name, Q (column ``q``) and density."""
        return self.by_atom()

    @property
    def cc_box(self) -> float:
        """Correlation of the map with the model's density over the box."""
        return self.correlations["box"]

    @property
    def cc_mask(self) -> float:
        """Of it within a radius of the atoms."""
        return self.correlations["mask"]

    @property
    def cc_volume(self) -> float:
        """Of it where the model's density is highest."""
        return self.correlations["volume"]

    @property
    def cc_peaks(self) -> float:
        """Of it where either is highest."""
        return self.correlations["peaks"]

    @property
    def q_mean(self) -> float:
        """Of the atoms that have a Q-score; NaN where none has."""
        known = self.q[np.isfinite(self.q)]
        return float(known.mean()) if known.size else float("nan")

    @property
    def expected_q(self) -> float:
        """Q-score of a protein in maps of this resolution (Pintilie et al. 2020)."""
        return -0.1775 * self.resolution_A + 1.1192

    def residues(self) -> pd.DataFrame:
        """Per residue: chain, number, name, atoms, mean Q and density."""
        table = self.by_atom()
        table["residue_index"] = self.atoms.residues
        keys = ["residue_index", "chain", "residue_number", "residue_name"]
        return self._means(table.groupby(keys, sort=False)).drop(columns="residue_index")

    def chains(self) -> pd.DataFrame:
        """Per chain: atoms, mean Q and density."""
        return self._means(self.by_atom().groupby(["chain"], sort=False))

    def by_atom(self) -> pd.DataFrame:
        """Per atom: chain, residue, name, Q and density."""
        a = self.atoms
        return pd.DataFrame(
            {
                "chain": a.chains,
                "residue_number": a.residue_numbers,
                "residue_name": a.residue_names,
                "atom": a.names,
                "q": self.q,
                "density_sd": self.density,
            }
        )

    @staticmethod
    def _means(groups: Any) -> pd.DataFrame:
        return groups.agg(atoms=("q", "size"), q=("q", "mean"), density_sd=("density_sd", "mean")).reset_index()

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        lengths = {
            "d_model_A": self.d_model_A,
            "d99_A": self.d99_A,
            "resolution_A": self.resolution_A,
            "d_fsc_model_0.5_A": self.d_fsc_A(0.5),
            "d_fsc_model_0.143_A": self.d_fsc_A(0.143),
        }
        return {
            "model": self.atoms.name,
            "atoms": len(self.atoms),
            "atoms_without_q": int(np.isnan(self.q).sum()),
            "q_mean": _round_or_none(self.q_mean, 4),
            "q_expected": round(self.expected_q, 4),
            "correlations": {name: _round_or_none(value, 4) for name, value in self.correlations.items()},
            **{name: _round_or_none(v, 3) for name, v in lengths.items()},
            "chains": [
                {str(name): _round_or_none(v, 4) if isinstance(v, float) else v for name, v in row.items()}
                for row in self.chains().to_dict("records")
            ],
        }


def _round_or_none(value: float, digits: int) -> float | None:
    """For JSON, which has no NaN: a chain that lies outside the map has no Q-score."""
    return round(float(value), digits) if np.isfinite(value) else None


def map_model(
    volume: MapLike,
    atoms: AtomsLike,
    settings: MapModelSettings | None = None,
    *,
    threads: int | None = None,
    **changes: Any,
) -> MapModel:
    r"""Judge a model by a map.

    The model's density (electron scattering factors, its occupancies and B-factors) is correlated with the map per
    Fourier shell and, filtered to the map's resolution, over regions of real space. :math:`d_{model}` is the cut that
    maximises their correlation

    .. math:: CC(d) = \frac{\sum_{|k| < 1/d} \mathrm{Re}\,F_{map} F_{model}^*}
              {\sqrt{\sum |F_{map}|^2 \sum_{|k| < 1/d} |F_{model}|^2}}

    Parameters
    ----------
    volume : Map or path
        Any box; its ``origin_A`` says where it lies.
    atoms : Atoms or path
        From :func:`verglas.io.read_atoms`, or an mmCIF or PDB file; in the map's frame.
    settings : MapModelSettings, optional
        Further keywords (``resolution_A=3.2``) change its fields.
    threads : int, optional
        Threads; the result does not depend on it.

    Returns
    -------
    MapModel

    Raises
    ------
    InputError
        Less than nine tenths of the atoms lie inside the map, or they lie where it has no density: a model of another
        frame, or of another molecule.

    References
    ----------
    Afonine et al., Acta Cryst. D74 (2018) 814 (CC, d_model, d99); Pintilie et al., Nat. Methods 17 (2020) 328 (Q).

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> from verglas.assessment.model_density import model_density
    >>> xyz = np.random.default_rng(0).uniform(8, 24, (40, 3))
    >>> atoms = vg.types.atoms.Atoms(xyz, *(["C"] * 40,) * 2, ["ALA"] * 40, ["A"] * 40, range(40), [1] * 40, [30] * 40)
    >>> made = vg.map_model(model_density(atoms, vg.Map(np.zeros((32, 32, 32)), 1.0)), atoms)
    >>> made.correlations["mask"] > 0.99, bool(np.nanmedian(made.q) > 0.8)
    (True, True)
    """
    chosen = settings_from("map_model", MapModelSettings, settings, **changes)
    volume, atoms = map_of(volume, "map_model: the map"), atoms_of(atoms, "map_model: the model")
    if bad := np.count_nonzero(~np.isfinite(volume.data)):
        raise InputError(f"map_model: the map holds {bad} values that are not finite numbers")
    density = check_place(volume, atoms)
    model = model_density(atoms, volume, threads=threads)
    around = near_atoms(atoms, volume, chosen.mask_radius_A)
    soft = masks.soft_edge(around, _SOFT_EDGE_A / volume.pixel_size_A)
    shells = Shells(volume)
    products = shells.products(volume.data, model.data, threads)
    d_model, d99 = best_cut(shells.frequency, products), _sufficient_cut(shells.frequency, products.map_power)
    resolution = max(chosen.resolution_A or d_model, 2 * volume.pixel_size_A)
    own_radii = _visible_radius_A(atoms.b_factors_A2, resolution)
    return MapModel(
        atoms,
        q_scores(volume, atoms, sigma_A=chosen.sigma_A, threads=threads),
        density,
        shells.frequency,
        products.correlation,
        shells.products(volume.data * soft, model.data * soft, threads).correlation,
        _correlations(volume, _cut(model, resolution, threads), around, near_atoms(atoms, volume, own_radii)),
        d_model,
        d99,
        resolution,
    )


def check_place(volume: Map, atoms: Atoms) -> FloatArray:
    """Map at every atom in standard deviations above its mean, NaN outside; refuses a model that lies elsewhere.

    Raises
    ------
    InputError
        As :func:`map_model`.
    """
    inside = inside_map(atoms, volume)
    low = np.asarray(volume.origin_A)
    high = low + (np.asarray(volume.data.shape[::-1]) - 1) * volume.pixel_size_A
    if inside.mean() < _LEAST_INSIDE:
        own = [f"{a:.0f} to {b:.0f}" for a, b in zip(atoms.xyz_A.min(axis=0), atoms.xyz_A.max(axis=0), strict=True)]
        box = [f"{a:.0f} to {b:.0f}" for a, b in zip(low, high, strict=True)]
        raise InputError(
            f"map_model: only {inside.sum()} of {len(atoms)} atoms of {atoms.name} lie inside the map (x, y, z of the "
            f"atoms {', '.join(own)} A, of the map {', '.join(box)} A): the model has another origin; move it, or fit "
            "it (--fit)"
        )
    voxels = np.rint((atoms.xyz_A[inside] - low) / volume.pixel_size_A).astype(np.int64)
    spread = float(volume.data.std())
    if not spread > 0:
        raise InputError("map_model: the map is constant")
    values = np.full(len(atoms), np.nan)
    values[inside] = (volume.data[voxels[:, 2], voxels[:, 1], voxels[:, 0]] - volume.data.mean()) / spread
    if np.nanmean(values) < _LEAST_DENSITY:
        raise InputError(
            f"map_model: {atoms.name} lies where the map has no density (mean at its atoms {np.nanmean(values):.2f} sd "
            f"above the map's mean, expected at least {_LEAST_DENSITY:g}): another origin, hand or molecule, or a map "
            "whose contrast is inverted; --fit places it"
        )
    return values


@dataclass(frozen=True)
class ShellProducts:
    """Sums over each shell: of a map's power, of Re map model*, of the model's power."""

    map_power: FloatArray
    cross: FloatArray
    model_power: FloatArray

    @property
    def correlation(self) -> FloatArray:
        """Of map and model in each shell; 0 where either is empty."""
        scale = np.sqrt(self.map_power * self.model_power)
        return np.divide(self.cross, scale, out=np.zeros_like(scale), where=scale > 1e-12 * scale.max())


class Shells:
    """Shells of a box of any shape, as wide as the longest side resolves."""

    def __init__(self, like: Map) -> None:
        shape, pixel = like.data.shape, like.pixel_size_A
        step = 1 / (max(shape) * pixel)
        self.index = np.rint(frequencies(shape, pixel) / step).astype(np.int64).ravel()
        self.frequency = step * np.arange(int(0.5 / pixel / step) + 1)
        self.weight = np.broadcast_to(fourier.half_weights(shape), (*shape[:-1], shape[-1] // 2 + 1)).ravel()

    def products(self, a: npt.NDArray, b: npt.NDArray, threads: int | None) -> ShellProducts:
        """Of a map and a model; means are taken off, so that shell 0 is empty."""
        one, two = (fourier.forward((v - v.mean()).astype(np.float32), 3, threads=threads).ravel() for v in (a, b))
        last = len(self.frequency)
        terms = (np.abs(one) ** 2, (one * two.conj()).real, np.abs(two) ** 2)
        sums = [np.bincount(self.index, self.weight * t, minlength=last)[:last].astype(np.float64) for t in terms]
        return ShellProducts(*sums)


def best_cut(frequency: FloatArray, products: ShellProducts) -> float:
    """d_model: the cut of the model's density that maximises its correlation with the whole map."""
    scale = np.sqrt(np.cumsum(products.model_power) * products.map_power.sum())
    value = np.divide(np.cumsum(products.cross), scale, out=np.zeros_like(scale), where=scale > 0)
    return float(1 / frequency[max(int(np.argmax(value)), 1)])


def _sufficient_cut(frequency: FloatArray, power: FloatArray) -> float:
    """d99: a map cut at d correlates with itself as the root of the power it keeps."""
    kept = np.sqrt(np.cumsum(power) / power.sum())
    return float(1 / frequency[max(int(np.argmax(kept >= _D99)), 1)])


def _cut(model: Map, resolution_A: float, threads: int | None) -> Map:
    spectrum = fourier.forward(model.data, 3, threads=threads)
    keep = frequencies(model.data.shape, model.pixel_size_A) <= 1 / resolution_A
    return model.with_data(fourier.inverse(spectrum * keep, model.data.shape, threads=threads))


def _visible_radius_A(b_factors_A2: FloatArray, resolution_A: float) -> FloatArray:
    r"""Where an atom's density has fallen to a tenth: a Gaussian of its B-factor and of the map's resolution.

    .. math:: \rho(r) \propto e^{-4 \pi^2 r^2 / B}, \qquad B = B_{atom} + B_{shape} + 4 d^2

    with 4 d^2 the blur under which exp(-B k^2 / 4) is 1/e at the resolution d.
    """
    total = np.clip(b_factors_A2, 0, None) + _B_SHAPE_A2 + 4 * resolution_A**2
    return np.sqrt(total * np.log(10)) / (2 * np.pi)


def _correlations(
    volume: Map, model: Map, around: npt.NDArray[np.bool_], visible: npt.NDArray[np.bool_]
) -> dict[str, float]:
    n = int(around.sum())
    own, other = (_highest(v.data, n) for v in (model, volume))
    regions = {"box": np.ones_like(around), "mask": around, "volume": own, "peaks": own | other, "vr_mask": visible}
    return {
        name: float(np.corrcoef(volume.data[where], model.data[where])[0, 1]) if where.sum() > 2 else float("nan")
        for name, where in regions.items()
    }


def _highest(values: npt.NDArray, n: int) -> npt.NDArray[np.bool_]:
    level = np.partition(values.ravel(), values.size - n)[values.size - n]
    return np.asarray(values >= level)


def consistency(fit: MapModel, d_fsc_A: float) -> list[str]:
    """What the resolutions of a map say together (Afonine et al. 2018, table 2), as sentences.

    Parameters
    ----------
    fit : MapModel
    d_fsc_A : float
        Resolution of the map by its half maps, FSC 0.143.

    Examples
    --------
    >>> import numpy as np
    >>> from types import SimpleNamespace
    >>> from verglas.assessment.map_model import consistency
    >>> made = SimpleNamespace(d_model_A=5.0, d99_A=3.1, d_fsc_A=lambda t: 3.4)
    >>> consistency(made, 3.2)[0]
    'd_model (5.00 A) is much coarser than d_FSC (3.20 A): the model is worse than the map allows, or too blurred.'
    """
    said = []
    if fit.d_model_A > 1.3 * d_fsc_A:
        said.append(
            f"d_model ({fit.d_model_A:.2f} A) is much coarser than d_FSC ({d_fsc_A:.2f} A): the model is worse than "
            "the map allows, or too blurred."
        )
    if fit.d99_A > 1.3 * d_fsc_A:
        said.append(
            f"d99 ({fit.d99_A:.2f} A) is much coarser than d_FSC ({d_fsc_A:.2f} A): the map is blurred beyond its "
            "resolution; sharpen it."
        )
    if fit.d_fsc_A(0.5) < 0.85 * d_fsc_A:
        said.append(
            f"The model agrees with the map to {fit.d_fsc_A(0.5):.2f} A, finer than the half maps do "
            f"({d_fsc_A:.2f} A): it was fitted to noise, or the half maps' resolution is understated."
        )
    return said or [f"d_model {fit.d_model_A:.2f} A, d99 {fit.d99_A:.2f} A and d_FSC {d_fsc_A:.2f} A go together."]
