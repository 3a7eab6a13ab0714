"""What motion correction is for: Thon rings and maps from corrected micrographs of simulated movies.

    python bench/bench_micrographs.py rings [--seeds 4] [--first-seed 3000] [--side 768] [--add] [--minutes 4]
    python bench/bench_micrographs.py maps --folder IMAGES [--movies 6] [--first-seed 4000] [--minutes 4]
    python bench/bench_micrographs.py sessions --folder IMAGES [--movies 4] [--first-seed 8200] [--seeds 3]

``rings``: movies of 768 x 768 pixels of 1.5 A, 16 frames of 1.5 e/A2, ice of 400 A and 12 particles, whose plain sum is
blurred: drift of 7 to 12 px; that and a dome of 2 px with shear; that and a random polynomial field of 1 px. The CTF is
fitted to the spectrum that the corrector writes, to that of the plain sum as recorded, and to the corrected plain sum:
how far the rings were followed, and the error of the mean defocus. ``--add`` goes on where a run stopped. Movies of
another ``--side`` have as many more particles as they are larger, and a file of results of their own.

``maps``: movies of 768 x 768 pixels of 1.5 A, 12 frames of 2 e/A2, about 15 octahedral particles each, with damage;
every movie once with and once without motion (drift of 7 px, dome of 2 px, shear of 1 px; the same particles, ice and
random numbers of the counts). Particles are cut at their true places from weighted sums and reconstructed at their true
poses: FSC 0.5 with the truth of the still movies, of the moving ones corrected locally and by shifts of whole frames
only, and left as they are. Images of movies that are done stay in ``--folder``: the same command goes on.

``sessions``: the same of other particles that move otherwise, one of each seed: its group (D4, T, D7, O in turn), its
shape, where the drift goes and how far (6 to 10 px), dome (1.5 to 2.5 px either way), its centre and the shear.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import verglas as vg
from verglas.io import read_json
from verglas.motion.sums import corrected_sums
from verglas.types.motion import Motion

from common import RESULTS, write

SIDE, PIXEL_A, BOX = 768, 1.5, 128
RING_FRAMES, RING_DOSE = 16, 1.5
MAP_FRAMES, MAP_DOSE = 12, 2.0
WAYS = ("still", "local", "whole frames", "nothing")
SYMMETRIES = ("D4", "T", "D7", "O")  # of the particles of sessions, in turn


def moved(kind: str, rng: np.random.Generator) -> dict[str, Any]:
    """A motion of several pixels, another one of each seed."""
    angle, length = rng.uniform(0, 2 * np.pi), rng.uniform(7, 12)
    drift = {"drift_px": (length * np.cos(angle), length * np.sin(angle))}
    dome = {"dome_px": 2.0, "dome_centre": tuple(rng.uniform(0.3, 0.7, 2)), "shear_px": 1.0}
    return drift | {"drift": {}, "dome": dome, "polynomial": {"polynomial_px": 1.0}}[kind]


def unmoved(n_frames: int, side: int = SIDE) -> Motion:
    """Frames summed where they lie."""
    return Motion((side, side), np.zeros((n_frames, 2)))


def ring_row(kind: str, seed: int, side: int) -> dict[str, Any]:
    """One movie's fits."""
    rng = np.random.default_rng(seed)
    defocus = rng.uniform(8000, 22000)
    model = vg.simulate.phantom(96, PIXEL_A, 120.0, seed=seed)
    movie, _ = vg.simulate.movie(
        model,
        shape=(side, side),
        pixel_size_A=PIXEL_A,
        n=round(12 * (side / SIDE) ** 2),
        defocus_u_A=defocus,
        frames=RING_FRAMES,
        dose_per_frame_e_A2=RING_DOSE,
        ice_thickness_A=400.0,
        seed=seed,
        **moved(kind, rng),
    )
    done = vg.correct_motion(movie, listener=None)
    plain = vg.Micrograph(corrected_sums(movie, unmoved(len(movie), side)).plain, PIXEL_A, "plain")
    microscope = {"voltage_kV": 300.0, "cs_mm": 2.7, "amplitude_contrast": 0.1}
    fits = {
        "corrected": vg.estimate_ctf(done.micrograph, spectrum=done.spectrum, **microscope),
        "corrected_sum": vg.estimate_ctf(done.micrograph, **microscope),
        "plain": vg.estimate_ctf(plain, **microscope),
    }
    row: dict[str, Any] = {"kind": kind, "seed": seed, "defocus_A": defocus, "model": done.model}
    for name, fit in fits.items():
        u, v = float(fit.optics.defocus_u_A[0]), float(fit.optics.defocus_v_A[0])
        reach = float(fit.resolution_A)
        row |= {f"{name}_reach_A": reach if np.isfinite(reach) else None, f"{name}_error_A": (u + v) / 2 - defocus}
        row[f"{name}_reason"] = fit.reason
    return row


