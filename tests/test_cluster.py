"""Blocks of particles and the workers of a cluster: the same bits whoever computes, and whoever is killed meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import pickle
import signal
import time
from dataclasses import replace

import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import verglas as vg
from verglas import ops
from verglas.cluster import ClusterProfile, ClusterRequest, Passes, connect, open_cluster, read_profile, worker
from verglas.cluster.connect import jobqueue, slurm_arguments
from verglas.cluster.passes import _Submitted, spool_folder
from verglas.errors import FormatError, InputError
from verglas.reconstruction.packed_sums import PackedSums
from verglas.refinement import schedule, start
from verglas.refinement.em import initial_state, iterate
from verglas.refinement.settings import RefineSettings
from verglas.run.cluster import ClusterUse, cluster_request
from verglas.search.blocks import (
    BlockSums,
    add_blocks,
    add_in_order,
    count_blocks,
    levels,
    packed,
    sums_at_once,
)
from verglas.search.grid_step import HalfSums, Totals
from verglas.search.problem import survey
from verglas.search.state import PoseTable
from verglas.types.listener import Silence

BOX, PIXEL_A, DIAMETER_A, GROUP = 24, 5.0, 90.0, "O"
BLOCK = 9  # particles: four blocks of each half set, in a tree of one level


@pytest.fixture(scope="module")
def data() -> tuple[vg.Particles, vg.Map]:
    model = vg.simulate.phantom(BOX, PIXEL_A, DIAMETER_A, GROUP)
    particles = vg.simulate.particles(model, 64, BOX, PIXEL_A, snr=1.0, seed=1)
    # Several noise and scale groups: a block does not hold particles of all of them.
    particles = particles.with_columns(rlnMicrographName=np.repeat([f"m{i}" for i in range(8)], 8))
    return particles, vg.simulate.density(model, BOX, PIXEL_A)


def begin(data, block_particles: int):
    """A problem, the state after one iteration of the grid search, and a step of the global search."""
    particles, truth = data
    chosen = RefineSettings(
        GROUP,
        diameter_A=DIAMETER_A,
        initial_resolution_A=28.0,
        max_resolution_A=15.0,
        shift_range_A=5.0,
        block_particles=block_particles,
    )
    found = survey(particles)
    problem = start.make_problem(particles, found.excluded, chosen, threads=1)
    state, _ = initial_state(problem, found.power, [truth])
    first = schedule.first_step(problem)
    then = replace(schedule.make_step(problem, "global", 7, first.order, first.shift_range_px), candidates=2)
    return problem, state, first, then


@pytest.fixture(scope="module")
def in_blocks(data):
    """Two iterations in this process, in blocks."""
    problem, state, first, then = begin(data, BLOCK)
    middle, one = iterate(problem, state, first)
    return problem, [state, middle], [first, then], [(middle, one), iterate(problem, middle, then)]


def bits(made) -> list[np.ndarray]:
    """Everything that an iteration made."""
    state, iteration = made
    arrays = [iteration.maps[0].raw, *vars(state.poses).values()]
    return arrays + [value for half in state.halves for value in vars(half).values()]


def same_bits(one, other) -> bool:
    return all(np.array_equal(a, b, equal_nan=True) for a, b in zip(bits(one), bits(other), strict=True))


# -- blocks ------------------------------------------------------------------------------------------------------------


def some_sums(rng: np.random.Generator) -> BlockSums:
    """Of one particle; numbers of all sizes, so that the order of adding shows."""
    sums = PackedSums.of(ops.GridSums.zeros(ops.Grid(4)))
    for array in (sums.values, sums.weights):
        array += rng.normal(size=array.shape) * 10.0 ** rng.integers(-8, 8, array.shape)
    totals = Totals(
        *(rng.normal(size=(1, 3)) for _ in range(2)), *(rng.normal(size=2) for _ in range(3)), rng.random(1)
    )
    poses = PoseTable.unknown(1)
    poses.norm[:] = totals.ratio
    return BlockSums(poses, HalfSums([sums.unpack()], totals))


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 70), seed=st.integers(0, 9))
def test_blocks_are_added_by_the_tree_in_whatever_memory(n, seed):
    streamed = add_in_order(some_sums(rng) for rng in np.random.default_rng(seed).spawn(n))
    made = [packed(some_sums(rng)) for rng in np.random.default_rng(seed).spawn(n)]
    for groups in levels(n):
        following = []
        for first, *others in groups:
            total = made[first]
            for i in others:
                total = add_blocks(total, made[i])
            following.append(total)
        made = following
    assert np.array_equal(streamed.sums.grids[0].values, made[0].sums.grids[0].values)
    assert np.array_equal(streamed.sums.totals.cross, made[0].sums.totals.cross)
    assert streamed.poses.norm.tolist() == made[0].poses.norm.tolist() == made[0].sums.totals.ratio.tolist()
    assert len(made) == 1
    assert len(made[0].poses.norm) == n
    assert n <= 4 ** (sums_at_once(n, 1) - 1)  # as many sums at once as the tree has levels, and the block's


def test_there_are_never_more_than_256_blocks():
    assert [count_blocks(n, 1000) for n in (1, 1000, 1001, 256_000, 10_000_000)] == [1, 1, 2, 256, 256]


def test_blocks_change_no_pose_and_the_map_by_rounding_only(data, in_blocks):
    """From the same references: what is searched is the same, and sums differ by the order of adding."""
    whole, state, first, _ = begin(data, 1000)
    one, two = iterate(whole, state, first), in_blocks[3][0]
    assert np.array_equal(one[0].poses.angles_deg, two[0].poses.angles_deg)
    assert np.array_equal(one[0].poses.log_evidence, two[0].poses.log_evidence)
    largest = np.abs(one[1].maps[0].raw).max()
    assert np.abs(one[1].maps[0].raw - two[1].maps[0].raw).max() < 1e-5 * largest
    assert one[0].halves[0].sigma2 == pytest.approx(two[0].halves[0].sigma2, rel=1e-10)
    assert one[0].halves[0].scale == pytest.approx(two[0].halves[0].scale, rel=1e-10)


# -- workers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_make_the_bits_of_one_process(in_blocks, workers, tmp_path):
    problem, states, steps, made = in_blocks
    request, done = ClusterRequest("local", workers), []
    with open_cluster(request, Silence(), job="test", processes=False) as pool, spool_folder(tmp_path) as spool:
        passes = Passes(pool, problem.particles, spool, Silence())
        for state, step, expected in zip(states, steps, made, strict=True):
            found = iterate(problem, state, step, lambda _phase, n, of: done.append((n, of)), passes)
            assert same_bits(found, expected)
        assert len(list(spool.glob("block_*"))) == 8  # written once, whatever the iterations
    assert done[-1] == (64, 64)
    assert not spool.exists()


def test_a_worker_says_what_it_lacks(tmp_path):
    nothing = worker.SpoolFile(str(tmp_path / "block"), "")
    here = worker.BlockOrder(nothing, nothing, 1, 1.0, os.getcwd(), worker.identity())
    with pytest.raises(InputError, match="the run folder has to lie on a file system that all workers share"):
        worker.do_block(here, PoseTable.unknown(1))
    with pytest.raises(InputError, match=r"a worker has verglas .*, this program verglas 0\.0, v3: .* VERGLAS_ISA"):
        worker.do_block(replace(here, identity="verglas 0.0, v3"), PoseTable.unknown(1))


class _Harm:
    """Says so when it is loaded."""

    def __reduce__(self):
        return os.mkdir, (self.folder,)

    def __init__(self, folder) -> None:
        self.folder = str(folder)


def test_what_somebody_else_put_in_a_files_place_is_not_loaded(tmp_path):
    file = worker.SpoolFile.write(tmp_path / "block_a_1_0.pickle", {"a": 1})
    assert file.read() == {"a": 1}
    (tmp_path / "block_a_1_0.pickle").write_bytes(pickle.dumps(_Harm(tmp_path / "harm")))
    with pytest.raises(InputError, match="not what this run wrote"):
        file.read()
    assert not (tmp_path / "harm").exists()


def test_files_of_a_user_are_not_cleared_away(tmp_path):
    """Those of a run that was killed are."""
    (tmp_path / "cluster").mkdir()
    (tmp_path / "cluster" / "block_1234_1_0.pickle").write_bytes(b"old")
    with spool_folder(tmp_path) as spool:
        assert spool.stat().st_mode & 0o777 == 0o700
        assert list(spool.iterdir()) == []
    (tmp_path / "cluster").mkdir()
    (tmp_path / "cluster" / "thesis.tex").write_text("mine")
    with pytest.raises(InputError, match=r"holds thesis\.tex, which is of no run"), spool_folder(tmp_path):
        pass
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "cluster").symlink_to(tmp_path / "cluster")
    with pytest.raises(InputError, match="expected a folder or nothing"), spool_folder(tmp_path / "run"):
        pass
    assert (tmp_path / "cluster" / "thesis.tex").read_text() == "mine"


@pytest.mark.parametrize("phase", ["grid", "global"])
def test_an_error_about_a_particle_names_it(in_blocks, phase):
    """Ops know it by its place in a batch of a block of a half set."""
    problem, states, steps, _ = in_blocks
    number = int(problem.rows_of_half(2)[BLOCK + 3])  # of the second block
    params = problem.params.copy()
    params[number, :3] = np.nan
    broken = replace(problem, params=params)
    at = 0 if phase == "grid" else 1
    with pytest.raises(InputError, match=rf"refine: \w+: particle {number}\b"):
        iterate(broken, states[at], steps[at])
    names = np.array([f"{i + 1:06d}@stack.mrcs" for i in range(64)])
    named = replace(broken, particles=broken.particles.with_columns(rlnImageName=names))
    with pytest.raises(InputError, match=rf"particle {number} \({number + 1:06d}@stack\.mrcs\)"):
        iterate(named, states[at], steps[at])


class _Killer:
    """Kills a worker each time that so many blocks more are done; a progress of iterations."""

    def __init__(self, every: int, most: int) -> None:
        self.every, self.most, self.calls, self.killed = every, most, 0, []
        self.rng = np.random.default_rng(0)

    def __call__(self, phase: str, done: int, total: int) -> None:
        self.calls += 1
        if self.calls % self.every or len(self.killed) == self.most:
            return
        workers = worker_pids()
        if not workers:
            return  # the last one was killed, and the next has not begun
        for pid in workers:
            with contextlib.suppress(psutil.NoSuchProcess):
                listening = [c for c in psutil.Process(pid).net_connections() if c.status == "LISTEN"]
                assert all(c.laddr.ip == "127.0.0.1" for c in listening)
        self.killed.append(workers[self.rng.integers(len(workers))])
        os.kill(self.killed[-1], signal.SIGKILL)


@pytest.mark.slow
def test_processes_make_the_same_bits_though_they_are_killed(in_blocks, tmp_path):
    """Two separate processes, of which one is killed with SIGKILL after every third block, three times."""
    problem, states, steps, made = in_blocks
    killer = _Killer(every=3, most=3)
    with open_cluster(ClusterRequest("local", 2), Silence(), job="test") as pool, spool_folder(tmp_path) as spool:
        passes = Passes(pool, problem.particles, spool, Silence())
        for state, step, expected in zip(states, steps, made, strict=True):
            assert same_bits(iterate(problem, state, step, killer, passes), expected)
    assert len(set(killer.killed)) == 3


@pytest.mark.slow
def test_blocks_are_handed_out_again_when_all_workers_were_killed_at_once(in_blocks, tmp_path, monkeypatch):
    """With no worker left Dask does not hand blocks that had a home to those that come later: the job hung."""
    monkeypatch.setattr("verglas.cluster.passes._LOOK_S", 2.0)
    problem, states, steps, made = in_blocks
    sentences: list[str] = []
    killed: list[int] = []

    class Told(Silence):
        def say(self, text: str) -> None:
            sentences.append(text)

    def kill_all(phase: str, done: int, total: int) -> None:
        if not killed:
            killed.extend(worker_pids())
            for pid in killed:
                os.kill(pid, signal.SIGKILL)

    with open_cluster(ClusterRequest("local", 2), Silence(), job="test") as pool, spool_folder(tmp_path) as spool:
        passes = Passes(pool, problem.particles, spool, Told())
        assert same_bits(iterate(problem, states[0], steps[0], kill_all, passes), made[0])
    assert len(killed) == 2
    assert "all workers were lost; this pass begins again" in sentences


def test_a_block_that_was_lost_since_it_ended_is_waited_for_in_its_sum(tmp_path):
    """The job ended with "a block ended as finished": its worker died before the coordinator had looked at it."""

    class Lost:
        key, status = "a", "lost"

        def add_done_callback(self, call):
            call(self)

        def result(self, timeout=None):
            raise AssertionError("nobody asks for the sums of a block")

    class Root:
        looks = 0

        def result(self, timeout):
            self.looks += 1
            if self.looks < 2:
                raise asyncio.TimeoutError
            return "total"

    ticks: list[int] = []
    with (
        open_cluster(ClusterRequest("local", 1), Silence(), job="test", threads=1, processes=False) as pool,
        spool_folder(tmp_path) as spool,
    ):
        passes = Passes(pool, None, spool, Silence())
        assert passes._gather(_Submitted([Root()], [Lost()], {"a": 7}), ticks.append) == ["total"]
    assert ticks == [7, 0]


@pytest.mark.slow
def test_a_worker_that_is_killed_while_it_starts_is_replaced():
    """Its nanny gives it up: without a replacement nobody would be left, and the job would wait for ever."""
    with open_cluster(ClusterRequest("local", 1), Silence(), job="test", threads=1) as pool:
        for _ in range(2):
            before = set(worker_pids())
            for pid in before:
                os.kill(pid, signal.SIGKILL)
            deadline = time.monotonic() + 60
            while not set(worker_pids()) - before and time.monotonic() < deadline:
                time.sleep(0.02)
        assert pool.client.submit(sum, [1, 2]).result(timeout=120) == 3


def worker_pids() -> list[int]:
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # a zombie, too
            found += [process.pid] if "spawn_main" in " ".join(process.cmdline()) else []
    return found


# -- jobs --------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.usefixtures("blank_figures")
def test_micrographs_of_a_project_go_to_workers(tmp_path):
    """Every file but times and the page is that of one process; a file that is none is named alike."""
    model = vg.simulate.phantom(32, 6.0, 120.0, seed=1)
    (tmp_path / "mics").mkdir()
    for i in range(2):
        made, _ = vg.simulate.micrograph(model, shape=(384, 384), pixel_size_A=3.0, n=20, snr=0.4, seed=i)
        vg.io.write_stack(tmp_path / f"mics/m{i}.mrc", made.data[None], 3.0)
    (tmp_path / "mics/m2.mrc").write_bytes(b"no micrograph")
    asked = {"micrographs": [f"{tmp_path}/mics/*.mrc"], "diameter_A": 120, "threads": 1, "listener": None}
    here = vg.process(tmp_path / "here", **asked)
    with open_cluster(ClusterRequest("local", 2), Silence(), job="test", processes=False) as pool:
        there = vg.process(tmp_path / "there", cluster=pool, **asked)
    assert here.summary()["set_aside"] == there.summary()["set_aside"] != {}
    stages = [r.name for r in here.records]
    assert stages == [r.name for r in there.records] == ["ctf", "pick", "extract", "centre"]
    for one, other in zip(here.records, there.records, strict=True):
        assert one.outputs == other.outputs
    for path in sorted(here.root.rglob("*")):
        assert (there.root / path.relative_to(here.root)).exists()
    one, other = (vg.read_particles(done.particles) for done in (here, there))
    assert one.table.equals(other.table)
    assert np.array_equal(one.images(), other.images())


@pytest.mark.slow
def test_classes_are_those_of_one_process(data):
    particles, truth = data
    how = {"classes": 2, "iterations": 2, "consensus_iterations": 1, "diameter_A": DIAMETER_A, "symmetry": GROUP}
    here, there = (
        vg.classify3d(particles, truth, cluster=cluster, threads=1, listener=None, **how)
        for cluster in (None, "local:2")
    )
    assert all(np.array_equal(a.data, b.data) for a, b in zip(here.maps, there.maps, strict=True))
    assert here.particles.table.equals(there.particles.table)


# -- what is asked for -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["local", "local:0", "local:two", "pbs:4", "tcp://host", "tcp:host:1", ""])
def test_a_cluster_that_is_none(text):
    with pytest.raises(InputError, match="expected local:4, slurm:16 or tcp://host:8786"):
        ClusterRequest.parse(text)


def test_a_profile_says_what_slurm_is_asked_for(tmp_path):
    path = tmp_path / "profile.toml"
    path.write_text('queue = "gpu"\nwalltime = "02:00:00"\ncores = 8\nmemory = "32 GB"\nextra = ["--constraint=v4"]\n')
    request = ClusterRequest.parse("slurm:16", path)
    assert (request.kind, request.workers, request.profile.cores) == ("slurm", 16, 8)
    interrupted = signal.getsignal(signal.SIGINT)
    script = jobqueue().slurm.SLURMJob("tcp://127.0.0.1:1", name="w", **slurm_arguments(request.profile)).job_script()
    for line in ("#SBATCH -p gpu", "#SBATCH -t 02:00:00", "#SBATCH --cpus-per-task=8", "#SBATCH --constraint=v4"):
        assert line in script
    assert signal.getsignal(signal.SIGINT) is interrupted  # which the package's import would make an exit with status 0
    assert script.rstrip().split("--nthreads")[-1].split()[0] == "1"  # the last one counts


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cores = ", "no TOML"),
        ("colour = 1", "colour is no key of a cluster profile"),
        ('cores = "8"', "cores: expected a whole number, got '8'"),
        ("cores = 0", "cores: expected a number above 0"),
        ('extra = "--x"', "extra: expected a list of lines"),
    ],
)
def test_a_profile_that_is_wrong(text, said, tmp_path):
    path = tmp_path / "profile.toml"
    path.write_text(text)
    with pytest.raises(FormatError, match=said):
        read_profile(path)


def test_a_whole_number_is_a_number(tmp_path):
    path = tmp_path / "profile.toml"
    path.write_text('images_GB = 4\ninterface = "ib0"\nbefore = ["module load x"]')
    assert read_profile(path) == ClusterProfile(images_GB=4, interface="ib0", before=("module load x",))


def test_refusals(data, tmp_path, monkeypatch):
    particles, truth = data
    with pytest.raises(InputError, match="refine: --cluster slurm:2 needs a run folder"):
        vg.refine(particles, truth, cluster="slurm:2", listener=None)
    with pytest.raises(InputError, match=r"class3d: --cluster shares the search of poses"):
        vg.classify3d(particles, truth, poses="fixed", cluster="local:2", listener=None)
    with pytest.raises(InputError, match="refine: --cluster local:2 uses the processors of its workers"):
        ClusterUse.of("local:2", "refine", None, ("cuda:0",))
    with pytest.raises(InputError, match="--cluster-profile says how workers are asked for"):
        cluster_request(None, tmp_path / "profile.toml")
    monkeypatch.setattr(connect, "_ANSWER_S", 0.3)
    with pytest.raises(InputError, match="no Dask scheduler answers there"), open_at("tcp://127.0.0.1:9"):
        pass
    half_a_pair = ClusterRequest("address", 0, "tls://127.0.0.1:9", ClusterProfile(tls_key="k.pem"))
    with pytest.raises(InputError, match="tls_key is given without tls_ca_file"), open_at(half_a_pair):
        pass
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with (
        pytest.raises(InputError, match=r"needs the package dask, .* pip install 'verglas\[cluster\]'"),
        open_at("local:1"),
    ):
        pass


def open_at(text):
    return open_cluster(ClusterRequest.parse(text), Silence(), job="refine")
