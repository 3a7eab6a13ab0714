"""Is there more than one structure, of which kind, and how sure is that: the question before any other."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from verglas._screen import ListenerChoice, shown_to
from verglas.heterogeneity.components import held_out_evidence, learn_components, mean_model, scale_of_map
from verglas.heterogeneity.fixed_classes import fit_classes, held_out_class_evidence
from verglas.heterogeneity.gain import mean_gain
from verglas.heterogeneity.pose_null import (
    PoseFreedom,
    freed_class_evidence,
    freed_component_evidence,
    pose_derivatives,
    pose_null,
)
from verglas.heterogeneity.posed import PosedImages, posed_images_for
from verglas.heterogeneity.settings import TestSettings
from verglas.heterogeneity.variability import SIGNIFICANT, component_gains, small_map
from verglas.types.arrays import Float32Array, FloatArray, IntArray
from verglas.types.convert import MapLike, ParticlesLike, map_of, particles_of
from verglas.types.display import one_line
from verglas.types.settings import settings_from

_POSES = 0.5  # share of a component's power that wrong poses can make, above which it says nothing of structure


@one_line
@dataclass(frozen=True)
class HeterogeneityTest:
    """What was found.

    Attributes
    ----------
    verdict : {"none", "classes", "continuous", "poses"}
        One structure; classes explain the particles best; components do; or what varies looks like wrong poses.
    sentence : str
        What a reader must know.
    models : DataFrame
        ``model``, ``gain_nats`` over one map per held-out particle, ``error_nats``; and both again where every model's
        poses, those of the one map too, may be off.
    pose_share : list of float
        Of each component: share of its power that small rotations and shifts of the mean would make.
    particles : int
    excluded : dict
        Number in the input -> reason.
    freedom : PoseFreedom
        How far poses are off, and how many lie anywhere, by what one map explains best.
    """

    verdict: str
    sentence: str
    models: pd.DataFrame
    pose_share: list[float]
    particles: int
    excluded: dict[int, str]
    freedom: PoseFreedom

    @property
    def gains(self) -> pd.DataFrame:
        """The table ``models``: what each gains on particles that it was not made from."""
        return self.models

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "verdict": self.verdict,
            "sentence": self.sentence,
            "models": self.models.to_dict("records"),
            "pose_share": self.pose_share,
            "pose_freedom": asdict(self.freedom),
            "particles": self.particles,
            "excluded": len(self.excluded),
            "reasons": {str(i): reason for i, reason in self.excluded.items()},
        }


def heterogeneity_test(
    particles: ParticlesLike,
    map: MapLike | None = None,
    settings: TestSettings | None = None,
    *,
    threads: int | None = None,
    listener: ListenerChoice = "screen",
    **changes: Any,
) -> HeterogeneityTest:
    """One map, K classes or linear components: what explains particles that it was not made from.

    Every model is learned in two half sets at the particles' poses, and judged by the particles of the other half with
    one noise model. Noise gains nothing there. Poses that are a little wrong do vary the images: what the rotations
    and shifts of the mean map (its derivatives) can make of a component is taken for that, not for structure.

    Parameters
    ----------
    particles : Particles or path
        With images, CTFs and poses.
    map : Map or path, optional
        What the poses were found against, of the particles' box: refused if the particles at their poses show another.
        No model is made from it, since each is judged by particles that it was not made from.
    settings : TestSettings, optional
        All choices at once; what is given beside them goes before.
    threads : int, optional
        Threads; all by default. The result does not depend on it.
    listener : Listener, "screen" or None
        Who is told how it goes.
    **changes
        Single choices.

    Returns
    -------
    HeterogeneityTest

    Raises
    ------
    SettingError
        Settings are unknown or out of bounds.
    InputError
        No images, no poses, too few particles; a map that is not what the particles show at their poses.

    Examples
    --------
    >>> import verglas as vg
    >>> model = vg.simulate.phantom(32, 5.0, 110.0)
    >>> p = vg.simulate.particles(model, 60, 24, 6.5, snr=0.2, seed=1, listener=None)
    >>> vg.heterogeneity_test(p, resolution_A=30, iterations=4, most_classes=2, listener=None).verdict
    'none'
    """
    chosen = settings_from("heterogeneity", TestSettings, settings, **changes)
    given = particles_of(particles, "heterogeneity: particles")
    with shown_to(listener) as heard:
        posed = posed_images_for(given, chosen, "heterogeneity", threads=threads)
        mean = mean_model(posed, contrast=chosen.contrast)
        if map is not None:
            scale_of_map(posed, mean, small_map(posed, map_of(map, "heterogeneity: the map"), given, "map"))
        model = learn_components(
            posed,
            mean,
            chosen.most_components,
            iterations=chosen.iterations,
            seed=chosen.seed,
            listener=heard,
        )
        # The noise of the mean model for all: evidence under a model's own noise compares nothing.
        evidence = held_out_evidence(posed, replace(model, sigma2=mean.sigma2))
        gains = component_gains(evidence, posed.image)
        kept = int(gains["kept"].sum())
        # The map learned alone, as for the classes: the mean learned beside components is no model of one structure.
        one = held_out_evidence(posed, mean)[:, 0]
        # Every model once more, its poses free to be off by as much as one map alone would have it.
        null = pose_null(posed, mean)
        freed = freed_component_evidence(posed, replace(model, sigma2=mean.sigma2), null) - null.evidence[:, None]
        rows = [
            _row(f"{q} components", evidence[:, q] - one, freed[:, q], posed.image) for q in range(1, evidence.shape[1])
        ]
        for count in range(2, chosen.most_classes + 1):
            fitted = fit_classes(posed, count, mean=mean, seed=chosen.seed, listener=heard)
            gain = held_out_class_evidence(posed, fitted, mean.sigma2)[0] - one
            freed_all, fewer = freed_class_evidence(posed, fitted, mean.sigma2, null)
            best_null = max(null.evidence, fewer, key=lambda e: float(e.mean()))
            rows.append(_row(f"{count} classes", gain, freed_all - best_null, posed.image))
        share = [pose_share(posed, mean.volumes[0], v) for v in model.first(kept).volumes[1:]]
    nothing = np.zeros(len(posed))
    models = pd.DataFrame([_row("one map", nothing, nothing, posed.image), *rows])
    verdict, sentence = _judge(models, kept, share, null.freedom)
    return HeterogeneityTest(verdict, sentence, models, share, len(posed), posed.excluded, null.freedom)


def _row(name: str, gain: FloatArray, freed: FloatArray, image: IntArray) -> dict[str, Any]:
    mean, error = mean_gain(gain, image)
    freed_mean, freed_error = mean_gain(freed, image)
    return {
        "model": name,
        "gain_nats": mean,
        "error_nats": error,
        "gain_with_free_poses_nats": freed_mean,
        "error_with_free_poses_nats": freed_error,
    }


def _judge(models: pd.DataFrame, kept: int, share: list[float], freedom: PoseFreedom | None = None) -> tuple[str, str]:
    good = _significant(models, "gain_nats", "error_nats")
    if kept:  # components beyond the last that counts are noise
        beyond = [f"{q} components" for q in range(kept + 1, len(models))]
        good = good.loc[~good["model"].isin(beyond)]
    else:
        good = good.loc[~good["model"].str.endswith("components")]
    if good.empty:
        return "none", "no heterogeneity beyond noise: no model explains held-out particles better than one map"
    if share and min(share) > _POSES:
        percent = ", ".join(f"{100 * s:.0f} %" for s in share)
        return "poses", f"what varies looks like wrong poses ({percent} of the components' power): refine them first"
    if freedom is not None:
        structural = _significant(good, "gain_with_free_poses_nats", "error_with_free_poses_nats")
        if structural.empty:
            said = _explains(good)[1]
            return "poses", f"{said}, but nothing is gained once poses may be wrong ({freedom}): refine them first"
        good = structural
    name, said = _explains(good)
    return "classes" if name.endswith("classes") else "continuous", f"{said} per particle over one map"


def _explains(models: pd.DataFrame) -> tuple[str, str]:
    """The model that gains most, and a sentence of it."""
    best = models.sort_values("gain_nats").iloc[-1]
    gain = f"{best['gain_nats']:+.3f} +- {best['error_nats']:.3f} nats"
    return str(best["model"]), f"{best['model']} explain held-out particles best: {gain}"


def _significant(models: pd.DataFrame, gain: str, error: str) -> pd.DataFrame:
    mean, spread = (models[name].to_numpy(np.float64) for name in (gain, error))
    return models.loc[(mean > SIGNIFICANT * spread) & (mean > 0)]


def pose_share(posed: PosedImages, mean: Float32Array, component: Float32Array) -> float:
    r"""Share of a component's power in the span of the mean's derivatives along rotations and shifts.

    A map turned by a small :math:`\omega` and moved by t changes by
    :math:`-(\omega \times r + t) \cdot \nabla V`: six maps.
    """
    basis = pose_derivatives(posed, mean).reshape(6, -1).T.astype(np.float64)
    target = component.astype(np.float64).ravel()
    power = float(target @ target)
    if not power > 0:
        return 0.0
    fitted = basis @ np.linalg.lstsq(basis, target, rcond=None)[0]
    return float(fitted @ fitted) / power