def ring_summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians over movies; a fit that follows no rings reaches nowhere."""

    def reach(row: dict[str, Any], name: str) -> float:
        return row[f"{name}_reach_A"] or np.inf

    made: dict[str, Any] = {"movies": len(rows)}
    for name in ("corrected", "corrected_sum", "plain"):
        middle = float(np.median([reach(row, name) for row in rows]))
        errors = np.abs([row[f"{name}_error_A"] for row in rows])
        made[name] = {
            "median_reach_A": middle if np.isfinite(middle) else None,
            "no_rings": sum(row[f"{name}_reach_A"] is None for row in rows),
            "median_error_A": float(np.median(errors)),
            "worst_error_A": float(errors.max()),
            "within_50_A": int((errors <= 50).sum()),
        }
    made["further_than_plain"] = sum(reach(row, "corrected") < reach(row, "plain") for row in rows)
    return made


def rings(args: argparse.Namespace) -> None:
    """A row per movie."""
    name = "micrographs_rings" + ("" if args.side == SIDE else f"_{args.side}")
    path = RESULTS / f"{name}.json"
    rows: list[dict[str, Any]] = read_json(path)["rows"] if args.add and path.is_file() else []
    end = time.monotonic() + 60 * args.minutes
    for seed in range(args.first_seed, args.first_seed + args.seeds):
        for kind in ("drift", "dome", "polynomial"):
            if any((row["kind"], row["seed"]) == (kind, seed) for row in rows) or time.monotonic() > end:
                continue
            rows.append(ring_row(kind, seed, args.side))
            write(name, rows, quiet=True, side_px=args.side, pixel_size_A=PIXEL_A, summary=ring_summary(rows))
            print(rows[-1], flush=True)
    print(ring_summary(rows))


@dataclass(frozen=True)
class Cut:
    """Particles of one movie, in images of every way that it was summed.

    Attributes
    ----------
    images : dict of (n, y, x) float32
        By way; particles are white.
    angles_deg : (n, 3) float64
    shifts_px : (n, 2) float64
        From the middle of the box to the particle.
    model : str
        What the corrector chose.
    """

    images: dict[str, Any]
    angles_deg: Any
    shifts_px: Any
    model: str


@dataclass(frozen=True)
class Session:
    """What its movies show, and how it moves."""

    model: Any
    symmetry: str
    move: dict[str, Any]

    @classmethod
    def of_docs(cls) -> Session:
        """That of ``maps``."""
        model = vg.simulate.phantom(BOX, PIXEL_A, 130.0, symmetry="O", seed=9)
        move = {"drift_px": (5.0, -5.0), "dome_px": 2.0, "dome_centre": (0.4, 0.6), "shear_px": 1.0}
        return cls(model, "O", move)

    @classmethod
    def of_seed(cls, seed: int) -> Session:
        """Another one of each seed."""
        rng, symmetry = np.random.default_rng([seed, 1]), SYMMETRIES[seed // 10 % len(SYMMETRIES)]
        angle, length = rng.uniform(0, 2 * np.pi), rng.uniform(6, 10)
        move = {
            "drift_px": (length * np.cos(angle), length * np.sin(angle)),
            "dome_px": rng.choice([-1, 1]) * rng.uniform(1.5, 2.5),
            "dome_centre": tuple(rng.uniform(0.3, 0.7, 2)),
            "shear_px": rng.choice([-1, 1]) * rng.uniform(0.5, 1.2),
        }
        return cls(vg.simulate.phantom(BOX, PIXEL_A, 130.0, symmetry=symmetry, seed=seed), symmetry, move)


def cut_movie(session: Session, seed: int) -> Cut:
    """One movie with and without motion."""
    model = session.model
    scene = {"shape": (SIDE, SIDE), "pixel_size_A": PIXEL_A, "n": 20, "defocus_u_A": 12000.0, "b_factor_A2": 30.0}
    exposed = {"frames": MAP_FRAMES, "dose_per_frame_e_A2": MAP_DOSE}
    still, truth = vg.simulate.movie(model, **scene, **exposed, seed=seed)
    moving, _ = vg.simulate.movie(model, **scene, **exposed, **session.move, seed=seed)
    local = vg.correct_motion(moving, listener=None)
    sums = {
        "still": vg.correct_motion(still, listener=None).dose_weighted,
        "local": local.dose_weighted,
        "whole frames": vg.correct_motion(moving, model="global", listener=None).dose_weighted,
    }
    pictures = {way: picture.data for way, picture in sums.items() if picture is not None}
    pictures["nothing"] = corrected_sums(moving, unmoved(len(moving))).dose_weighted
    centres = truth.picks.xy_px
    whole = np.floor(centres + 0.5).astype(int)
    keep = ((whole >= BOX // 2) & (whole <= SIDE - BOX // 2)).all(1)
    images = {}
    for way, picture in pictures.items():
        parts = [picture[y - BOX // 2 : y + BOX // 2, x - BOX // 2 : x + BOX // 2] for x, y in whole[keep]]
        images[way] = np.stack([(part.mean() - part) / part.std() for part in parts]).astype(np.float32)
    return Cut(images, truth.poses.angles_deg[keep], (centres - whole)[keep], local.model)


def cuts(args: argparse.Namespace, session: Session, first_seed: int) -> Iterator[Cut]:
    """Of every movie, those that are kept and as many new ones as there is time for."""
    end = time.monotonic() + 60 * args.minutes
    args.folder.mkdir(parents=True, exist_ok=True)
    for seed in range(first_seed, first_seed + args.movies):
        path = args.folder / f"{seed}.npy"
        if not path.is_file():
            if time.monotonic() > end:
                continue
            np.save(path, np.array(asdict(cut_movie(session, seed)), object), allow_pickle=True)
            print(seed, "done", flush=True)
        yield Cut(**np.load(path, allow_pickle=True).item())


def ways_of(session: Session, parts: list[Cut]) -> list[dict[str, Any]]:
    """FSC 0.5 with the truth, of all movies together."""
    truth = vg.simulate.density(session.model, BOX, PIXEL_A)
    z, y, x = np.ogrid[-1 : 1 : BOX * 1j, -1 : 1 : BOX * 1j, -1 : 1 : BOX * 1j]
    radius_A = np.sqrt(z**2 + y**2 + x**2) * BOX * PIXEL_A / 2
    inside = np.clip((75 - radius_A) / 8, 0, 1).astype(np.float32)
    angles, shifts = (np.concatenate([getattr(part, name) for part in parts]) for name in ("angles_deg", "shifts_px"))
    optics = vg.simulate.Scene(pixel_size_A=PIXEL_A, defocus_u_A=12000.0).optics(np.zeros((len(angles), 2)))
    rows = []
    for way in WAYS:
        images = np.concatenate([part.images[way] for part in parts])
        poses = vg.Poses(angles, -shifts * PIXEL_A)
        particles = vg.Particles.from_images(images, PIXEL_A, poses=poses, optics=optics)
        volume = vg.reconstruct(particles, symmetry=session.symmetry, listener=None)
        curve = vg.fsc(volume, truth, inside)
        rows.append({"way": way, "particles": len(images), "fsc_0.5_A": curve.resolution_A(0.5)})
        print(rows[-1], flush=True)
    still = rows[0]["fsc_0.5_A"]
    for row in rows:
        row["over_still"] = row["fsc_0.5_A"] / still
    return rows


def maps(args: argparse.Namespace) -> None:
    """The session of the guide."""
    session = Session.of_docs()
    parts = list(cuts(args, session, args.first_seed))
    rows = ways_of(session, parts)
    write("micrographs_maps", rows, movies=len(parts), models=[part.model for part in parts], side_px=SIDE)


def sessions(args: argparse.Namespace) -> None:
    """A row per session; those that are not through wait for the next call."""
    rows = []
    for seed in range(args.first_seed, args.first_seed + 10 * args.seeds, 10):
        session = Session.of_seed(seed)
        parts = list(cuts(args, session, seed))
        if len(parts) < args.movies:
            continue
        ways = {row["way"]: row for row in ways_of(session, parts)}
        row = {"seed": seed, "symmetry": session.symmetry, "particles": ways["still"]["particles"]}
        row |= {f"{way.replace(' ', '_')}_over_still": ways[way]["over_still"] for way in WAYS[1:]}
        row |= {"still_A": ways["still"]["fsc_0.5_A"], "dome_px": session.move["dome_px"]}
        rows.append({**row, "models": sorted({part.model for part in parts})})
        write("micrographs_sessions", rows, quiet=True, movies=args.movies, side_px=SIDE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("rings", "maps", "sessions"))
    parser.add_argument("--seeds", type=int, default=4, help="of each kind of motion (rings), or sessions")
    parser.add_argument("--movies", type=int, default=6, help="of a session (maps, sessions)")
    parser.add_argument("--first-seed", type=int, help="3000 for rings, 4000 for maps, 8200 for sessions")
    parser.add_argument("--side", type=int, default=SIDE, help="of the movies, pixels (rings)")
    parser.add_argument("--add", action="store_true", help="to the movies that the file of results holds (rings)")
    parser.add_argument("--folder", type=Path, default=Path("micrographs_maps"), help="where images are kept (maps)")
    parser.add_argument("--minutes", type=float, default=60.0, help="no new movie after so long")
    args = parser.parse_args()
    if args.first_seed is None:
        args.first_seed = {"rings": 3000, "maps": 4000, "sessions": 8200}[args.part]
    {"rings": rings, "maps": maps, "sessions": sessions}[args.part](args)


if __name__ == "__main__":
    main()
