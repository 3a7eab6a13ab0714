"""How good is a map: Fourier shell correlation and what follows from it."""

from verglas.assessment.fsc import FSC, c_ref, fsc, full_map_fsc, ssnr_from_fsc, threshold_curve

__all__ = ["FSC", "c_ref", "fsc", "full_map_fsc", "ssnr_from_fsc", "threshold_curve"]
