"""A prior that is another program, called by the protocol of ``relion_refine --external_reconstruct``."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from verglas import fourier
from verglas.errors import FormatError, InputError
from verglas.io import read_map, write_map, write_star
from verglas.masks import distance_from
from verglas.regularisation.given import checked_map, join_maps
from verglas.regularisation.protocol import HalfMaps, MapSource, Regulariser, Wiener
from verglas.types import Map
from verglas.types.arrays import Float32Array, FloatArray

_LINES = 3  # of what a program said, that an error repeats
_LONGEST_S = 6 * 3600.0


@dataclass(frozen=True)
class ExternalReconstruct:
    """The prior: a program is given a STAR file for each half map, and leaves a map where that file says.

    The file's tables ``external_reconstruct_general`` and ``external_reconstruct_tau2`` name, as RELION's do, sums on a
    grid of ``rlnPaddingFactor`` times the box in the layout of a real FFT (``rlnExtReconsDataReal``,
    ``rlnExtReconsDataImag``, ``rlnExtReconsWeight``), tau^2 and FSC of every shell, and the map to be written
    (``rlnExtReconsResult``). Data over weight, transformed back, cut to the box and divided by the transform of
    trilinear interpolation, is the half map without regularisation. Where the half maps do not agree (FSC below 0.143)
    the map is that of the global prior, whatever comes back.

    Attributes
    ----------
    command : str
        As a shell would split it; the STAR file's path is added as the last argument.
    folder : Path, optional
        Where the files go; they are removed when the map has been read, and stay where something is wrong. Without, a
        folder for each call.
    longest_s : float
        A program that has not ended by then is stopped, and the refinement with it.
    """

    command: str
    folder: Path | None = None
    name: str = "external"
    longest_s: float = _LONGEST_S

    def __post_init__(self) -> None:
        """A program that cannot be found is told before the first iteration."""
        words = self._words()
        if shutil.which(words[0]) is None:
            raise InputError(
                f"refine: external_reconstruct: no program {words[0]!r} is found; give its path, or put it on PATH"
            )

    def _words(self) -> list[str]:
        try:
            words = shlex.split(self.command)
        except ValueError as error:
            raise InputError(
                f"refine: external_reconstruct: {self.command!r} cannot be read as a command ({error})"
            ) from error
        if not words:
            raise InputError("refine: external_reconstruct: expected a command, got none")
        return words

    def fit(self, given: HalfMaps) -> Regulariser:
        """tau^2 and FSC."""
        plain = Wiener().fit(given)

        def regularise(source: MapSource) -> Float32Array:
            if self.folder is not None:
                made = self._regularise_in(self.folder.resolve(), given, source)
            else:
                temporary = Path(tempfile.mkdtemp(prefix="external_reconstruct_"))
                made = self._regularise_in(temporary, given, source)
                shutil.rmtree(temporary)  # not where something was wrong: the error names a file in it
            return join_maps(made, plain(source), given)

        return regularise

    def _regularise_in(self, folder: Path, given: HalfMaps, source: MapSource) -> Float32Array:
        half = f"_{source.name}" if source.half_sets == 1 else ""
        root = folder / f"run_it{given.iteration:03d}{half}_class{given.class_number + 1:03d}"
        star = root.with_name(f"{root.name}_external_reconstruct.star")
        folder.mkdir(parents=True, exist_ok=True)
        files = _write(root, star, given, source)
        made = self._run(star, root.with_suffix(".mrc"), given, source)
        for file in files:
            file.unlink(missing_ok=True)
        return made

    def _run(self, star: Path, result: Path, given: HalfMaps, source: MapSource) -> Float32Array:
        who = f"the program {self._words()[0]} ({star})"
        result.unlink(missing_ok=True)  # what an earlier call left is no answer to this one
        try:
            # Without an input: a program that asks something would wait for an answer to what nobody sees.
            done = subprocess.run(
                [*self._words(), str(star)],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=self.longest_s,
            )
        except subprocess.TimeoutExpired as error:
            raise InputError(f"refine: {who} had not ended after {self.longest_s:g} s and was stopped") from error
        except OSError as error:
            raise InputError(f"refine: {who} cannot be run ({error.strerror or error})") from error
        if done.returncode:
            said = " / ".join((done.stderr.strip() or done.stdout.strip()).splitlines()[-_LINES:])
            raise InputError(f"refine: {who} ended with status {done.returncode}: {said or 'it said nothing'}")
        if not result.is_file():
            raise InputError(f"refine: {who} wrote no map to {result}, where rlnExtReconsResult asks for it")
        try:
            data = read_map(result, given.pixel_size_A).data
        except FormatError as error:
            raise InputError(f"refine: {who} left a map that cannot be read ({error})") from error
        return checked_map(data, source.raw.shape, who)


def _write(root: Path, star: Path, given: HalfMaps, source: MapSource) -> list[Path]:
    """The sums and the STAR file of one call; all files of it, the result included."""
    names = ("data_real", "data_imag", "weight")
    paths = {name: root.with_name(f"{root.name}_external_reconstruct_{name}.mrc") for name in names}
    weight = source.weights()
    data = _data(source.raw, weight)
    for name, values in zip(names, (data.real, data.imag, weight), strict=True):
        write_map(paths[name], Map(np.ascontiguousarray(values, np.float32), given.pixel_size_A))
    result, updated = root.with_suffix(".mrc"), root.with_name(f"{root.name}_external_reconstruct_out.star")
    general = {
        "rlnExtReconsDataReal": str(paths["data_real"]),
        "rlnExtReconsDataImag": str(paths["data_imag"]),
        "rlnExtReconsWeight": str(paths["weight"]),
        "rlnExtReconsResult": str(result),
        "rlnExtReconsResultStarfile": str(updated),
        "rlnTau2FudgeFactor": given.T,
        "rlnPaddingFactor": len(weight) / given.box,
        "rlnReferenceDimensionality": 3,
        "rlnOriginalImageSize": given.box,
        "rlnCurrentImageSize": 2 * given.radius,
        "rlnPixelSize": given.pixel_size_A,
    }
    shells = np.arange(given.box // 2 + 1)
    fsc = np.zeros(len(shells))
    fsc[: len(given.fsc)] = given.fsc[: len(shells)]
    table = pd.DataFrame(
        {
            "rlnSpectralIndex": shells,
            "rlnReferenceTau2": _tau2(given, source, weight, len(shells)),
            "rlnGoldStandardFsc": fsc,
        }
    )
    write_star(star, {"external_reconstruct_general": general, "external_reconstruct_tau2": table})
    return [*paths.values(), result, updated, star]


def _data(raw: Float32Array, weight: FloatArray) -> np.ndarray:
    """Weighted sums that trilinear gridding would have: the padded transform of the map, times the weights.

    Images' transforms are divided by the pixels of an image, as RELION's are.
    """
    box, padded = len(raw), len(weight)
    corrected = raw * np.sinc(distance_from(raw.shape) / padded).astype(np.float32) ** 2
    wide = np.zeros((padded,) * 3, np.float32)
    begin = padded // 2 - box // 2
    wide[(slice(begin, begin + box),) * 3] = corrected
    return fourier.forward(wide, 3) * (weight / box**2)


def _tau2(given: HalfMaps, source: MapSource, weight: FloatArray, count: int) -> FloatArray:
    """SSNR over T by the mean weight of each shell and the cube of the padding; 0 beyond the data.

    RELION's programs multiply by that cube before 1 / tau^2 is added to a weight (``oversampling_correction`` in
    ``BackProjector::reconstruct``).
    """
    padded = len(weight)
    shells = np.rint(fourier.radius((padded,) * 3) * given.box / padded).astype(np.int64)
    number = np.bincount(shells.ravel(), minlength=count)[:count]
    mean = np.bincount(shells.ravel(), weight.ravel(), minlength=count)[:count] / np.maximum(number, 1)
    ssnr = np.zeros(count)
    known = min(count, len(given.fsc))
    ssnr[:known] = source.half_sets * given.ssnr[:known] / given.T
    return np.divide(ssnr, mean * (padded / given.box) ** 3, out=np.zeros(count), where=mean > 0)
