"""M-step in the harmonic domain against insertion pose by pose: ms per image for broad and sharp posteriors.

The peer is this package's own ``ops.insert``, one Cartesian slice per candidate; it is timed on a few images, because
it takes so long. Its table of shifted copies of the image is not timed.

``--device cuda:0`` times the accumulation on a GPU beside the floor (bench/device.py), and writes
bench/results/maximise_cuda.json; ``--count`` prints only what is counted.
"""

from __future__ import annotations

import argparse
import json

import numpy as np

import verglas as vg
from verglas import geometry, gridding, ops

from common import compare, write
from device import Work, measure, milliseconds, open_device

PIXEL_SIZE_A = 1.5
# box, R, directions per image, in-plane angles per direction, shifts per pose, images, images for the peer
CASES = (
    (128, 16, 10, 5, 20, 200, 2),
    (128, 24, 10, 5, 20, 200, 2),
    (128, 24, 50, 4, 5, 200, 2),
    (128, 24, 3, 2, 2, 200, 20),
    (128, 48, 10, 5, 20, 60, 1),
    (128, 60, 3, 2, 2, 60, 6),
)


def posterior(rng, n, n_slices, n_shifts, directions, angles, shifts):
    """Clusters: neighbouring in-plane angles and shifts at each of a few directions."""
    lists = {"image": [], "slice": [], "psi_deg": [], "opposite": [], "shift": []}
    for i in range(n):
        where = rng.choice(n_slices, directions, replace=False)
        other = rng.random(directions) < 0.5
        psi = rng.uniform(0, 360) + 4.0 * np.arange(angles)
        moved = (rng.integers(n_shifts) + np.arange(shifts)) % n_shifts
        d, a, t = (x.ravel() for x in np.indices((directions, angles, shifts)))
        lists["image"].append(np.full(d.size, i))
        lists["slice"].append(where[d])
        lists["opposite"].append(other[d])
        lists["psi_deg"].append(psi[a])
        lists["shift"].append(moved[t])
    joined = {k: np.concatenate(v) for k, v in lists.items()}
    count = directions * angles * shifts
    return ops.Posterior.from_lists(n, **joined, weight=np.full(n * count, 1 / count))


class Problem:
    """Inputs of one case."""

    def __init__(self, box, radius, directions, angles, shifts, n, few):
        rng = np.random.default_rng(0)
        self.n, self.few, self.radius = n, few, radius
        self.grid = ops.PolarGrid(box, radius, diameter_px=0.8 * box)
        self.volume_grid = ops.Grid(box, radius)
        order = 3 if radius <= 24 else 4
        self.rot_tilt = geometry.healpix_directions(order)
        self.matrices = geometry.euler_to_matrix(np.column_stack([self.rot_tilt, np.zeros(len(self.rot_tilt))]))
        t = np.arange(-3, 4)
        self.shifts = np.array([(x, y) for y in t for x in t if x * x + y * y <= 9], np.float32)
        self.posterior = posterior(rng, n, len(self.matrices), len(self.shifts), directions, angles, shifts)
        images = rng.standard_normal((n, box, box)).astype(np.float32)
        self.samples = ops.polar(images, self.grid)
        u = rng.uniform(8000, 16000, n)
        self.ctf = vg.Optics(u, u - 200, rng.uniform(0, 180, n)).as_params()
        volume = rng.standard_normal((box,) * 3).astype(np.float32)
        spectrum = gridding.to_grid(volume, self.volume_grid)
        self.reference = ops.polar_slices(spectrum, self.volume_grid, self.matrices, self.grid)
        self.sums = ops.GridSums.zeros(self.volume_grid)
        self._prepare_peer(images[:few], box)

    def _prepare_peer(self, images, box):
        p = self.posterior
        keep = p.image < self.few
        rot_tilt = self.rot_tilt[p.slice[keep]]
        other = np.stack([rot_tilt[:, 0] + 180, 180 - rot_tilt[:, 1]], axis=1)
        angles = np.where(p.opposite[keep][:, None], other, rot_tilt)
        self.pose_matrices = geometry.euler_to_matrix(np.column_stack([angles, p.psi_deg[keep]]))
        self.pose_shifts = -self.shifts[p.shift[keep]].astype(float)
        spectra = np.fft.rfft2(images).astype(np.complex64)
        self.pose_images = spectra[p.image[keep]] * np.sqrt(p.weight[keep]).astype(np.float32)[:, None, None]
        self.pose_ctf = ops.ctf(self.ctf[: self.few], box, PIXEL_SIZE_A)[p.image[keep]]

    def harmonic(self, threads, statistics):
        """The whole M-step, with or without residuals."""
        ops.maximise(
            self.sums,
            self.samples,
            self.posterior,
            self.matrices,
            self.grid,
            self.shifts,
            ctf=self.ctf,
            pixel_size_A=PIXEL_SIZE_A,
            n_power=4,
            threads=threads,
            reference=self.reference if statistics else None,
        )

    def accumulate(self, threads, device="cpu"):
        """Without the insertion, which is paid once per slice and iteration, however many images there are."""
        plan = ops.MaximisePlan(self.grid, len(self.matrices), n_power=4, device=device)
        plan.add(self.samples, self.posterior, self.shifts, ctf=self.ctf, pixel_size_A=PIXEL_SIZE_A, threads=threads)
        return plan

    def insert_slices(self, plan, threads):
        """One polar slice per direction."""
        plan.insert(self.sums, self.matrices, threads=threads)

    def pose_by_pose(self, threads):
        """One Cartesian slice per candidate."""
        ops.insert(
            self.sums,
            self.pose_images,
            self.pose_matrices,
            max_radius=self.radius,
            shifts_px=self.pose_shifts,
            ctf=self.pose_ctf,
            threads=threads,
        )

    def operations(self):
        """Real additions and multiplications on harmonics: 8 per complex multiply-add, per (image, slice, shift)."""
        p = self.posterior
        key = (p.image * len(self.matrices) + p.slice) * len(self.shifts) + p.shift
        return 8.0 * self.grid.size * len(np.unique(key))

    def work(self):
        """On a GPU: harmonics written once and read once per term, factors, sums of the slices in use."""
        p, g = self.posterior, self.grid
        pair = p.image * len(self.shifts) + p.shift
        term = (p.image * len(self.matrices) + p.slice) * len(self.shifts) + p.shift
        pairs, terms, slices = (len(np.unique(k)) for k in (pair, term, p.slice))
        angular = 4.0 * g.n_theta / 2 * g.size * pairs  # of the shifted images
        size = 8 * g.size * (pairs + terms) + 16 * (g.max_m + 1) * terms + 32 * g.size * slices
        return Work(1e-9 * (self.operations() + angular), 1e-9 * (size + 8 * self.samples.size))


