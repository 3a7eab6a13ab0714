"""What the acquisition software wrote down about one movie."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from verglas.errors import InputError


@dataclass(frozen=True)
class Acquisition:
    """How one movie was recorded, as far as the acquisition software says it; None where it does not.

    Attributes
    ----------
    source : str
        The file, or rule of names, it comes from.
    pixel_size_A, voltage_kV : float
    total_dose_e_A2 : float
        Exposure of the whole movie.
    dose_per_frame_e_A2 : float
    frames : int
    pre_exposure_e_A2 : float
        Exposure before the movie.
    beam_shift : (float, float)
        x and y, in whatever unit the microscope has: it serves to tell holes apart.
    group : str
        What a name says of the place in a pattern of holes or shots.
    movie : str
        Name of the movie's file, without folders.

    Examples
    --------
    >>> from verglas.types.acquisition import Acquisition
    >>> a = Acquisition("a.mdoc", voltage_kV=300.0, total_dose_e_A2=40.0, frames=50)
    >>> a.per_frame, a.contradictions(voltage_kV=200.0, pixel_size_A=1.1)
    (0.8, ['voltage_kV: 300 in a.mdoc, 200 given'])
    """

    source: str
    pixel_size_A: float | None = None
    voltage_kV: float | None = None
    total_dose_e_A2: float | None = None
    dose_per_frame_e_A2: float | None = None
    frames: int | None = None
    pre_exposure_e_A2: float | None = None
    beam_shift: tuple[float, float] | None = None
    group: str | None = None
    movie: str | None = None

    def __post_init__(self) -> None:
        """What is not positive is not known."""
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int | float):
                if not np.isfinite(value):
                    raise InputError(f"{self.source}: {field.name} is {value}")
                if value < 0 or (value == 0 and field.name != "pre_exposure_e_A2"):
                    object.__setattr__(self, field.name, None)

    @property
    def per_frame(self) -> float | None:
        """Exposure of a frame, from the total where it is not said itself."""
        if self.dose_per_frame_e_A2 is None and self.total_dose_e_A2 and self.frames:
            return self.total_dose_e_A2 / self.frames
        return self.dose_per_frame_e_A2

    def contradictions(self, **given: float | None) -> list[str]:
        """Sentences on values given that differ by more than 2 % from what was recorded.

        Parameters
        ----------
        **given
            ``pixel_size_A``, ``voltage_kV``, ``dose_per_frame_e_A2``, ``pre_exposure_e_A2``; None is no value.
        """
        sentences = []
        for name, value in given.items():
            known = self.per_frame if name == "dose_per_frame_e_A2" else getattr(self, name)
            if value is not None and known is not None and abs(known - value) > 0.02 * max(abs(known), abs(value)):
                sentences.append(f"{name}: {known:.5g} in {self.source}, {value:.5g} given")
        return sentences
