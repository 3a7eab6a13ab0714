"""``verglas ctf-refine``: defocus of particles and aberrations of groups, from particles with poses."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from verglas._devices import one_device, work_on
from verglas._screen import ListenerChoice, shown_to
from verglas.errors import InputError
from verglas.io import check_folder, read_map, read_particles, write_json, write_map, write_particles
from verglas.io.atomic import write_text
from verglas.optics.refine import (
    Pixels,
    Setting,
    calibrate,
    defocus_pass,
    fit_defocus,
    fit_magnification,
    fit_phase,
    group_pass,
    micrograph_pass,
    recalibrate,
)
from verglas.optics.refine.micrographs import Term
from verglas.report.ctf_refine import DrawnMagnification, DrawnPhase, refinement_page
from verglas.run.checkpoint import Checkpoints
from verglas.run.ctf_refine_inputs import Prepared, places, prepare, with_group_fits, with_micrograph_fit
from verglas.run.ctf_refine_rounds import Round, RoundsKeeper
from verglas.run.ctf_refine_terms import (
    MICROGRAPH_TERMS,
    fit_record,
    gains_table,
    groups_table,
    indices_of,
    settings_of_words,
)
from verglas.run.half_maps import maps_digest, masked_halves, pixels_between, reconstruct_halves
from verglas.run.kept_inputs import keeps_inputs
from verglas.run.refine_inputs import close_identity
from verglas.run.tenure import lock_project
from verglas.types import Map, Particles
from verglas.types.convert import MapLike, ParticlesLike, map_of, particles_of
from verglas.types.display import one_line
from verglas.types.listener import Listener
from verglas.types.settings import check_settings, result_settings, setting, settings_from

_LEAST_SHELLS = 5  # with signal; fewer decide nothing


@dataclass(frozen=True)
class CtfRefineSettings:
    """What is fitted, and between which limits."""

    defocus: bool = setting(True, "Fit the defocus of every particle")
    odd: bool = setting(True, "Fit beam tilt and trefoil of every optics group")
    even: bool = setting(False, "Fit aberrations of fourth order, Cs among them, of every optics group")
    magnification: bool = setting(False, "Fit the magnification matrix of every optics group")
    astigmatism: bool = setting(False, "Fit the astigmatism of every micrograph")
    phase_shift: bool = setting(False, "Fit the phase shift of every micrograph")
    b_factor: bool = setting(False, "Fit scale and B-factor of every micrograph")
    odd_terms: str = setting("beam_tilt trefoil", "With odd: which of beam_tilt, trefoil")
    even_terms: str = setting("fourth_order", "With even: which of tetrafoil, cs, fourth_order (all)")
    rounds: int = setting(4, "Most rounds of reconstruction and fit", at_least=1)
    defocus_range_A: float = setting(2000.0, "Largest change of a defocus", more_than=25)
    max_resolution_A: float | None = setting(None, "Finest resolution in use", default_words="Nyquist", more_than=0)
    symmetry: str = setting("C1", "Point group of the reconstructions")
    diameter_A: float | None = setting(
        None, "Diameter of the particle, for the mask", default_words="made from the map", more_than=0
    )

    def __post_init__(self) -> None:
        """Check ranges once."""
        check_settings("ctf-refine", self)
        indices_of(self.odd_terms)
        indices_of(self.even_terms)

    @property
    def of_micrographs(self) -> list[Term]:
        """Terms that are fitted to every micrograph."""
        return [term for term in MICROGRAPH_TERMS if getattr(self, term)]


@one_line
@dataclass(frozen=True)
class CtfRefinement:
    """What :func:`refine_ctf` gives.

    Attributes
    ----------
    particles : Particles
        With the refined optics; images and poses as they were.
    rounds : list of Round
    verdict : str
        In a sentence, what changed, or why nothing did.
    half_maps : (Map, Map)
        That the last round was fitted against.
    settings : CtfRefineSettings
    seconds : float
    excluded : dict of int -> str
        Particle (row from 0) that nothing was fitted to -> why.
    """

    particles: Particles
    rounds: list[Round]
    verdict: str
    half_maps: tuple[Map, Map]
    settings: CtfRefineSettings
    seconds: float
    excluded: dict[int, str] = field(default_factory=dict)

    @property
    def optics_groups(self) -> pd.DataFrame:
        """A row per optics group: RELION's labels, and ``<label>_error`` of those that were fitted."""
        return groups_table(self.particles, self.rounds)

    @property
    def gains(self) -> pd.DataFrame:
        """A row per fit: round, term, held-out gain (nats) with its standard error, and whether it was kept."""
        return gains_table(self.rounds)


