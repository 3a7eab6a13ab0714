"""What a detector does to counts: its gain, how a gain reference lies on the frames, bad pixels."""

from functools import partial

from verglas.detector.defects import find_defects
from verglas.detector.gain import GainEstimate, estimate_gain
from verglas.detector.placement import PlacedGain, place_gain
from verglas.detector.totals import frame_totals

__all__ = ["GainEstimate", "PlacedGain", "estimate_gain", "find_defects", "frame_totals", "place_gain"]
__dir__ = partial(sorted, __all__)
