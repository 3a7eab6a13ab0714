"""Contrast transfer: the CTF of images, and its estimation from micrographs (``optics.fit``)."""

from functools import partial

from verglas.optics.aberrations import Aberrations, image_optics, magnify, with_aberrations
from verglas.optics.beam_shift import beam_shift_groups
from verglas.optics.ewald import depth_of_field_resolution_A, depth_of_field_sentence
from verglas.optics.exposure import critical_exposure_e_A2
from verglas.optics.one_grid import common_size
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
from verglas.optics.zernike import Seidel, seidel, zernike, zernike_indices, zernike_of_seidel, zernike_sum

__all__ = [
    "Aberrations",
    "Seidel",
    "beam_shift_groups",
    "best_resolution_A",
    "common_size",
    "compose_snr",
    "critical_exposure_e_A2",
    "ctf",
    "ctf_zeros",
    "defocus_accuracy_A",
    "depth_of_field_resolution_A",
    "depth_of_field_sentence",
    "for_job",
    "ignored_aberrations",
    "image_optics",
    "largest_pixel_size_A",
    "magnify",
    "nyquist",
    "phase_flip",
    "plain_images",
    "seidel",
    "specimen_pixel_size_A",
    "stage_snrs",
    "wavelength_A",
    "wiener",
    "wiener_sum",
    "with_aberrations",
    "zernike",
    "zernike_indices",
    "zernike_of_seidel",
    "zernike_sum",
]
__dir__ = partial(sorted, __all__)
