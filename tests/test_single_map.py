"""Resolution of one map: planted limits, filters that do not count, and solvents that tell nothing."""

from __future__ import annotations

import json

import numpy as np
import pytest
from command_line import main

import verglas as vg
from verglas.assessment import single_map_resolution
from verglas.simulate import planted_halves


def planted(resolution_A: float, noise: float, seed: int) -> tuple[vg.Map, np.ndarray]:
    field = vg.Map(np.random.default_rng(seed).normal(size=(64, 64, 64)), 1.5)
    halves = planted_halves(field, (resolution_A,), noise=noise, seed=seed)
    return halves.half1, halves.inside.astype(np.float32)


@pytest.mark.parametrize("noise", [1.0, 2.0])
@pytest.mark.parametrize("resolution_A", [4.0, 6.0, 8.0])
def test_planted_resolution_is_found_within_a_fifth(resolution_A, noise):
    volume, inside = planted(resolution_A, noise, seed=11)
    assert single_map_resolution(volume, inside, threads=1).resolution_A == pytest.approx(resolution_A, rel=0.2)


def test_a_filter_does_not_change_it_and_noise_has_none():
    volume, inside = planted(6.0, 1.0, seed=12)
    blurred = vg.filters.apply(volume, vg.filters.gaussian(1.0))
    plain, other = (single_map_resolution(v, inside) for v in (volume, blurred))
    assert other.resolution_A == pytest.approx(plain.resolution_A, rel=0.03)
    noise = volume.with_data(np.random.default_rng(13).normal(size=(64, 64, 64)))
    found = single_map_resolution(noise, inside)
    assert np.isnan(found.resolution_A)
    assert not found.never_falls


def test_a_flattened_solvent_gets_no_resolution():
    volume, inside = planted(6.0, 1.0, seed=14)
    soft = vg.masks.soft_edge(inside > 0.5, 6)
    with pytest.raises(vg.InputError, match="the map was masked"):
        single_map_resolution(volume.with_data(volume.data * soft), inside)
    weakened = single_map_resolution(volume.with_data(volume.data * (0.2 + 0.8 * soft)), inside)
    assert weakened.never_falls
    assert np.isnan(weakened.resolution_A)


def test_bad_maps_are_refused():
    volume, inside = planted(6.0, 1.0, seed=15)
    for data, mask, said in (
        (volume.data[:-2], None, "expected a cube"),
        (np.full((32, 32, 32), np.nan), None, "not finite"),
        (np.ones((32, 32, 32)), np.pad(np.ones((8, 8, 8)), 12), "constant"),
        (volume.data, np.ones((64, 64, 64)), "too tight"),
        (volume.data, 0.3 * inside, "at least 0.5"),
    ):
        with pytest.raises(vg.InputError, match=said):
            single_map_resolution(vg.Map(data, 1.5), mask)


def test_command(tmp_path, capsys):
    volume, inside = planted(6.0, 1.0, seed=16)
    paths = [str(tmp_path / name) for name in ("map.mrc", "mask.mrc")]
    for path, data in zip(paths, (volume.data, inside), strict=True):
        vg.write_map(path, volume.with_data(data))
    status, printed, _ = main(["single-map-resolution", paths[0], "--mask", paths[1], "--json"], capsys)
    assert status == 0
    assert json.loads(printed)["resolution_A"] == pytest.approx(6.0, rel=0.2)
    _, printed, _ = main(["single-map-resolution", paths[0], "--mask", paths[1]], capsys)
    assert "where signal over noise is that of half maps" in printed
