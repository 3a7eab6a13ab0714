"""Job on files: the test for more than one structure."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from verglas._screen import ListenerChoice, shown_to
from verglas._version import __version__
from verglas.heterogeneity import HeterogeneityTest, heterogeneity_test
from verglas.heterogeneity.settings import TestSettings
from verglas.io import check_writable, read_particles, write_json
from verglas.run.kept_inputs import keeps_inputs
from verglas.run.set_aside import set_aside_sentence
from verglas.run.tenure import now_text


@keeps_inputs("heterogeneity")
def heterogeneity_files(
    particles: Path,
    out: Path | None = None,
    *,
    stack: Path | None = None,
    map: Path | None = None,
    settings: TestSettings | None = None,
    threads: int | None = None,
    listener: ListenerChoice = "screen",
) -> HeterogeneityTest:
    """What ``verglas heterogeneity`` does: read, :func:`verglas.heterogeneity_test`, leave the result in a file.

    Parameters
    ----------
    particles : Path
        STAR or CS file with poses.
    out : Path, optional
        JSON file to write.
    stack : Path, optional
        Image stack in place of the one that the file names.
    map : Path, optional
        What the poses were found against; refused if the particles show another.
    settings : TestSettings, optional
    threads : int, optional
    listener : Listener, "screen" or None
    """
    if out is not None:
        check_writable(out)
    given = read_particles(particles, stack=stack)
    with shown_to(listener) as heard:
        test = heterogeneity_test(given, map, settings, threads=threads, listener=heard)
        if test.excluded:
            heard.note("set_aside", set_aside_sentence(test.excluded))
    if out is not None:
        chosen = asdict(settings or TestSettings())
        record = {"verglas": __version__, "command": "heterogeneity", "finished": now_text(), "settings": chosen}
        write_json(out, record | test.as_dict())
    return test


__all__ = ["TestSettings", "heterogeneity_files"]
