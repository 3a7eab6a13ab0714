"""Contrast transfer: the CTF of images, and its estimation from micrographs (``optics.fit``)."""

from functools import partial

from verglas.optics.beam_shift import beam_shift_groups
from verglas.optics.exposure import critical_exposure_e_A2
from verglas.optics.stored import for_job, ignored_aberrations, plain_images
from verglas.optics.transfer import (
    best_resolution_A,
    compose_snr,
    ctf,
    ctf_zeros,
    defocus_accuracy_A,
    largest_pixel_size_A,
    nyquist,
    phase_flip,
    specimen_pixel_size_A,
    stage_snrs,
    wavelength_A,
    wiener,
    wiener_sum,
)

__all__ = [
    "beam_shift_groups",
    "best_resolution_A",
    "compose_snr",
    "critical_exposure_e_A2",
    "ctf",
    "ctf_zeros",
    "defocus_accuracy_A",
    "for_job",
    "ignored_aberrations",
    "largest_pixel_size_A",
    "nyquist",
    "phase_flip",
    "plain_images",
    "specimen_pixel_size_A",
    "stage_snrs",
    "wavelength_A",
    "wiener",
    "wiener_sum",
]
__dir__ = partial(sorted, __all__)
