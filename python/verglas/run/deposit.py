"""``verglas deposit``: the files of a run that a public archive asks for, checked before it does."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from verglas._version import __version__
from verglas.assessment.deposition import contour_for_mass, judge_claim, judge_deposition, mean_of
from verglas.errors import InputError
from verglas.io import (
    check_folder,
    make_folder,
    read_csv,
    read_json,
    read_map,
    read_particles,
    write_bytes,
    write_json,
    write_map,
    write_text,
)
from verglas.io.deposition import write_em_metadata, write_fsc_xml
from verglas.map_geometry import flip_hand
from verglas.report.html import Gallery, Page, Picture, Section, Table, render
from verglas.report.surface import level_for_volume
from verglas.run.kept_inputs import keeps_inputs
from verglas.run.maps import half_map_suffixes, read_half_maps, read_mask
from verglas.types import Map, Particles
from verglas.types.settings import JobSettings, setting, settings_from
from verglas.types.verdict import STATES, Verdict

_A_PER_NM = 10.0
_SHARE_OF_MASK, _SHARE_OF_BOX = 0.2, 0.04  # that the recommended surface encloses where no mass is given
_ENTRY = "EM9999"  # of an entry that has no number yet


@dataclass(frozen=True)
class DepositSettings(JobSettings, job="deposit"):
    """What a run's folder does not know.

    Attributes
    ----------
    class_number, mass_kDa, hand, dose_e_A2
        See ``verglas deposit --help``.
    """

    class_number: int | None = setting(None, "Class to deposit, where there are several.", at_least=1)
    mass_kDa: float | None = setting(None, "Mass of the molecule: sets the recommended contour level.", more_than=0)
    hand: str = setting("", "How the hand was found, as a sentence for the archive.")
    dose_e_A2: float | None = setting(None, "Dose of the exposures, in all.", more_than=0)


@dataclass(frozen=True)
class _Run:
    """What is deposited of a run."""

    maps: dict[str, Map]
    record: dict[str, Any]
    postprocessed: dict[str, Any]
    frequency_per_A: np.ndarray
    fsc: np.ndarray
    particles: Particles | None = None

    @property
    def resolution_A(self) -> float:
        """As it is to be stated; the crossing where it is withheld, or where an earlier version wrote no more."""
        claimed = self.postprocessed.get("claimed_resolution_A")
        return float(self.postprocessed["resolution_A"] if claimed is None else claimed)


@keeps_inputs("deposit")
def deposit(
    folder: str | Path,
    out: str | Path,
    settings: DepositSettings | None = None,
    *,
    threads: int | None = None,
    **changes: Any,
) -> Verdict:
    """Gather what EMDB asks for from a finished run, and check it as a depositor's validation would.

    Writes map.mrc (sharpened), half1.mrc, half2.mrc, mask.mrc, map_unsharpened.mrc, fsc.xml (EMDB's schema),
    metadata.cif (mmCIF, for the archive's forms), image.png (500 x 500 pixels), deposition.json and report.html.

    Parameters
    ----------
    folder : path
        Of ``verglas refine`` or ``verglas postprocess``, finished.
    out : path
        Folder to write; it is made. Files of an earlier deposition there are replaced, those of a run never.
    settings : DepositSettings, optional
        All choices at once; what is given beside them goes before.
    threads : int, optional
        Threads; the result does not depend on it.
    **changes
        Single choices, as the fields of :class:`DepositSettings`.

    Returns
    -------
    Verdict
        ``"stop"`` where an archive would refuse the files, or should.

    Raises
    ------
    InputError
        The folder is not that of a finished run, or a file is missing; the message names it. The folder to write
        is that of a run, or no folder.
    """
    chosen = settings_from("deposit", DepositSettings, settings, **changes)
    target = _folder_to_write(Path(folder), Path(out))
    run = _read_run(Path(folder), chosen.class_number)
    mean = mean_of(run.maps["half1"], run.maps["half2"])
    mirror_image = mean.with_data(flip_hand(mean.data))
    findings = judge_deposition(run.maps, mirror_image, run.resolution_A, hand=chosen.hand, threads=threads)
    findings += judge_claim(run.resolution_A, run.postprocessed.get("resolution_withheld_by"))
    verdict = Verdict.of(findings, "report.html")
    make_folder(target)
    for name, volume in run.maps.items():
        write_map(target / f"{name}.mrc", volume)
    level = _contour(run, chosen)
    write_fsc_xml(target / "fsc.xml", run.frequency_per_A, run.fsc, title="FSC of masked half maps")
    pairs, loops = _metadata(run, chosen, level)
    write_em_metadata(target / "metadata.cif", pairs, loops)
    from verglas.report.deposit import entry_image

    image = entry_image(run.maps["map"], level, run.maps.get("mask"))
    write_bytes(target / "image.png", image)
    record = {
        "verglas": __version__,
        "run": str(folder),
        "resolution_A": run.resolution_A,
        "contour_level": level,
        "metadata": pairs,
        **verdict.as_dict(),
    }
    write_json(target / "deposition.json", record)
    write_text(target / "report.html", render(_page(Path(folder), verdict, pairs, image)))
    return verdict


def _folder_to_write(folder: Path, out: Path) -> Path:
    """The one asked for, unless files of a run would be lost: both kinds have a map.mrc and a report.html."""
    check_folder(out)
    if (out.exists() and folder.exists() and out.samefile(folder)) or (out / "run.json").exists():
        raise InputError(f"{out}: it holds a run, whose map.mrc and report.html would be lost; name another folder")
    return out


def _read_run(folder: Path, number: int | None) -> _Run:
    suffix = _suffix(folder, number)
    names = {"map": f"map_sharpened{suffix}.mrc", "postprocess": f"postprocess{suffix}.json", "fsc": f"fsc{suffix}.csv"}
    for name in names.values():
        if not (folder / name).is_file():
            raise InputError(
                f"{folder}: no {name}; expected the folder of a refinement or postprocessing that has finished"
            )
    first, second = _recorded_halves(folder) or (folder / f"half1{suffix}.mrc", folder / f"half2{suffix}.mrc")
    half1, half2 = read_half_maps(first, second)
    maps = {"map": read_map(folder / names["map"]), "half1": half1, "half2": half2}
    mask, plain = folder / f"mask{suffix}.mrc", folder / f"map{suffix}.mrc"
    if mask.is_file():
        maps["mask"] = half1.with_data(read_mask(mask, half1))
    if plain.is_file():
        maps["map_unsharpened"] = read_map(plain)
    postprocessed = read_json(folder / names["postprocess"])
    crossing, claimed = postprocessed.get("resolution_A"), postprocessed.get("claimed_resolution_A", 0)
    if crossing is None or (claimed is None and not postprocessed.get("resolution_withheld_by")):
        raise InputError(f"{folder / names['postprocess']}: it states no resolution; there is nothing to deposit")
    table, run, star = (
        read_csv(folder / names["fsc"], ("frequency_per_A", "corrected")),
        folder / "run.json",
        folder / "particles.star",
    )
    return _Run(
        maps,
        read_json(run) if run.is_file() else {},
        postprocessed,
        table["frequency_per_A"].to_numpy(float),
        table["corrected"].to_numpy(float),
        _of_class(read_particles(star), number) if star.is_file() else None,
    )


def _suffix(folder: Path, number: int | None) -> str:
    """Of the files of a class; empty where there is one class."""
    suffixes = half_map_suffixes(folder)
    if suffixes == [""] or _recorded_halves(folder):
        if number not in (None, 1):
            raise InputError(f"{folder}: there is one class; --class-number {number} is none of it")
        return ""
    classes = [int(suffix.removeprefix("_class")) for suffix in suffixes]
    if not classes:
        raise InputError(f"{folder}: no half1.mrc and half2.mrc; expected the folder of a refinement that has finished")
    if number not in classes:
        asked = "give --class-number" if number is None else f"--class-number {number} is none of them"
        raise InputError(f"{folder}: classes {', '.join(map(str, classes))}: {asked}")
    return f"_class{number}"


def _recorded_halves(folder: Path) -> tuple[Path, Path] | None:
    """The half maps that a postprocessing read, where its folder holds none."""
    record = folder / "postprocess.json"
    if (folder / "half1.mrc").is_file() or not record.is_file():
        return None
    settings = read_json(record).get("settings") or {}
    if "half_map_1" not in settings or "half_map_2" not in settings:
        return None
    paths = Path(settings["half_map_1"]), Path(settings["half_map_2"])
    for path in paths:
        if not path.is_file():
            raise InputError(
                f"{path}: no such file, though {record} was made from it; start where the postprocessing was started, "
                f"or copy the half maps to {folder} as half1.mrc and half2.mrc"
            )
    return paths


def _of_class(particles: Particles, number: int | None) -> Particles:
    if number is None or "rlnClassNumber" not in particles.table:
        return particles
    return particles[np.flatnonzero(particles.table["rlnClassNumber"].to_numpy() == number)]


def _contour(run: _Run, settings: DepositSettings) -> float:
    """Recommended level: that encloses the molecule's mass, or else a fifth of the mask."""
    volume, mask = run.maps["map"], run.maps.get("mask")
    if settings.mass_kDa is not None:
        return round(contour_for_mass(volume, settings.mass_kDa, mask), 5)
    if mask is None:
        return round(level_for_volume(volume.data, _SHARE_OF_BOX), 5)
    return round(level_for_volume(volume.data[mask.data > 0.5], _SHARE_OF_MASK), 5)


def _metadata(
    run: _Run, settings: DepositSettings, level: float
) -> tuple[dict[str, Any], dict[str, list[dict[str, Any]]]]:
    """Items of the mmCIF dictionary that the run knows; the others are the depositor's."""
    volume = run.maps["map"]
    # A postprocessing says it among its settings; where nobody says it, nothing is claimed.
    symmetry = run.record.get("symmetry") or (run.postprocessed.get("settings") or {}).get("symmetry")
    pairs: dict[str, Any] = {
        "_em_3d_reconstruction.entry_id": _ENTRY,
        "_em_3d_reconstruction.id": 1,
        "_em_3d_reconstruction.image_processing_id": 1,
        "_em_3d_reconstruction.num_particles": None if run.particles is None else len(run.particles),
        "_em_3d_reconstruction.resolution": round(run.resolution_A, 2),
        "_em_3d_reconstruction.resolution_method": "FSC 0.143 CUT-OFF",
        "_em_3d_reconstruction.symmetry_type": "POINT",
        "_em_3d_reconstruction.details": _details(run, settings),
        "_em_single_particle_entity.id": 1,
        "_em_single_particle_entity.image_processing_id": 1,
        "_em_single_particle_entity.point_symmetry": symmetry,
        "_em_particle_selection.id": 1,
        "_em_particle_selection.image_processing_id": 1,
        "_em_particle_selection.num_particles_selected": run.record.get("n_particles"),
        "_em_map.contour_level": level,
        "_em_map.contour_level_source": "author",
        "_em_map.pixel_spacing_x": round(volume.pixel_size_A, 5),
        "_em_map.pixel_spacing_y": round(volume.pixel_size_A, 5),
        "_em_map.pixel_spacing_z": round(volume.pixel_size_A, 5),
        **_microscope(run.particles, settings),
    }
    steps = ("INITIAL EULER ASSIGNMENT", "FINAL EULER ASSIGNMENT", "RECONSTRUCTION", "CTF CORRECTION")
    version = str(run.record.get("verglas") or __version__)
    software = [
        {"id": i, "category": step, "name": "verglas", "version": version, "image_processing_id": 1}
        for i, step in enumerate(steps, 1)
    ]
    return pairs, {"_em_software.": software}


def _details(run: _Run, settings: DepositSettings) -> str:
    """What has no item of its own."""
    b_factor = run.postprocessed.get("b_factor_A2")
    sharpening = "" if not b_factor else f"sharpened by a B-factor of {-float(b_factor):.1f} A^2; "
    return f"{sharpening}hand: {settings.hand or 'not determined'}"


def _microscope(particles: Particles | None, settings: DepositSettings) -> dict[str, Any]:
    """What the particles' optics say; None for what they leave open or do not agree on."""
    items: dict[str, Any] = {
        "_em_image_recording.id": 1,
        "_em_image_recording.avg_electron_dose_per_image": settings.dose_e_A2,
        "_em_ctf_correction.id": 1,
        "_em_ctf_correction.em_image_processing_id": 1,
        "_em_ctf_correction.type": "PHASE FLIPPING AND AMPLITUDE CORRECTION",
        "_em_imaging.id": 1,
    }
    if particles is None or particles.optics is None:
        return items
    optics = particles.optics

    def only(values: np.ndarray, scale: float = 1.0) -> float | None:
        one = np.unique(values)
        return round(float(one[0]) * scale, 4) if len(one) == 1 else None

    mean_nm = (optics.defocus_u_A + optics.defocus_v_A) / 2 / _A_PER_NM
    return {
        **items,
        "_em_imaging.accelerating_voltage": only(optics.voltage_kV),
        "_em_imaging.nominal_cs": only(optics.cs_mm),
        "_em_imaging.calibrated_defocus_min": round(float(np.min(mean_nm)), 1),
        "_em_imaging.calibrated_defocus_max": round(float(np.max(mean_nm)), 1),
    }


def _page(folder: Path, verdict: Verdict, pairs: dict[str, Any], image: bytes) -> Page:
    findings = sorted(verdict.findings, key=lambda f: -STATES.index(f.state))
    rows = [(f.code.replace("-", " "), f.state, f.sentence) for f in findings]
    marked = [i for i, row in enumerate(rows) if row[1] != "go on"]
    summary = {
        "go on": "Nothing stands in the way of a deposition.",
        "warn": "These files can be deposited; look at the warnings first.",
        "stop": "Do not deposit these files.",
    }[verdict.state]
    items = [(item, "not known" if value is None else value) for item, value in pairs.items()]
    now = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    return Page(
        f"verglas deposit: {folder.name}",
        summary,
        {
            "resolution": f"{pairs['_em_3d_reconstruction.resolution']} A",
            "contour level": f"{pairs['_em_map.contour_level']}",
        },
        [
            Section("Checks", blocks=[Table(("check", "answer", "why"), rows, marked=marked)]),
            Section(
                "Image of the entry",
                "The surface at the recommended contour level.",
                [Gallery([Picture(image, "Surface of the map", "image.png")])],
            ),
            Section(
                "Metadata", "metadata.cif; what is not known is left for the forms.", [Table(("item", "value"), items)]
            ),
        ],
        f"verglas {__version__}, {now}",
    )
