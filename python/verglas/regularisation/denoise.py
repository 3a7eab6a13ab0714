"""A learned denoiser of half maps as a prior: the local filter, opened only where a trained network agrees."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from verglas.assessment.local_bands import Band
from verglas.assessment.local_network import NetworkValues
from verglas.assessment.local_scan import SignificanceValues
from verglas.regularisation.local import LocalWiener
from verglas.types.arrays import Float32Array


@dataclass(frozen=True)
class LearnedDenoiser(LocalWiener):
    """The prior: as :class:`LocalWiener`, where the network of ``local-resolution --method network`` says so, too.

    The windowed FSC of a place is beyond chance also where well ordered density beside it shines in; the network,
    trained on phantoms with planted resolutions, has learned what that looks like. It only takes from places the gain
    of their own: they join the rest of the molecule, whose shared gain rises by their agreement. It gives no density of
    its own: what comes out is each half map's bands times gains of at most Wiener's. What it says is the same whichever
    half is called the first and holds no phases.
    """

    name: str = "denoise"

    def _also(self, values: SignificanceValues, band: Band, averages: list[Float32Array]) -> npt.NDArray[np.bool_]:
        network = NetworkValues(values.spectra, values.box, values.inside, values.settings, values.threads)
        network.window_share = 1.0  # the windows of the filter
        threshold = network.threshold(band, averages)
        return np.asarray(network.of(averages) >= threshold)
