"""How well segments lie on simulated centre-lines."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from verglas.simulate.filaments import FilamentTruth, distance_to_lines
from verglas.types import Picks


def filament_merit(picks: Picks, truth: FilamentTruth) -> dict[str, float]:
    """Precision, recall, distance and angle of segments.

    A segment is right within half a width of any centre-line; a place on a centre-line, half a width inside the
    micrograph, is found if a segment is within three quarters of a width. Angles are against the line that the
    segment's tube follows: where two cross, the nearest may be the other.
    """
    pixel, (height, width) = truth.micrograph.scene.pixel_size_A, truth.micrograph.scene.shape
    half = truth.width_A / 2 / pixel
    lines = [line for line in truth.lines if len(line) > 1]
    if not len(picks) or not lines:
        return {"segments": len(picks), "precision": float(not len(picks)), "recall": float(not lines), "tubes": 0}
    distance, _ = distance_to_lines(picks.xy_px, lines)
    places = np.concatenate([line[::10] for line in lines])
    inside = ((places >= half) & (places <= np.array([width, height]) - 1 - half)).all(axis=1)
    found = cKDTree(picks.xy_px).query(places[inside])[0] < 1.5 * half
    errors = []
    tubes = np.unique(picks.columns["rlnHelicalTubeID"])
    for tube in tubes:
        one = picks[picks.columns["rlnHelicalTubeID"] == tube]
        near, angle = min(
            (distance_to_lines(one.xy_px, [line]) for line in lines), key=lambda v: float(np.median(v[0]))
        )
        error = (-one.columns["rlnAnglePsiPrior"] - angle + 90) % 180 - 90
        errors.append(error[near < half])
    return {
        "segments": len(picks),
        "precision": float((distance < half).mean()),
        "recall": float(found.mean()),
        "distance_px": float(distance[distance < half].mean()),
        "angle_rms_deg": float(np.sqrt((np.concatenate(errors) ** 2).mean())),
        "tubes": len(tubes),
    }