def refine_ctf(
    particles: ParticlesLike,
    settings: CtfRefineSettings | None = None,
    *,
    half_maps: tuple[MapLike, MapLike] | None = None,
    mask: MapLike | None = None,
    fit: str | Sequence[str] | None = None,
    device: str = "cpu",
    threads: int | None = None,
    listener: ListenerChoice = "screen",
    **changes: Any,
) -> CtfRefinement:
    """Refine defocus and aberrations of particles with known poses, each against the other half's map.

    Every fit is judged on data that it did not see: those of groups on the other half of the particles, those of
    defoci on the other half of the Fourier pixels. Only what gains more than three standard errors is applied. Rounds
    of reconstruction and fit go on until nothing gains.

    Parameters
    ----------
    particles : Particles or path
        With poses, CTFs and an optics table.
    settings : CtfRefineSettings, optional
        Further keywords (``even=True``) change its fields.
    half_maps : two Map or path, optional
        For the first round, of rlnRandomSubset 1 and 2; reconstructed if not given.
    mask : Map or path, optional
        Solvent mask, 0 to 1; made from the maps if not given.
    fit : sequence of str, optional
        What is fitted, in words, and nothing else: defocus (of particles); astigmatism, phase_shift, b_factor (of
        micrographs); beam_tilt, trefoil, tetrafoil, cs, fourth_order, magnification (of optics groups).
    device : str
        ``"cpu"``, or a GPU as ``"cuda:0"``: images and slices are compared there.
    threads : int, optional
        Threads; all by default.
    listener : Listener or None
        Who hears how it goes; None: silence.

    Returns
    -------
    CtfRefinement

    Raises
    ------
    InputError
        No poses, no CTFs, no optics table; half maps without half sets; images changed by the CTF that is to be fitted.

    Warns
    -----
    VerglasWarning
        Particles are set aside: images or CTF parameters that say nothing. Columns that are not applied.

    References
    ----------
    Zivanov, Nakane and Scheres (2020) IUCrJ 7, 253-267, of which this is the likelihood, with an amplitude of each
    shell, and a prior of the defocus that learns its width.

    Examples
    --------
    >>> import verglas as vg
    >>> model = vg.simulate.phantom(32, 3.0, 70.0)
    >>> particles = vg.simulate.particles(model, 120, 32, 3.0, snr=0.5, seed=1)
    >>> found = vg.refine_ctf(particles, rounds=1, listener=None)
    >>> len(found.particles), len(found.rounds)
    (120, 1)
    """
    changes = (settings_of_words(fit) if fit is not None else {}) | changes
    chosen = settings_from("ctf-refine", CtfRefineSettings, settings, **changes)
    given = particles_of(particles, "ctf-refine: particles")
    maps = None if half_maps is None else [map_of(m, "ctf-refine: half map") for m in half_maps]
    solvent = None if mask is None else map_of(mask, "ctf-refine: mask")
    with shown_to(listener) as heard:
        return _refine(given, _Against(maps, solvent), chosen, _Work.on(device, threads), heard)


@dataclass(frozen=True)
class _Work:
    """Where it is done."""

    device: str
    threads: int | None

    @classmethod
    def on(cls, device: str, threads: int | None) -> _Work:
        return cls(one_device("ctf-refine", device), threads)


@dataclass(frozen=True)
class _Against:
    """Half maps of the first round, and the solvent mask, where they are given."""

    half_maps: list[Map] | None
    mask: Map | None


def _refine(
    given: Particles,
    against: _Against,
    chosen: CtfRefineSettings,
    work: _Work,
    heard: Listener,
    keeper: RoundsKeeper | None = None,
) -> CtfRefinement:
    """Rounds of reconstruction and fit, from where the keeper has them."""
    begun = time.perf_counter()
    if chosen.of_micrographs and "rlnMicrographName" not in given.table:
        raise InputError(
            f"{given.where}: ctf-refine: {chosen.of_micrographs[0]} is fitted to every micrograph, and "
            "rlnMicrographName, which says whose particles are whose, is missing"
        )
    prepared = prepare(
        given,
        fits_ctf=chosen.defocus or chosen.even or chosen.magnification or bool(chosen.of_micrographs),
        needs_halves=against.half_maps is not None,
    )
    state, rounds = (prepared.particles, []) if keeper is None else keeper.load(prepared.particles)
    maps = against.half_maps
    if prepared.excluded:
        heard.say(prepared.sentence)
    for number in range(len(rounds) + 1, chosen.rounds + 1):
        if maps is None or number > 1:
            maps = list(reconstruct_halves(state, chosen.symmetry, work.threads, work.device))
        first, second = maps
        masked = masked_halves("ctf-refine", (first, second), against.mask, chosen.diameter_A, work.threads)
        with work_on(work.device):
            state, made = _one_round(state, prepared, masked, chosen, work, heard)
        # sums of many groups at a large box are gigabytes: only those of the first round are drawn
        rounds.append(made if number == 1 else replace(made, sums=None))
        heard.say(_sentence(number, made))
        if not made.kept:
            break
        if keeper is not None and number < chosen.rounds:
            keeper.save(state, prepared.particles, rounds)
    assert maps is not None
    first, second = maps
    seconds = time.perf_counter() - begun
    refined = prepared.whole(state) if any(made.kept for made in rounds) else given
    return CtfRefinement(refined, rounds, _verdict(rounds), (first, second), chosen, seconds, prepared.excluded)


