"""Is there more than one structure, of which kind, and how sure is that: the question before any other."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from verglas import fourier
from verglas._screen import ListenerChoice, shown_to
from verglas.heterogeneity.components import held_out_evidence, learn_components, mean_model
from verglas.heterogeneity.fixed_classes import fit_classes, held_out_class_evidence
from verglas.heterogeneity.gain import mean_gain
from verglas.heterogeneity.posed import PosedImages, posed_as_chosen
from verglas.heterogeneity.settings import TestSettings
from verglas.heterogeneity.variability import SIGNIFICANT, component_gains
from verglas.types.arrays import Float32Array, FloatArray, IntArray
from verglas.types.convert import ParticlesLike, particles_of
from verglas.types.listener import phase_progress
from verglas.types.settings import settings_from

_POSES = 0.5  # share of a component's power that wrong poses can make, above which it says nothing of structure


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
        ``model``, ``gain_nats`` over one map per held-out particle, ``error_nats``.
    pose_share : list of float
        Of each component: share of its power that small rotations and shifts of the mean would make.
    particles : int
    excluded : dict
        Number in the input -> reason.
    """

    verdict: str
    sentence: str
    models: pd.DataFrame
    pose_share: list[float]
    particles: int
    excluded: dict[int, str]

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "verdict": self.verdict,
            "sentence": self.sentence,
            "models": self.models.to_dict("records"),
            "pose_share": self.pose_share,
            "particles": self.particles,
            "excluded": len(self.excluded),
            "reasons": {str(i): reason for i, reason in self.excluded.items()},
        }


def heterogeneity_test(
    particles: ParticlesLike,
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
        No images, no poses, too few particles.

    Examples
    --------
    >>> import verglas as vg
    >>> model = vg.simulate.phantom(32, 5.0, 110.0)
    >>> p = vg.simulate.particles(model, 80, 32, 5.0, snr=0.2, seed=1, listener=None)
    >>> vg.heterogeneity_test(p, resolution_A=25, iterations=6, most_classes=2, listener=None).verdict
    'none'
    """
    chosen = settings_from("heterogeneity", TestSettings, settings, **changes)
    given = particles_of(particles, "heterogeneity: particles")
    with shown_to(listener) as heard:
        posed = posed_as_chosen(given, chosen, "heterogeneity", threads=threads)
        mean = mean_model(posed, contrast=chosen.contrast)
        model = learn_components(
            posed,
            mean,
            chosen.most_components,
            iterations=chosen.iterations,
            seed=chosen.seed,
            tick=phase_progress(heard, "components, iterations"),
        )
        # The noise of the mean model for all: evidence under a model's own noise compares nothing.
        evidence = held_out_evidence(posed, replace(model, sigma2=mean.sigma2))
        gains = component_gains(evidence, posed.image)
        kept = int(gains["kept"].sum())
        # The map learned alone, as for the classes: the mean learned beside components is no model of one structure.
        one = held_out_evidence(posed, mean)[:, 0]
        rows = [_row(f"{q} components", evidence[:, q] - one, posed.image) for q in range(1, evidence.shape[1])]
        for count in range(2, chosen.most_classes + 1):
            tick = phase_progress(heard, f"{count} classes, iterations")
            fitted = fit_classes(posed, count, mean=mean, seed=chosen.seed, tick=tick)
            rows.append(
                _row(f"{count} classes", held_out_class_evidence(posed, fitted, mean.sigma2)[0] - one, posed.image)
            )
        share = [pose_share(posed, mean.volumes[0], v) for v in model.first(kept).volumes[1:]]
    models = pd.DataFrame([_row("one map", np.zeros(len(posed)), posed.image), *rows])
    verdict, sentence = _judge(models, kept, share)
    return HeterogeneityTest(verdict, sentence, models, share, len(posed), posed.excluded)


def _row(name: str, gain: FloatArray, image: IntArray) -> dict[str, Any]:
    mean, error = mean_gain(gain, image)
    return {"model": name, "gain_nats": mean, "error_nats": error}


def _judge(models: pd.DataFrame, kept: int, share: list[float]) -> tuple[str, str]:
    gain, error = (models[name].to_numpy(np.float64) for name in ("gain_nats", "error_nats"))
    good = models.loc[(gain > SIGNIFICANT * error) & (gain > 0)]
    if kept:  # components beyond the last that counts are noise
        beyond = [f"{q} components" for q in range(kept + 1, len(models))]
        good = good.loc[~good["model"].isin(beyond)]
    else:
        good = good.loc[~good["model"].str.endswith("components")]
    if good.empty:
        return "none", "no heterogeneity beyond noise: no model explains held-out particles better than one map"
    best = good.sort_values("gain_nats").iloc[-1]
    said = f"{best['model']} explain held-out particles best: {best['gain_nats']:+.3f} +- {best['error_nats']:.3f} nats"
    if share and min(share) > _POSES:
        percent = ", ".join(f"{100 * s:.0f} %" for s in share)
        return "poses", f"what varies looks like wrong poses ({percent} of the components' power): refine them first"
    kind = "classes" if str(best["model"]).endswith("classes") else "continuous"
    return kind, f"{said} per particle over one map"


def pose_share(posed: PosedImages, mean: Float32Array, component: Float32Array) -> float:
    r"""Share of a component's power in the span of the mean's derivatives along rotations and shifts.

    A map turned by a small :math:`\omega` and moved by t changes by
    :math:`-(\omega \times r + t) \cdot \nabla V`: six maps.
    """
    spectrum = fourier.forward(mean, 3, threads=posed.threads)
    # Along x, y, z; exact, where differences of neighbours fade towards Nyquist.
    gx, gy, gz = (
        fourier.inverse((2j * np.pi / posed.box * k * spectrum).astype(np.complex64), mean.shape, threads=posed.threads)
        for k in reversed(fourier.half_grid(mean.shape))
    )
    axis = np.arange(posed.box) - posed.box // 2
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    turned = [y * gz - z * gy, z * gx - x * gz, x * gy - y * gx]
    basis = np.stack([(v * posed.sphere).ravel() for v in [gx, gy, gz, *turned]], axis=1)
    target = component.astype(np.float64).ravel()
    power = float(target @ target)
    if not power > 0:
        return 0.0
    fitted = basis @ np.linalg.lstsq(basis, target, rcond=None)[0]
    return float(fitted @ fitted) / power
