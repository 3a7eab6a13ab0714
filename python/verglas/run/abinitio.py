"""``vg.abinitio``: a first map from particles alone, with a verdict on whether to believe it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from verglas._devices import one_device
from verglas._screen import ListenerChoice, shown_to
from verglas._version import __version__
from verglas.errors import InputError
from verglas.initial_model.find import AbInitio, problem_of, search_initial_model
from verglas.initial_model.settings import AbInitioSettings
from verglas.io import read_particles, write_json, write_map, write_particles
from verglas.optics import for_job
from verglas.report.abinitio import write_abinitio_page
from verglas.run.abinitio_memory import plan_memory
from verglas.run.abinitio_page import SUMMARY, shown_record, shown_result
from verglas.run.abinitio_watch import Watch
from verglas.run.kept_inputs import keeps_inputs
from verglas.run.tenure import now_text, tenure
from verglas.search.grid_search import Where
from verglas.types import Particles
from verglas.types.convert import particles_of
from verglas.types.settings import present_names, settings_from


@keeps_inputs("abinitio")
def abinitio(
    particles: Particles | str | Path,
    symmetry: str | None = None,
    diameter_A: float | None = None,
    *,
    settings: AbInitioSettings | None = None,
    out: str | Path | None = None,
    flip_hand: bool = False,
    resume: bool = False,
    device: str = "cpu",
    threads: int | None = None,
    memory_GB: float | None = None,
    listener: ListenerChoice = "screen",
    **changes: Any,
) -> AbInitio:
    """A first map from particles alone: stochastic EM from several random starts, and a verdict.

    Images are Fourier-cropped to what the final resolution needs. Every start learns from mini-batches that grow, at a
    resolution that grows; particles that no start has seen rank them, and starts that end in the same map confirm each
    other. Images cannot tell a structure from its mirror image: the hand is undetermined.

    With a folder to write to, iterations leave a checkpoint there, and a page that shows the maps as they stand. The
    same call after it was stopped goes on from the checkpoint, to the same result bit for bit.

    Parameters
    ----------
    particles : Particles or path
        RELION STAR or cryoSPARC CS; or class averages.
    symmetry : str, optional
        Point group, imposed from the start, C1 by default; or "auto": the group that the map made without symmetry
        turns out to have, its axes put where the group has them.
    diameter_A : float, optional
        Diameter of the particle; four fifths of the box by default.
    settings : AbInitioSettings, optional
        All choices at once; what is given beside them goes before.
    out : path, optional
        Folder for maps, particles, summary and page; nothing is written without.
    flip_hand : bool
        Give the other hand.
    resume : bool
        There must be a checkpoint in ``out`` to go on from; if there is one, it is used in any case.
    device : str
        ``"cpu"``, or ``"cuda:<number>"``: where images are scored and added up. A run may go on on another.
    threads : int, optional
        Threads; all by default. The result does not depend on it.
    memory_GB : float, optional
        Most that the process may take; what would take more is refused at once, and what it will take is said.
    listener : Listener, "screen" or None
        Who is told how it goes (:class:`verglas.types.listener.Listener`).
    **changes
        Single choices, as the fields of :class:`verglas.initial_model.AbInitioSettings`: ``classes``, ``starts``, ...

    Returns
    -------
    AbInitio

    Raises
    ------
    SettingError
        Settings are unknown or out of bounds; all of them are named.
    InputError
        Fewer than 50 particles can be used, they have no images or no CTF, or a run with other settings or particles
        was stopped in the folder.

    References
    ----------
    Punjani et al. (2017) Nature Methods 14, 290-296; Cappe and Moulines (2009) J. R. Stat. Soc. B 71, 593-613.

    Examples
    --------
    >>> import verglas as vg
    >>> model = vg.simulate.phantom(32, 5.0, 110.0)
    >>> particles = vg.simulate.particles(model, 100, 32, 5.0, snr=1.0, seed=1)
    >>> result = vg.abinitio(particles, diameter_A=125, starts=1, iterations=3, full_iterations=1)
    >>> result.map.box, result.verdict.starts, len(result.particles)
    (32, 1, 100)
    """
    changes = present_names("abinitio", changes, {"mirror": "flip_hand"})
    flip_hand = changes.pop("flip_hand", flip_hand)
    required = {"symmetry": symmetry, "diameter_A": diameter_A}
    changes |= {name: value for name, value in required.items() if value is not None}
    resolved_settings = settings_from("abinitio", AbInitioSettings, settings, **changes)
    source = particles_of(particles, "abinitio: particles")
    if source.source is None:
        raise InputError(f"{source.where}: these particles have no images")
    folder = None if out is None else Path(out)
    if folder is None and resume:
        raise InputError("abinitio: resume needs the run folder (out)")
    where = Where(one_device("abinitio", device), threads)
    on_one_grid = for_job(source, "abinitio")
    plan = plan_memory(problem_of(on_one_grid, resolved_settings, where), resolved_settings, on_one_grid.box, memory_GB)
    with shown_to(listener) as heard:
        if folder is None:
            watch = Watch(None, resolved_settings, source, heard)
            return search_initial_model(on_one_grid, resolved_settings, where, flip_hand=flip_hand, records=watch)
        with tenure(folder, "abinitio", heard) as hold:
            # Inside the hold: opening removes checkpoints of another version, which no other process may then write.
            watch = Watch(folder, resolved_settings, source, hold, resume=resume)
            hold.write(state="running", n_particles=len(source), settings=asdict(resolved_settings))
            watch.show_plan(plan)
            try:
                result = search_initial_model(on_one_grid, resolved_settings, where, flip_hand=flip_hand, records=watch)
                watch.last_page()
                _write(folder, result)
            # Interrupted or terminated as well: the page must not go on saying that it runs.
            except BaseException as error:
                watch.show_stop(str(error) or type(error).__name__)
                raise
            # After the results: until they are written, the checkpoints are all there is.
            watch.remove_checkpoints()
            return result


def _write(folder: Path, result: AbInitio) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    several = len(result.maps) > 1
    for k, volume in enumerate(result.maps, 1):
        write_map(folder / (f"map_class{k}.mrc" if several else "map.mrc"), volume)
    write_particles(folder / "particles.star", result.particles)
    summary = result.summary()
    record = {
        "verglas": __version__,
        "command": "abinitio",
        "finished": now_text(),
        "settings": asdict(result.settings),
        **summary,
    }
    shown = shown_result(result, summary)
    write_json(folder / SUMMARY, record | shown_record(folder, shown))
    write_abinitio_page(folder, shown, f"verglas {__version__}, {now_text()}")


def abinitio_files(
    particles: Path, *, settings: Mapping[str, Any] | None = None, stack: Path | None = None, **how: Any
) -> AbInitio:
    """What ``verglas abinitio`` does: check settings, read, :func:`abinitio`, leave everything in the folder.

    Parameters
    ----------
    particles : Path
        STAR or CS file.
    settings : mapping, optional
        Fields of :class:`verglas.initial_model.AbInitioSettings` and their values.
    stack : Path, optional
        Image stack in place of the one the file names.
    **how
        What :func:`abinitio` takes besides: ``out``, ``flip_hand``, ``device``, ``listener``, ...
    """
    # Before the file is read: millions of rows take minutes, and a wrong setting would be told only after them.
    chosen = settings_from("abinitio", AbInitioSettings, **(settings or {}))
    return abinitio(read_particles(particles, stack=stack), settings=chosen, **how)