@dataclass
class _Fitting:
    """One round as it goes: particles whose optics change, and what they are measured against."""

    state: Particles
    prepared: Prepared
    maps: tuple[Map, Map]
    pixels: Pixels
    work: _Work
    heard: Listener

    def __post_init__(self) -> None:
        self._measure()

    def _measure(self) -> None:
        self.setting = Setting.of(
            self.state,
            self.prepared.half,
            self.maps,
            self.pixels,
            self.work.threads,
            image=self.prepared.image,
            device=self.work.device,
        )
        self.calibration = calibrate(self.setting)
        self.groups = [int(g) for g in np.unique(self.setting.group)]

    def _take(self, fits: Round) -> Round:
        if fits.kept:
            self.state = with_group_fits(self.state, fits.odd, fits.even, fits.magnification)
            self._measure()
        return fits

    def magnification(self, made: Round) -> Round:
        """Before phases, and by itself: through the CTF it looks like astigmatism; together each would be corrected."""
        sums = group_pass(self.setting, self.calibration, True, self.heard)
        amplitude = self.calibration.amplitude.mean(axis=0)
        return self._take(replace(made, magnification={g: fit_magnification(sums, g, amplitude) for g in self.groups}))

    def phases(self, made: Round, odd: str, even: str) -> Round:
        """Beam tilt and trefoil; fourth order."""
        sums = group_pass(self.setting, self.calibration, False, self.heard)
        fits = Round(
            made.informative_shells,
            odd={g: fit_phase(sums, g, "odd", indices_of(odd)) for g in self.groups} if odd else {},
            even={g: fit_phase(sums, g, "even", indices_of(even)) for g in self.groups} if even else {},
        )
        self._take(fits)
        return replace(made, sums=sums, odd=fits.odd, even=fits.even)

    def defocus(self, made: Round, range_A: float) -> Round:
        """Of every particle."""
        optics, where = self.state.optics, places(self.state)
        calibration = recalibrate(self.setting, self.calibration, range_A, *where)
        scores = defocus_pass(self.setting, calibration, range_A, self.heard)
        micrograph, xy = where
        fit = fit_defocus(scores, (optics.defocus_u_A + optics.defocus_v_A) / 2, micrograph, xy)
        if fit.kept:
            table = self.state.table
            columns = {c: table[c].to_numpy(np.float64) + fit.change_A for c in ("rlnDefocusU", "rlnDefocusV")}
            self.state = self.state.with_columns(**columns)
        return replace(made, defocus=fit)

    def micrographs(self, made: Round, term: Term) -> Round:
        """A term of every micrograph; where it is kept, once more, with amplitudes that its lack no longer lowers."""
        self._measure()  # defoci have changed since
        micrograph = places(self.state)[0]
        fit = micrograph_pass(self.setting, self.calibration, term, micrograph, self.heard)
        if fit.kept:
            self.state = with_micrograph_fit(self.state, fit, micrograph)
            self._measure()
            again = micrograph_pass(self.setting, self.calibration, term, micrograph, self.heard)
            self.state = with_micrograph_fit(self.state, again, micrograph)
            fit = replace(fit, change=fit.change + again.change, standard_error=again.standard_error)
        return replace(made, micrographs=made.micrographs | {term: fit})


def _one_round(
    state: Particles,
    prepared: Prepared,
    maps: tuple[Map, Map],
    chosen: CtfRefineSettings,
    work: _Work,
    heard: Listener,
) -> tuple[Particles, Round]:
    pixels = pixels_between("ctf-refine", state, maps[0], chosen.max_resolution_A)
    fitting = _Fitting(state, prepared, maps, pixels, work, heard)
    made = Round(fitting.calibration.informative)
    if made.informative_shells < _LEAST_SHELLS:
        return state, made
    if chosen.magnification:
        made = fitting.magnification(made)
    if chosen.odd or chosen.even:
        made = fitting.phases(made, chosen.odd_terms * chosen.odd, chosen.even_terms * chosen.even)
    if chosen.defocus:
        made = fitting.defocus(made, chosen.defocus_range_A)
    for term in chosen.of_micrographs:
        made = fitting.micrographs(made, term)
    return fitting.state, made


