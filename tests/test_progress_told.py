"""Long phases without iterations tell how far they are: reading, centring, the verdict, the contest of subgroups."""

from __future__ import annotations

import pytest
from heard import Heard

import verglas as vg
from verglas.image import in_memory

PIXEL_A = 6.0


def simulate(n: int, symmetry: str) -> tuple[vg.Particles, vg.Map]:
    model = vg.simulate.phantom(20, PIXEL_A, 80.0, symmetry)
    return vg.simulate.particles(model, n, 20, PIXEL_A, snr=1.0, seed=1), vg.simulate.density(model, 20, PIXEL_A)


@pytest.mark.slow
def test_a_refinement_under_a_group_tells_what_comes_before_and_after_its_iterations():
    particles, reference = simulate(60, "C2")
    heard = Heard()
    vg.refine(particles, reference, "C2", diameter_A=90, iterations=1, initial_resolution_A=40, listener=heard)
    names = list(heard.phases)
    assert names[0] == "inspecting particles"
    assert heard.ends_of("inspecting particles") == (60, 60)
    assert heard.ends_of("postprocessing, maps") == (1, 1)
    done, total = heard.ends_of("verdict, held-out particles")
    assert done == total == 120  # against the map and against a blob
    done, total = heard.ends_of("verdict, C2 and its subgroups")
    assert done == total
    assert len(heard.phases["verdict, C2 and its subgroups"]) >= 8
    assert heard.ends_of("credible radii, particles") == (60, 60)


def test_reading_tells_how_far_it_is(tmp_path):
    model = vg.simulate.phantom(20, PIXEL_A, 80.0)
    vg.simulate.particles(model, 12, 20, PIXEL_A, snr=1.0, out=tmp_path, seed=1)
    heard = Heard()
    in_memory(vg.read_particles(tmp_path / "particles.star"), heard)
    assert heard.ends_of("reading particles") == (12, 12)


@pytest.mark.slow
def test_ab_initio_tells_how_far_reading_and_centring_are():
    particles, _ = simulate(60, "C1")
    heard = Heard()
    vg.abinitio(particles, diameter_A=90, starts=1, iterations=1, full_iterations=1, listener=heard)
    assert list(heard.phases)[:2] == ["inspecting particles", "centring"]
    assert heard.ends_of("inspecting particles") == (60, 60)
    assert heard.ends_of("centring") == (300, 300)  # four passes to learn, one to place
    assert heard.ends_of("final poses, particles") == (60, 60)
