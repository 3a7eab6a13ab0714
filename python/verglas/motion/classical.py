"""Movies by the classical estimators, each a method of its own beside the one objective."""

from __future__ import annotations

import numpy as np

from verglas.errors import InputError
from verglas.motion import optical_flow, pair_shifts, patch_shifts, whole_frames
from verglas.motion.binned import BinnedFrames
from verglas.motion.estimate import Estimate, usable_frames
from verglas.motion.exposure import Exposure
from verglas.motion.fields import Timing
from verglas.motion.patches import b_factor_weights, cut
from verglas.types.arrays import FloatArray
from verglas.types.motion import Motion

METHODS = ("pairs", "robust-pairs", "patches", "tracks", "flow", "dome")
B_FACTOR_A2 = 150.0
TOGETHER_E_A2 = 4.0  # of frames whose shift in a patch is measured together
NEIGHBOURS = 0.25  # of the longer side: over which tracks share their straight line
FLOW_WINDOW = 0.08  # ... and pixels their flow
FLOW_SIDE = 512  # pixels of the frames that flow is sought in


def estimate_classically(
    binned: BinnedFrames,
    exposure: Exposure,
    method: str,
    *,
    tilt_deg: float = 0.0,
    axis_deg: float = 0.0,
    threads: int | None = None,
) -> Estimate:
    """Motion by one of the classical estimators.

    Parameters
    ----------
    binned : BinnedFrames
    exposure : Exposure
    method : str
        "pairs" (shifts between all pairs of frames, least squares), "robust-pairs" (wrong pairs left out), "patches"
        (a polynomial through shifts of patches), "tracks" (straight tracks of neighbours), "flow" (optical flow),
        "dome" (a dome seen under a tilt).
    tilt_deg, axis_deg : float
        Of the specimen, for "dome".
    threads : int, optional

    Raises
    ------
    InputError
        An unknown method, or no frame that can be used.
    """
    if method not in METHODS:
        raise InputError(f"motion: expected a method of {', '.join(METHODS)}, got {method!r}")
    timing, flags = usable_frames(binned)
    pixel = binned.factor * exposure.pixel_size_A
    coarse = whole_frames.WholeFrames.of([binned.data[f] for f in timing.used], pixel, threads)
    scale = coarse.factor * binned.factor
    pairs, shifts = whole_frames.pairs_of_frames(coarse)
    solve = pair_shifts.least_squares if method == "pairs" else pair_shifts.robust
    moved = solve(pairs, shifts, len(timing.used)) * scale
    used = np.isin(np.arange(timing.n_frames), timing.used)
    if method.endswith("pairs"):
        return Estimate(Motion(binned.shape, timing.everywhere(moved), used=used), [], flags, float("nan"))
    if method == "flow":
        local = _flow(binned, timing, moved)
    else:
        patches = cut(binned, timing.used, moved, exposure, threads)
        start = np.broadcast_to(moved, (len(patches.data), *moved.shape))
        weights = b_factor_weights(patches, B_FACTOR_A2, exposure.pixel_size_A)
        measured = patch_shifts.measure(patches, weights, start, together=frames_together(exposure, len(timing.used)))
        # About the mean over frames: the first frame's own shift is as noisy as any, and subtracted it would stand in
        # all of them.
        beyond = measured - moved
        centres = patches.centres_px
        if method == "patches":
            fitted = patch_shifts.polynomial_through(
                centres, timing.everywhere(beyond.swapaxes(0, 1)).swapaxes(0, 1), binned.shape, about_mean=True
            )
            motion = Motion(
                binned.shape, timing.everywhere(moved), "polynomial", polynomial=fitted.coefficients, used=used
            )
            return Estimate(motion, [], flags, float("nan"))
        if method == "tracks":
            smooth = patch_shifts.linear_tracks(centres, beyond, NEIGHBOURS * max(binned.shape))
        else:
            smooth = patch_shifts.fit_dome(centres, beyond, binned.shape, tilt_deg, axis_deg).at(centres)
        local = patch_shifts.lattice_through(centres, smooth, binned.shape)
    local = from_first_frame(local, timing.frames)
    motion = Motion(binned.shape, timing.everywhere(moved), "spline", lattice_px=timing.everywhere(local), used=used)
    return Estimate(motion, [], flags, float("nan"))


def frames_together(exposure: Exposure, n_frames: int) -> int:
    """Neighbouring frames, an odd number, that have TOGETHER_E_A2 of exposure; a third of all at most.

    Examples
    --------
    >>> from verglas.motion import Exposure
    >>> from verglas.motion.classical import frames_together
    >>> [frames_together(Exposure(1.0, dose), 24) for dose in (1.0, 2.0, 6.0, None)]
    [5, 3, 1, 1]
    """
    dose = exposure.dose_per_frame_e_A2
    wanted = 1 if dose is None else min(int(np.ceil(TOGETHER_E_A2 / dose)), n_frames // 3)
    return max(1, wanted // 2 * 2 + 1)


def from_first_frame(local_px: FloatArray, frames: FloatArray) -> FloatArray:
    """A field (frames, ...) px as a cubic in time that begins at 0, so that no frame's noise is the reference of all.

    With 4 frames or fewer there is nothing to smooth: the first frame's is subtracted.
    """
    if len(frames) <= 4:
        return local_px - local_px[:1]
    time = (frames / max(1.0, float(frames.max())))[:, None] ** np.arange(4)
    flat = local_px.reshape(len(frames), -1)
    terms = np.linalg.lstsq(time, flat, rcond=None)[0]
    # value at the first frame used, which need not be the movie's first
    return np.asarray(((time - time[:1]) @ terms).reshape(local_px.shape))


def _flow(binned: BinnedFrames, timing: Timing, moved: FloatArray) -> FloatArray:
    """Control points (used, 7, 7, 2) in pixels through the flow of groups, linear in time between their middles."""
    factor = max(1, -(-max(binned.data.shape[1:]) // FLOW_SIDE))
    frames = np.stack([optical_flow.bin_frame(binned.data[f], factor) for f in timing.used])
    scale = factor * binned.factor
    flows = optical_flow.flow_of_frames(frames, moved / scale, FLOW_WINDOW * max(frames.shape[1:])) * scale
    y, x = (np.linspace(0, n - 1, 25).astype(int) for n in frames.shape[1:])
    values = flows[:, y[:, None], x].reshape(len(flows), -1, 2).swapaxes(0, 1)
    centres = np.stack(np.meshgrid(x, y), -1).reshape(-1, 2) * scale + (scale - 1) / 2
    middles = [part.mean() for part in np.array_split(np.arange(len(timing.used)), len(flows))]
    flat = values.swapaxes(0, 1).reshape(len(flows), -1)
    at = np.stack([np.interp(np.arange(len(timing.used)), middles, column) for column in flat.T], 1)
    each = at.reshape(len(timing.used), -1, 2).swapaxes(0, 1)
    return patch_shifts.lattice_through(centres, each, binned.shape)
