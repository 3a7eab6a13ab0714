"""``vg.variability``: what varies linearly about the mean of particles at known poses, and how sure that is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from verglas._screen import ListenerChoice, shown_to
from verglas.errors import InputError
from verglas.heterogeneity.components import (
    ComponentModel,
    held_out_evidence,
    hold_mean,
    learn_components,
    mean_model,
)
from verglas.heterogeneity.coordinate_errors import calibrate
from verglas.heterogeneity.covariance import covariance_components, estimate_covariance
from verglas.heterogeneity.gain import mean_gain
from verglas.heterogeneity.kernel_maps import FEWEST, choose_width, kernel_weights, weighted_halves, worth
from verglas.heterogeneity.landscape import Landscape, landscape
from verglas.heterogeneity.posed import PosedImages, posed_images_for
from verglas.heterogeneity.settings import AUTO, VariabilitySettings
from verglas.image import fourier_resample
from verglas.initial_model.course import resample_to_box
from verglas.masks import checked_mask
from verglas.optics import common_size
from verglas.types import Keeper, Map, Particles
from verglas.types.arrays import Float32Array, FloatArray, IntArray
from verglas.types.convert import MapLike, ParticlesLike, map_of, particles_of
from verglas.types.listener import Listener
from verglas.types.settings import settings_from

SIGNIFICANT = 3.0  # standard errors that a held-out gain must have
_LEAST_NATS = 5.0  # and over all particles: less is of no consequence


@dataclass(frozen=True, eq=False, repr=False)
class Variability:
    """What varies in a set of particles.

    Attributes
    ----------
    mean : Map
        At the particles' pixel size and box, no finer than the resolution in use.
    components : list of Map
        Of unit norm, the largest variance first.
    eigenvalues : (k,) float64
        Most likely variance of the coordinates along each.
    coordinates : (n, k) float64
        Of every particle: posterior mean, in units in which a map is ``mean + sum_q z_q components[q]``.
    covariances : (n, k, k) float64
        Of those coordinates, with what the uncertain components add (:mod:`verglas.heterogeneity.coordinate_errors`).
    contrast : (n,) float64
        Of every particle, mean about 1.
    gains : DataFrame
        Held-out gain of each further component: ``components``, ``gain_nats``, ``error_nats``, ``kept``.
    fsc : (1 + k, shells) float64
        Of mean and components between half sets.
    particles : Particles
        Those in use, with their half sets (rlnRandomSubset).
    excluded : dict
        Number in the input -> reason.
    settings : VariabilitySettings
    """

    mean: Map
    components: list[Map]
    eigenvalues: FloatArray
    coordinates: FloatArray
    covariances: FloatArray
    contrast: FloatArray
    gains: pd.DataFrame
    fsc: FloatArray
    particles: Particles
    excluded: dict[int, str]
    settings: VariabilitySettings
    posed: PosedImages
    model: ComponentModel
    scale: FloatArray

    def __repr__(self) -> str:
        return f"Variability({self.sentence})"

    @property
    def n_components(self) -> int:
        """Components that raise the held-out likelihood, or as many as were asked for."""
        return len(self.components)

    @property
    def sentence(self) -> str:
        """What a reader must know."""
        tested = self.gains.iloc[0] if len(self.gains) else None
        if tested is None:
            return "the mean alone, as asked for: no component was tried"
        if not self.n_components:
            return f"no heterogeneity beyond noise (held-out gain of one component {_gain_text(tested)})"
        each = ", ".join(_gain_text(row) for _, row in self.gains[self.gains["kept"]].iterrows())
        return f"{self.n_components} components; held-out gain of each: {each}"

    def map_at(self, z: FloatArray) -> Map:
        """The map of the linear model at coordinates (k,)."""
        point = np.asarray(z, np.float64)
        if point.shape != (self.n_components,):
            raise InputError(f"map_at: expected {self.n_components} coordinates, got shape {point.shape}")
        data = self.mean.data.astype(np.float64)
        for value, component in zip(point, self.components, strict=True):
            data = data + value * component.data
        return Map(data.astype(np.float32), self.mean.pixel_size_A)

    def neighbours_map(self, z: FloatArray, *, width: float | None = None) -> tuple[Map, float]:
        """Map of the particles near a point, by kernel regression: a reconstruction from images, no model's guess.

        Parameters
        ----------
        z : (k,) float64
            Coordinates.
        width : float, optional
            Of the Gaussian kernel, in standard deviations of the coordinates; each particle's own covariance is added.
            By default the one whose half maps explain the nearest particles of the other half set best
            (:func:`verglas.heterogeneity.kernel_maps.choose_width`).

        Returns
        -------
        Map, float
            And the number of particles it is worth, (sum w)^2 / sum w^2.
        """
        if width is None:
            width = choose_width(
                self.posed, self.model.sigma2, self.coordinates, self.covariances, self.contrast, np.asarray(z)
            )
        weight = kernel_weights(self.coordinates, self.covariances, z, width)
        if worth(weight) < FEWEST:
            raise InputError(
                f"neighbours_map: {worth(weight):.0f} particles lie near {np.round(z, 2)}; choose a wider kernel"
            )
        halves = weighted_halves(self.posed, self.model.sigma2, weight[:, None], self.contrast)
        return self._full((halves[0][0] + halves[1][0]) / 2), worth(weight)

    def landscape(self, clusters: int | None = None, *, most_clusters: int = 6) -> Landscape:
        """Density of the coordinates, freed of each particle's own uncertainty, its clusters and free energy.

        Parameters
        ----------
        clusters : int, optional
            By default as many as held-out particles ask for.
        most_clusters : int
            Where that ends.
        """
        return landscape(
            self.coordinates,
            self.covariances,
            self.eigenvalues,
            self.posed.half,
            clusters=clusters,
            most_clusters=most_clusters,
            seed=self.settings.seed,
        )

    @property
    def deviation(self) -> Map:
        r"""Standard deviation of every voxel over the particles, :math:`\sqrt{\sum_q \lambda_q U_q^2}`.

        :math:`\lambda` is the most likely variance of the coordinates (in the manner of Zheng, Wang and Doerschuk 2012,
        J. Opt. Soc. Am. A 29, 959). Noise and what the views leave open are not in it, and it is 0 without components.
        """
        variance = np.zeros(self.mean.data.shape)
        for value, component in zip(self.eigenvalues, self.components, strict=True):
            variance += value * np.square(component.data)
        return self.mean.with_data(np.sqrt(variance).astype(np.float32))

    def trajectory(self, component: int = 0, count: int = 7) -> tuple[FloatArray, list[Map]]:
        """Points from the 5th to the 95th percentile of a coordinate, the others at their median, and their maps."""
        if not 0 <= component < self.n_components:
            raise InputError(f"trajectory: component {component} of {self.n_components}")
        points = np.tile(np.median(self.coordinates, axis=0), (count, 1))
        points[:, component] = np.quantile(self.coordinates[:, component], np.linspace(0.05, 0.95, count))
        return points, [self.map_at(p) for p in points]

    def _full(self, volume: Float32Array) -> Map:
        return _full_map(volume, self.mean)


def _full_map(volume: Float32Array, like: Map) -> Map:
    return Map(resample_to_box(np.ascontiguousarray(volume), like.box), like.pixel_size_A)


def _gain_text(row: pd.Series) -> str:
    return f"{row['gain_nats']:+.3f} +- {row['error_nats']:.3f} nats per particle"


def variability(
    particles: ParticlesLike,
    mean: MapLike | None = None,
    mask: MapLike | None = None,
    settings: VariabilitySettings | None = None,
    *,
    threads: int | None = None,
    listener: ListenerChoice = "screen",
    **changes: Any,
) -> Variability:
    r"""Mean and principal components of particles at known poses; each particle's coordinates with their covariance.

    Probabilistic principal components with CTF, poses and contrast,
    :math:`X_i = a_i C_i P_i (V_0 + \sum_q z_{iq} U_q) + n`, by expectation-maximisation in two half sets. The number of
    components is that which raises the likelihood of particles under the maps of the half that they are not in, by
    three standard errors each: none in homogeneous data. With ``method="covariance"`` the components are those of the
    covariance at 40 A, by regularised least squares (:mod:`verglas.heterogeneity.covariance`).

    Parameters
    ----------
    particles : Particles or path
        With images, CTFs and poses.
    mean : Map or path, optional
        Of the particles' box: the map about which components are sought, held as it is but for its grey scale. Without,
        each half set has its own, made from the particles.
    mask : Map or path, optional
        Where components may differ from zero; the sphere of the particle's diameter without.
    settings : VariabilitySettings, optional
        All choices at once; what is given beside them goes before.
    threads : int, optional
        Threads; all by default. The result does not depend on it.
    listener : Listener, "screen" or None
        Who is told how it goes.
    **changes
        Single choices: ``components``, ``resolution_A``, ...

    Returns
    -------
    Variability

    Raises
    ------
    SettingError
        Settings are unknown or out of bounds.
    InputError
        No images, no poses, too few particles; a mask that does not fit or lies outside the particle; a mean that is
        not what the particles show at their poses.

    References
    ----------
    Tipping and Bishop (1999) J. R. Stat. Soc. B 61, 611-622; Tagare et al. (2015) J. Struct. Biol. 191, 245-262;
    Punjani and Fleet (2021) J. Struct. Biol. 213, 107702.

    Examples
    --------
    >>> import verglas as vg
    >>> model = vg.simulate.phantom(32, 5.0, 110.0)
    >>> p = vg.simulate.particles(model, 60, 32, 5.0, snr=0.5, seed=1, listener=None)
    >>> made = vg.variability(p, components=1, resolution_A=25, iterations=2, listener=None)
    >>> made.mean.box, made.coordinates.shape, made.covariances.shape
    (32, (60, 1), (60, 1, 1))
    """
    if "components" in changes:
        changes["components"] = str(changes["components"])
    chosen = settings_from("variability", VariabilitySettings, settings, **changes)
    given = particles_of(particles, "variability: particles")
    with shown_to(listener) as heard:
        inside = None if mask is None else map_of(mask, "variability: mask")
        about = None if mean is None else map_of(mean, "variability: mean")
        return analyse_variability(given, chosen, inside, mean_map=about, threads=threads, listener=heard)


def analyse_variability(
    given: Particles,
    chosen: VariabilitySettings,
    mask: Map | None,
    *,
    mean_map: Map | None = None,
    threads: int | None,
    listener: Listener,
    keeper: Keeper | None = None,
) -> Variability:
    """What :func:`variability` does, with a keeper of where the components stand."""
    posed = posed_images_for(given, chosen, "variability", threads=threads)
    inside = posed.sphere if mask is None else small_mask(posed, mask, given)
    listener.say(f"{len(posed)} particles at {posed.pixel_size_A:.2f} A per pixel, {posed.box} px")
    mean = mean_model(posed, contrast=chosen.contrast, mask=inside)
    if mean_map is not None:
        mean = hold_mean(posed, mean, small_map(posed, mean_map, given, "mean"))
    if chosen.method == "covariance" and chosen.largest:
        # long sums of products, which come out otherwise with other numbers of threads
        with threadpool_limits(1, user_api="blas"):
            found = estimate_covariance(posed, mean, seed=chosen.seed)
            listener.say(f"covariance of {len(found.functions)} functions, {found.resolution_A:.0f} A")
            model = covariance_components(posed, mean, found, chosen.largest)
    else:
        model = learn_components(
            posed,
            mean,
            chosen.largest,
            iterations=chosen.iterations,
            seed=chosen.seed,
            listener=listener,
            keeper=keeper,
        )
    gains = component_gains(held_out_evidence(posed, model), posed.image)
    if chosen.components == AUTO:
        model = model.first(int(gains["kept"].sum()))
    else:
        gains["kept"] = True
    return _result(given, posed, model, gains, chosen)


def small_map(posed: PosedImages, volume: Map, particles: Particles, name: str) -> Float32Array:
    """A map of the particles' box at the working sampling.

    Raises
    ------
    InputError
        Another box or pixel size.
    """
    box, pixel_size_A = common_size(particles)
    if volume.box != box or abs(volume.pixel_size_A / pixel_size_A - 1) > 0.01:
        raise InputError(
            f"the {name} has {volume.box} px of {volume.pixel_size_A:g} A, the particles {box} px of "
            f"{pixel_size_A:g} A; resample it first (verglas resample)"
        )
    same = posed.box == len(volume.data)
    return volume.data if same else fourier_resample(volume.data, (posed.box,) * 3)


def small_mask(posed: PosedImages, mask: Map, particles: Particles) -> Float32Array:
    """A mask of the particles' box at the working sampling.

    Raises
    ------
    InputError
        Another box or pixel size; a mask outside the sphere of the particle.
    """
    small = small_map(posed, mask.with_data(checked_mask(mask.data)), particles, "mask")
    inside = np.clip(small, 0, 1).astype(np.float32) * posed.sphere
    if inside.sum() < 0.01 * np.clip(small, 0, 1).sum():
        raise InputError("the mask lies outside the sphere of the particle's diameter; check where it is")
    return np.asarray(inside, np.float32)


def component_gains(evidence: FloatArray, image: IntArray) -> pd.DataFrame:
    """Held-out gain of each further component; kept up to the first that is not significant.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.heterogeneity.variability import component_gains
    >>> noise = np.random.default_rng(0).normal(size=100)
    >>> evidence = np.column_stack([np.zeros(100), 5 + noise, 5 + 2 * noise])
    >>> component_gains(evidence, np.arange(100))["kept"].tolist()
    [True, False]
    """
    step = np.diff(evidence, axis=1)
    gain, error = np.array([mean_gain(s, image) for s in step.T]).reshape(-1, 2).T
    good = (gain > SIGNIFICANT * error) & (gain * len(step) > _LEAST_NATS)
    return pd.DataFrame(
        {
            "components": np.arange(1, evidence.shape[1]),
            "gain_nats": gain,
            "error_nats": error,
            "kept": np.logical_and.accumulate(good),
        }
    )


def _result(
    given: Particles, posed: PosedImages, model: ComponentModel, gains: pd.DataFrame, settings: VariabilitySettings
) -> Variability:
    box, pixel_size_A = common_size(given)
    like = Map(np.zeros((box,) * 3, np.float32), pixel_size_A)
    model, found = calibrate(posed, model)
    mean = _full_map(model.volumes[0], like)
    full = [_full_map(v, like) for v in model.volumes[1:]]
    # Of unit norm at the full box: the norm goes into the coordinates.
    scale = np.array([float(np.sqrt(np.square(m.data, dtype=np.float64).sum())) for m in full])
    used = np.where(scale > 0, scale, 1.0)
    components = [Map(m.data / np.float32(s), pixel_size_A) for m, s in zip(full, used, strict=True)]
    return Variability(
        mean,
        components,
        scale**2,
        found.mean * scale,
        found.covariance * scale[:, None] * scale,
        found.contrast,
        gains,
        model.fsc,
        (given[posed.kept] if len(posed.kept) < len(given) else given).with_columns(rlnRandomSubset=posed.half),
        posed.excluded,
        settings,
        posed,
        model,
        used,
    )
