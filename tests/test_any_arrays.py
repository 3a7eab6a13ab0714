"""Public functions of arrays take those of PyTorch, CuPy, xarray, and what speaks DLPack alone."""

from __future__ import annotations

import importlib
import inspect
import re

import numpy as np
import pandas as pd
import pytest
from foreign_arrays import DeviceArray, Exchanged, Labelled, Tensor, data_array

import verglas as vg
from verglas.types.arrays import any_arrays

KINDS = [Tensor, DeviceArray, Labelled, Exchanged, data_array]
PACKAGES = [
    "assessment",
    "classification",
    "detector",
    "extraction",
    "filters",
    "geometry",
    "heterogeneity",
    "image",
    "initial_model",
    "map_geometry",
    "masks",
    "motion",
    "optics",
    "picking",
    "polishing",
    "reconstruction",
    "regularisation",
    "search",
    "simulate",
    "tilting",
]
ARRAYS = re.compile(r"Array\b|ArrayLike|NDArray")


def public_functions():
    """Functions of the packages' lists by name; those of one that has no list are not public."""
    for package in PACKAGES:
        module = importlib.import_module(f"verglas.{package}")
        for name in module.__all__:
            function = getattr(module, name)
            if inspect.isfunction(function) and function.__module__.startswith("verglas."):
                yield f"{package}.{name}", function


def test_every_public_function_of_arrays_takes_any():
    missing = [
        name
        for name, function in public_functions()
        if any(ARRAYS.search(str(one.annotation)) for one in inspect.signature(function).parameters.values())
        and not vars(function).get("takes_any_array")
    ]
    assert missing == []


rng = np.random.default_rng(0)
VOLUME, IMAGES = rng.normal(size=(16, 16, 16)).astype(np.float32), rng.normal(size=(4, 16, 16)).astype(np.float32)
ANGLES = rng.uniform(0, 180, (4, 3))
CALLS = {
    "geometry.euler_to_matrix": (ANGLES,),
    "geometry.angular_distance": (ANGLES, ANGLES[::-1].copy()),
    "masks.from_threshold": (VOLUME, 0.5),
    "masks.soft_edge": (VOLUME > 1.0, 3.0),
    "masks.dilate": (VOLUME > 1.0, 2),
    "image.normalise": (IMAGES,),
    "image.mean_image": (IMAGES,),
    "image.rotate": (IMAGES[0], 30.0),
    "image.ncc": (IMAGES, IMAGES[::-1].copy()),
    "image.match_histogram": (IMAGES[0], IMAGES[1]),
    "extraction.centre_of_mass": (IMAGES,),
    "classification.covariance": (IMAGES,),
    "assessment.orientation_efficiency": (ANGLES,),
    "detector.find_defects": (np.abs(IMAGES[0]),),
    "picking.match_picks": (ANGLES[:, :2], ANGLES[:, :2], 5.0),
    "map_geometry.spherical_average": (VOLUME,),
}


@pytest.mark.parametrize("name", CALLS)
def test_what_comes_back_is_the_same_whosever_arrays_were_given(name):
    package, _, function = name.partition(".")
    call, arguments = getattr(getattr(vg, package), function), CALLS[name]
    expected = repr(call(*arguments))
    for kind in KINDS:
        given = [kind(one) if isinstance(one, np.ndarray) else one for one in arguments]
        assert repr(call(*given)) == expected, kind


def test_lists_of_foreign_arrays_are_taken_and_what_is_ours_stays():
    seen = any_arrays(lambda *values, **named: (values, named))
    inside = [Exchanged(VOLUME), VOLUME]
    (first, second), named = seen(inside, vg.Map(VOLUME, 2.0), table=(table := pd.DataFrame({"a": [1]})))
    assert all(type(one) is np.ndarray for one in first)
    assert first[1] is VOLUME
    assert isinstance(second, vg.Map)
    assert named["table"] is table
    assert type(inside[0]) is Exchanged  # a caller's list is not changed