def device_rows(device, cases):
    """One row per case; without a device what can be counted."""
    cuda = open_device(device) if device else None
    machine = measure(cuda) if cuda else None
    rows = []
    for case in cases:
        box, radius, directions, angles, shifts, n, few = case
        p = Problem(box, radius, directions, angles, shifts, n, few)
        row = {"box": box, "R": radius, "poses_per_image": directions * angles * shifts, "images": n}
        work = p.work()
        if cuda is None:
            rows.append(row | work.counted())
            continue
        with cuda.active():
            p.samples = cuda.cupy.asarray(p.samples)
        ms = milliseconds(cuda, lambda p=p: p.accumulate(None, device))
        rows.append(row | {"device": machine.name, "ms_per_image": ms / n} | work.row(ms, machine))
    return rows


def run(case, threads):
    p = Problem(*case)
    plan = p.accumulate(threads)
    times = compare(
        {
            "harmonics: all": lambda: p.harmonic(threads, False),
            "harmonics: all, with residuals": lambda: p.harmonic(threads, True),
            "harmonics: images only": lambda: p.accumulate(threads),
            "harmonics: insertion of the slices": lambda: p.insert_slices(plan, threads),
            "pose by pose (ops.insert)": lambda: p.pose_by_pose(threads),
        },
        repeats=3,
    )
    box, radius, directions, angles, shifts, n, few = case
    rows = []
    for what, time in times.items():
        count = few if what.startswith("pose") else n
        row = {
            "box": box,
            "R": radius,
            "poses_per_image": directions * angles * shifts,
            "directions": directions,
            "angles": angles,
            "shifts": shifts,
            "threads": threads,
            "images": count,
            "what": what,
            **time,
            "ms_per_image": time["ms"] / count,
        }
        if what == "harmonics: images only":
            row["GFLOP_per_s"] = 1e-6 * p.operations() / time["ms"]
        rows.append(row)
    peer = rows[-1]["ms_per_image"]
    for row in rows[:-1]:
        row["times_faster_than_pose_by_pose"] = peer / row["ms_per_image"]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--cases", type=int, default=len(CASES), help="only the first so many")
    parser.add_argument("--device", help="a GPU, such as cuda:0")
    parser.add_argument("--count", action="store_true", help="print what it costs on a GPU, run nothing")
    arguments = parser.parse_args()
    if arguments.count or arguments.device:
        rows = device_rows(None if arguments.count else arguments.device, CASES[: arguments.cases])
        print(json.dumps(rows, indent=1)) if arguments.count else write("maximise_cuda", rows)
        return
    rows = [row for case in CASES[: arguments.cases] for t in arguments.threads for row in run(case, t)]
    write("maximise", rows, peer="ops.insert of this package, one slice per candidate")


if __name__ == "__main__":
    main()
