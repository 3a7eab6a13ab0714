"""cryoSPARC files: fields, poses, shifts, half sets, and STAR <-> CS both ways (issue: Files; row Formats)."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.spatial.transform import Rotation

import verglas as vg
from verglas.io import cs, write_stack

from tolerance import CS_ROTATION_DEG

QUICK = settings(deadline=None, max_examples=50)


@pytest.fixture
def folder(data_dir):
    return data_dir / "particles"


def between_deg(a, b):
    """Angles between rotations given as (n, 3, 3) matrices."""
    return np.rad2deg(Rotation.from_matrix(a @ np.swapaxes(b, -1, -2)).magnitude())


def quiet(call, *args, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", vg.VerglasWarning)
        return call(*args, **kwargs)


def make(path, n=4, **fields):
    columns = {
        "uid": np.arange(1, n + 1, dtype="u8"),
        "blob/path": np.array([b">J1/a.mrcs"] * n),
        "blob/idx": np.arange(n, dtype="u4"),
        "blob/shape": np.full((n, 2), 8, "u4"),
        "blob/psize_A": np.full(n, 1.5, "f4"),
        **fields,
    }
    columns = {k: v for k, v in columns.items() if v is not None}
    array = np.zeros(n, dtype=[(k, v.dtype, v.shape[1:]) for k, v in columns.items()])
    for k, v in columns.items():
        array[k] = v
    np.save(path.with_suffix(".npy"), array)
    path.with_suffix(".npy").rename(path)
    return array


# ---- formulas


@QUICK
@given(hnp.arrays(np.float64, (3, 3), elements=st.floats(-6, 6)))
def test_rotation_vector_is_the_transpose_of_relions_matrix(pose):
    """A = exp([p]x)^T, by Rodrigues' formula written out."""
    theta = np.linalg.norm(pose, axis=1)[:, None, None]
    x, y, z = pose.T
    zero = np.zeros(3)
    k = np.array([[zero, -z, y], [z, zero, -x], [-y, x, zero]]).transpose(2, 0, 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        a = np.where(theta > 1e-9, np.sin(theta) / theta, 1.0)
        b = np.where(theta > 1e-4, (1 - np.cos(theta)) / theta**2, 0.5)
    active = np.eye(3) + a * k + b * k @ k
    got = vg.euler_to_matrix(cs.pose_to_euler(pose))
    assert np.allclose(got, np.swapaxes(active, 1, 2), atol=1e-7)


@QUICK
@given(hnp.arrays(np.float64, (4, 3), elements=st.floats(-180, 180)))
def test_poses_round_trip_as_rotations(angles):
    pose = cs.euler_to_pose(angles)
    assert (np.linalg.norm(pose, axis=1) <= np.pi + 1e-9).all()
    back = cs.pose_to_euler(pose.astype(np.float32))  # as stored
    assert between_deg(vg.euler_to_matrix(angles), vg.euler_to_matrix(back)).max() < CS_ROTATION_DEG


def test_a_quarter_turn_about_z():
    """cryoSPARC's vector (0, 0, pi/2) turns the particle into the map by +90 degrees: rot + psi = 90."""
    rot, tilt, psi = cs.pose_to_euler([[0, 0, np.pi / 2]])[0]
    assert tilt == pytest.approx(0, abs=1e-6)
    assert (rot + psi) % 360 == pytest.approx(90)


# ---- reading


def test_fields_of_real_particles(folder):
    path = folder / "cryosparc_P12_J24_001_particles.cs"
    raw = np.load(path)
    p = vg.read_particles(path)
    assert len(p) == 2019
    assert (p.box, p.pixel_size_A) == (180, pytest.approx(2.95))
    o = p.optics
    assert np.allclose(o.defocus_u_A, raw["ctf/df1_A"])
    assert np.allclose(np.deg2rad(o.defocus_angle_deg), raw["ctf/df_angle_rad"])
    assert (o.voltage_kV[0], o.cs_mm[0], o.amplitude_contrast[0]) == pytest.approx((200, 2.0, 0.07))
    assert np.array_equal(p.half_sets, raw["alignments3D/split"] + 1)
    assert np.allclose(p.poses.shifts_A, raw["alignments3D/shift"] * raw["alignments3D/psize_A"][:, None])
    active = Rotation.from_rotvec(raw["alignments3D/pose"].astype(float)).as_matrix()
    assert between_deg(vg.euler_to_matrix(p.poses.angles_deg), np.swapaxes(active, 1, 2)).max() < CS_ROTATION_DEG
    assert p.table["rlnImageName"][1].startswith("000002@J19/extract/")
    # fields without a counterpart are there under their own names
    assert np.array_equal(p.table["alignments3D/alpha"], raw["alignments3D/alpha"])
    assert np.array_equal(p.table["uid"], raw["uid"])


def test_the_same_particles_from_star_and_cs(folder):
    """One data set of which both files exist: CTF, order and images agree."""
    star = quiet(vg.read_particles, folder / "empiar_10076_7.star")
    cs_ = quiet(vg.read_particles, folder / "empiar_10076_7.cs")
    assert np.allclose(star.optics.as_params(), cs_.optics.as_params(), rtol=1e-6)
    assert star.pixel_size_A == pytest.approx(cs_.pixel_size_A, rel=1e-6)
    a, b = quiet(star.images, [6, 0]), quiet(cs_.images, [6, 0])
    assert (cs_.table["blob/sign"] == -1).all()
    assert np.array_equal(b, -a)


def test_blob_sign_makes_particles_white(folder):
    """The stack is dark (as recorded); cryoSPARC says so with sign -1, and images come white."""
    images = quiet(quiet(vg.read_particles, folder / "empiar_10076_7.cs").images)
    y, x = np.mgrid[:320, :320] - 160
    r = np.hypot(x, y)
    assert images[:, r < 60].mean() > images[:, r > 130].mean()


def test_dark_images_are_said_and_turned_white_on_request(folder, tmp_path):
    """RELION knows no blob/sign: a STAR file says so, and a new stack needs none."""
    p = vg.read_particles(folder / "empiar_10076_7.cs")
    with pytest.warns(vg.VerglasWarning, match=r"the images are stored dark .* RELION does not: .*--restack"):
        vg.write_particles(tmp_path / "a.star", p)
    vg.write_particles(tmp_path / "b.star", p, stack=tmp_path / "b.mrcs")
    a, b = (vg.read_particles(tmp_path / name) for name in ("a.star", "b.star"))
    assert np.array_equal(quiet(a.images), b.images())
    assert (b.table["blob/sign"] == 1).all()


def test_paths_start_at_the_project(tmp_path):
    """blob/path is relative to the project, one folder above the job that wrote the file."""
    for job in ("J1", "J2"):
        (tmp_path / job).mkdir()
    write_stack(tmp_path / "J1" / "a.mrcs", np.arange(4)[:, None, None] * np.ones((1, 8, 8)), 1.5)
    make(tmp_path / "J2" / "p.cs")
    assert vg.read_particles(tmp_path / "J2" / "p.cs").images([3, 1])[:, 0, 0].tolist() == [3, 1]


def test_passthrough_is_joined_by_uid(tmp_path):
    make(tmp_path / "p.cs")
    make(
        tmp_path / "through.cs",
        uid=np.array([4, 3, 2, 1, 9], "u8"),
        n=5,
        **{"ctf/df1_A": np.array([40, 30, 20, 10, 90], "f4"), "alignments3D/split": np.array([1, 0, 1, 0, 0], "u4")},
    )
    p = vg.read_particles(tmp_path / "p.cs", passthrough=tmp_path / "through.cs")
    assert p.table["rlnDefocusU"].tolist() == [10, 20, 30, 40]
    assert p.half_sets.tolist() == [1, 2, 1, 2]
    make(tmp_path / "short.cs", n=3)
    with pytest.raises(vg.FormatError, match=r"short\.cs: 1 particles of .*p\.cs are missing, first uid 4"):
        vg.read_particles(tmp_path / "p.cs", passthrough=tmp_path / "short.cs")


def test_exposure_groups_become_optics_groups(tmp_path):
    kv = np.array([300, 200, 300, 300], "f4")
    make(tmp_path / "p.cs", **{"ctf/accel_kv": kv, "ctf/exp_group_id": np.array([7, 3, 7, 5], "u4")})
    p = vg.read_particles(tmp_path / "p.cs")
    assert p.table["rlnOpticsGroup"].tolist() == [1, 2, 1, 3]
    assert p.optics_table["rlnVoltage"].tolist() == [300, 200, 300]


def test_coordinates_are_fractions_of_the_micrograph(tmp_path):
    make(
        tmp_path / "p.cs",
        n=1,
        **{
            "location/micrograph_path": np.array([b"J1/m.mrc"]),
            "location/micrograph_shape": np.array([[3000, 4000]], "u4"),
            "location/center_x_frac": np.array([0.5], "f4"),
            "location/center_y_frac": np.array([0.25], "f4"),
        },
    )
    row = vg.read_particles(tmp_path / "p.cs").table.iloc[0]
    assert (row["rlnCoordinateX"], row["rlnCoordinateY"], row["rlnMicrographName"]) == (2000, 750, "J1/m.mrc")


def test_files_that_are_wrong(tmp_path):
    np.save(tmp_path / "plain.npy", np.zeros(3))
    (tmp_path / "plain.npy").rename(tmp_path / "plain.cs")
    (tmp_path / "text.cs").write_text("hello")
    for name, message in (
        ("plain.cs", "expected a structured array"),
        ("text.cs", "not a .cs file of cryoSPARC, which is an array of NumPy; it is a text that starts 'hello'"),
        ("nowhere.cs", "no such file"),
    ):
        with pytest.raises(vg.FormatError, match=f"{name}: {message}"):
            vg.read_particles(tmp_path / name)
    make(tmp_path / "shift.cs", **{"alignments3D/shift": np.zeros((4, 2), "f4"), "blob/psize_A": None})
    with pytest.raises(vg.FormatError, match="alignments3D/shift is in pixels, but there is neither"):
        vg.read_particles(tmp_path / "shift.cs")
    make(tmp_path / "noblob.cs", **{"blob/path": None})
    with pytest.warns(vg.VerglasWarning, match="metadata without images"):
        p = vg.read_particles(tmp_path / "noblob.cs")
    with pytest.raises(vg.InputError, match="no images, only metadata"):
        p.images([0])


def test_a_header_beyond_numpy_s_limit_is_read(data_dir, tmp_path):
    """100 classes leave 300 more fields, a header of 14,000 bytes; a pointer of Git LFS is told from a file."""
    folder = data_dir.parent / "cases" / "cs-many-classes"
    p = vg.read_particles(folder / "classes100.cs")
    assert len(p) == 30
    assert p.images([29]).shape == (1, 16, 16)
    with pytest.raises(vg.FormatError, match=r"lfs\.cs: a pointer of Git LFS in place of the file"):
        vg.read_particles(folder / "lfs.cs")
    np.save(tmp_path / "o.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    (tmp_path / "o.npy").rename(tmp_path / "o.cs")
    with pytest.raises(vg.FormatError, match="it holds Python objects") as error:
        vg.read_particles(tmp_path / "o.cs")
    assert "allow_pickle" not in str(error.value)


@pytest.mark.parametrize(
    ("field", "values", "message"),
    [
        (
            "alignments3D/pose",
            np.full((4, 3), np.nan, "f4"),
            r"alignments3D/pose, row 0 .*is not finite \(4 rows\)",
        ),
        (
            "alignments3D/shift",
            np.array([[0, 0], [0, np.inf], [0, 0], [0, 0]], "f4"),
            r"shift, row 1 \(from 0\): \[ 0. inf\]",
        ),
        (
            "blob/shape",
            np.zeros((4, 3), "u4"),
            r"blob/shape is uint32 of shape \(3,\); expected numbers of shape \(2,\)",
        ),
        ("ctf/df1_A", np.array([b"a"] * 4), r"field ctf/df1_A is .* of shape \(\); expected numbers"),
        ("blob/path", np.array([b"\xff"] * 4), r"a text of a \.cs file is not UTF-8"),
    ],
)
def test_fields_that_are_wrong_are_named_with_their_row(tmp_path, field, values, message):
    make(tmp_path / "p.cs", **{field: values})
    with pytest.raises(vg.FormatError, match=message):
        vg.read_particles(tmp_path / "p.cs")


# ---- round trips


@pytest.mark.parametrize("name", ["empiar_10076_7.cs", "cryosparc_P12_J24_001_particles.cs"])
@pytest.mark.parametrize("through_star", [False, True])
def test_cs_round_trip(folder, tmp_path, name, through_star):
    """CS -> CS and CS -> STAR -> CS: the same fields in the same order and types, the same values."""
    raw = np.load(folder / name)
    p = vg.read_particles(folder / name)
    if through_star:
        quiet(vg.write_particles, tmp_path / "p.star", p)
        p = vg.read_particles(tmp_path / "p.star")
    vg.write_particles(tmp_path / "p.cs", p)
    got = np.load(tmp_path / "p.cs")
    assert got.dtype.names == raw.dtype.names
    for field in raw.dtype.names:
        if field == "blob/path":  # follows the stack to the new folder, where it is found
            if name.startswith("empiar"):
                assert (tmp_path / got[field][0].decode()).resolve() == (folder / raw[field][0].decode()).resolve()
            else:
                assert np.array_equal(got[field], raw[field])
        elif field == "alignments3D/pose":
            a, b = (Rotation.from_rotvec(x[field].astype(float)).as_matrix() for x in (raw, got))
            assert between_deg(a, b).max() < CS_ROTATION_DEG
        elif raw[field].dtype.kind == "f":
            assert np.allclose(got[field], raw[field], rtol=1e-6, atol=1e-5), field
            assert got.dtype[field] == raw.dtype[field]
        else:
            assert np.array_equal(got[field], raw[field]), field
            assert raw[field].dtype.kind == "S" or got.dtype[field] == raw.dtype[field]


def test_star_round_trip_through_cs(folder, tmp_path):
    """STAR -> CS -> STAR for every file: order, poses, half sets, CTF, and every other column by value."""
    for path in sorted(folder.glob("*.star")):
        p = quiet(vg.read_particles, path)
        quiet(vg.write_particles, tmp_path / "p.cs", p)
        q = quiet(vg.read_particles, tmp_path / "p.cs")
        assert len(q) == len(p)
        if p.poses is not None:
            same = between_deg(vg.euler_to_matrix(p.poses.angles_deg), vg.euler_to_matrix(q.poses.angles_deg))
            assert same.max() < CS_ROTATION_DEG, path
            assert np.allclose(q.poses.shifts_A, p.poses.shifts_A, atol=1e-5)
        if p.half_sets is not None:
            assert np.array_equal(p.half_sets, q.half_sets)
        if "rlnVoltage" in p.table or p.optics_table is not None:
            assert np.allclose(q.optics.as_params(), p.optics.as_params(), rtol=1e-6, atol=1e-4)
        gone = [label for label in p.table if label not in q.table]
        assert set(gone) <= {"rlnOriginX", "rlnOriginY", "rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast"}
        for label in ("rlnNormCorrection", "rlnCoordinateX", "rlnGroupNumber", "rlnMicrographName", "rlnClassNumber"):
            if label in p.table:
                assert q.table[label].astype(str).tolist() == p.table[label].astype(str).tolist(), (path, label)
        if p.optics_table is not None:
            lost = set(p.optics_table) - set(q.optics_table)
            assert not lost


def test_images_follow_through_the_conversion(tmp_path):
    images = np.random.default_rng(0).normal(size=(4, 8, 8)).astype(np.float32)
    p = vg.Particles.from_images(images, 1.5, poses=vg.Poses(np.arange(12).reshape(4, 3) * 10.0))
    vg.write_particles(tmp_path / "p.cs", p[[2, 0]])
    q = vg.read_particles(tmp_path / "p.cs")
    assert np.array_equal(q.images(), images[[2, 0]])
    array = np.load(tmp_path / "p.cs")
    assert array["blob/sign"].tolist() == [1, 1]
    assert array["blob/shape"].tolist() == [[8, 8]] * 2
    assert array["blob/idx"].tolist() == [0, 1]


def test_uids_are_stable_and_distinct(folder, tmp_path):
    p = quiet(vg.read_particles, folder / "relion31.star")
    names = p.table["rlnImageName"].tolist()
    quiet(vg.write_particles, tmp_path / "a.cs", p)
    quiet(vg.write_particles, tmp_path / "b.cs", p.with_columns(rlnImageName=[names[0]] * 5))
    a, b = np.load(tmp_path / "a.cs")["uid"], np.load(tmp_path / "b.cs")["uid"]
    assert len(set(a.tolist())) == len(set(b.tolist())) == 5
    assert a[0] == b[0]


def test_what_cryosparc_will_not_apply_is_said(folder, tmp_path):
    p = vg.read_particles(folder / "relion31.6opticsgroups.star")
    with pytest.warns(vg.VerglasWarning, match=r"rlnBeamTiltX, .*rlnOddZernike.* cryoSPARC ignores them"):
        vg.write_particles(tmp_path / "p.cs", p)