def _sentence(number: int, made: Round) -> str:
    if made.informative_shells < _LEAST_SHELLS:
        return f"round {number}: the reference explains the images in {made.informative_shells} shells: nothing fitted"
    told = [
        f"{name} {fit.gain_nats:+.0f} +- {fit.gain_error_nats:.0f} nats{'' if fit.kept else ' (not kept)'}"
        for name, fit in made.fits()
    ]
    return f"round {number}: held-out data gain " + "; ".join(told)


def _verdict(rounds: list[Round]) -> str:
    kept = sorted({name for made in rounds for name in made.kept})
    if kept:
        return f"{len(rounds)} rounds; held-out data gained by " + ", ".join(kept)
    if rounds[0].informative_shells < _LEAST_SHELLS:
        return (
            f"nothing was changed: the other half's map explains the images in {rounds[0].informative_shells} shells "
            f"only, {_LEAST_SHELLS} are needed: wrong map, wrong poses, or nothing but noise"
        )
    return "nothing was changed: held-out data gain nothing by any fit beyond three standard errors"


@dataclass(frozen=True)
class CtfRefineJob:
    """What ``verglas ctf-refine`` is asked for.

    Attributes
    ----------
    particles : Path
    out : Path
        Folder to write.
    half_maps : (Path, Path), optional
    mask : Path, optional
    stack : Path, optional
    settings : CtfRefineSettings
    threads : int, optional
    resume : bool
        There must be a job in ``out`` that was stopped. The same job goes on from one by itself.
    device : str
        As in :func:`refine_ctf`.
    """

    particles: Path
    out: Path
    half_maps: tuple[Path, Path] | None = None
    mask: Path | None = None
    stack: Path | None = None
    settings: CtfRefineSettings = field(default_factory=CtfRefineSettings)
    threads: int | None = None
    resume: bool = False
    device: str = "cpu"


def summary(refined: CtfRefinement) -> dict[str, Any]:
    """Figures of a refinement for JSON."""
    rounds = [
        {
            "informative_shells": made.informative_shells,
            "fits": [fit_record(name, fit) for name, fit in made.fits()],
        }
        for made in refined.rounds
    ]
    return {
        "verdict": refined.verdict,
        "particles": len(refined.particles),
        "excluded": len(refined.excluded),
        "rounds": rounds,
        "settings": asdict(refined.settings),
        "seconds": round(refined.seconds, 1),
    }


@keeps_inputs("ctf-refine")
def ctf_refine_files(job: CtfRefineJob, *, listener: ListenerChoice = "screen") -> dict[str, Any]:
    """Read, refine, write particles.star, half1.mrc, half2.mrc, ctf_refine.json and report.html; the summary.

    Particles and fits are kept after each round until all is written.
    """
    check_folder(job.out)
    work = _Work.on(job.device, job.threads)
    particles = read_particles(job.particles, stack=job.stack)
    maps = None if job.half_maps is None else [read_map(path) for path in job.half_maps]
    mask = None if job.mask is None else read_map(job.mask)
    with shown_to(listener) as heard, lock_project(job.out):
        halves, solvent = maps_digest(maps) or "of the particles", maps_digest(None if mask is None else [mask])
        inputs = close_identity(particles) | {"half maps": halves, "mask": solvent or "of the maps"}
        checkpoints = Checkpoints(job.out, result_settings(job.settings), inputs, heard.say)
        checkpoints.open(resume=job.resume)
        keeper = RoundsKeeper(checkpoints.part("rounds"), checkpoints.part("sums"))
        try:
            refined = _refine(particles, _Against(maps, mask), job.settings, work, heard, keeper)
        except InputError:
            if keeper.rounds.load() is None:  # nothing that a second call could go on from
                checkpoints.remove()
            raise
        told = _write(job, refined)
        checkpoints.remove()
    return told


def _write(job: CtfRefineJob, refined: CtfRefinement) -> dict[str, Any]:
    write_particles(job.out / "particles.star", refined.particles)
    for name, volume in zip(("half1.mrc", "half2.mrc"), refined.half_maps, strict=True):
        write_map(job.out / name, volume)
    told = summary(refined)
    write_json(job.out / "ctf_refine.json", told)
    first = refined.rounds[0]
    drawn = [
        DrawnPhase(f"{parity} phase of optics group {g + 1}", first.sums, g, parity, fit)
        for parity, fits in (("odd", first.odd), ("even", first.even))
        for g, fit in fits.items()
        if first.sums is not None
    ]
    matrices = [
        DrawnMagnification(f"magnification of optics group {g + 1}", fit)
        for g, fit in first.magnification.items()
        if fit.displacement_per_A is not None and np.isfinite(fit.displacement_per_A).any()
    ]
    write_text(job.out / "report.html", refinement_page(refined.particles, drawn, matrices, first.defocus, told))
    return told
