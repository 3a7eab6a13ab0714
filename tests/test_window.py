"""The window: its pages say what the jobs' files say, and nobody else gets anything out of it."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import struct
import zlib

import numpy as np
import pytest
from command_line import main
from window_client import HOST, TOKEN, Client, ball, refine_run

import verglas as vg
from verglas.errors import InputError
from verglas.report.volume import pack_volume
from verglas.run.tenure import tenure
from verglas.window.cryosparc import cryosparc_jobs
from verglas.window.folders import Folders
from verglas.window.graph import GAP_X, WIDTH, draw
from verglas.window.relion import relion_jobs
from verglas.window.volumes import Volumes

pytest.importorskip("starlette")

OWN = [("host", HOST), ("cookie", f"verglas_8000={TOKEN}")]


@pytest.fixture
def client(tmp_path):
    refine_run(tmp_path / "jobs" / "one", 0)
    refine_run(tmp_path / "jobs" / "two", 1)
    (tmp_path / "secret.txt").write_text("the crown jewels")
    return Client(tmp_path / "jobs")


def keys(client):
    return {job.name: key for key, job in client.window.folders.jobs().items()}


# ---- what is shown


def test_the_project_page_lists_the_jobs_with_state_verdict_and_time(client):
    page = client.ask("/")
    assert page.status == 200
    for word in ("one", "two", "finished", "warn", "12.5 s", "2026-01-02 03:04", "1,200"):
        assert word in page.text
    sizes = client.ask("/sizes").json
    assert set(sizes) == set(keys(client).values())
    assert all(text.endswith("kB") for text in sizes.values())


def test_a_job_page_has_its_curves_settings_and_files(client):
    page = client.ask(f"/jobs/{keys(client)['one']}")
    blocks = [json.loads(b) for b in re.findall(r'<script type="application/json">(.*?)</script>', page.text)]
    fsc = next(b for b in blocks if b["title"] == "Fourier shell correlation")
    assert [s["name"] for s in fsc["series"]] == ["unmasked", "corrected"]
    assert fsc["marks"] == [[0.25, "Nyquist 4.00 Å"]]
    by_iteration = next(b for b in blocks if b["title"] == "Resolution by iteration")
    assert by_iteration["series"][0]["y"] == [20.0, 12.0, 8.3]
    assert "<td>115.5</td>" in page.text
    assert "few &lt;particles&gt;" in page.text
    assert "iterations.csv" in page.text
    assert client.ask(f"/jobs/{keys(client)['one']}/files/iterations.csv").text.startswith("iteration,phase")


def test_two_runs_side_by_side_show_only_what_differs(client):
    by_name = keys(client)
    page = client.ask(f"/compare?a={by_name['one']}&b={by_name['two']}").text
    settings = page[page.index("Settings that differ") :]
    assert re.search(r">seed</th><td>0</td><td>1<", settings)
    assert "diameter" not in settings
    assert client.ask("/compare?a=x&b=y").status == 404


def test_a_map_is_packed_for_the_viewer(client):
    body = client.ask(f"/jobs/{keys(client)['one']}/volumes/map").body
    length = struct.unpack("<I", body[:4])[0]
    head = json.loads(body[4 : 4 + length])
    grey = np.frombuffer(zlib.decompress(body[4 + length :]), np.uint8).reshape(head["shape"][::-1])
    density = head["low"] + (head["high"] - head["low"]) * grey / 255
    assert np.abs(density - np.clip(ball().data, None, head["high"])).max() < 0.003
    assert head["low"] < head["level"] < head["high"]
    assert client.ask(f"/jobs/{keys(client)['one']}/volumes/half1").status == 404


def test_a_large_map_is_sent_coarser_and_in_less_than_a_megabyte():
    rng = np.random.default_rng(0)
    big = ball(120, 40.0)
    packed = pack_volume(big.with_data(big.data + 0.05 * rng.normal(size=big.data.shape)), most_box=96)
    head = json.loads(packed[4 : 4 + struct.unpack("<I", packed[:4])[0]])
    assert head["shape"] == [96, 96, 96]
    assert head["pixel_size_A"] == pytest.approx(120 * 2.0 / 96, rel=1e-4)
    assert len(packed) * 4 / 3 < 1e6
    with pytest.raises(InputError, match="8 or 16"):
        pack_volume(big, bits=4)


def test_a_process_and_its_stages_are_one_drawing_and_a_stalled_job_is_called_stalled(tmp_path):
    project = tmp_path / "proj"
    with tenure(project, "process") as hold:
        hold.write(state="running")
        for name, inputs in (("ctf", {}), ("pick", {"ctf/ctf/ctf.csv": "a"})):
            (project / name).mkdir()
            stage = {"stage": name, "state": "finished", "inputs": inputs, "settings": {}, "seconds": 1.5}
            vg.io.write_json(project / name / "stage.json", stage)
            vg.io.write_json(project / name / "verdict.json", {"state": "go on", "reasons": [], "numbers": {}})
        client = Client(tmp_path)
        jobs = {job.name: job for job in client.window.folders.jobs().values()}
        assert jobs["proj"].state == "running"
        assert jobs["pick"].parents == [jobs["ctf"].key]
        assert jobs["pick"].project == jobs["proj"].key
        run = json.loads((project / "run.json").read_text())
        run["progress"] |= {"time": "2020-01-01T00:00:00+00:00"}
        (project / "run.json").write_text(json.dumps(run))
        assert {j.name: j.state for j in client.window.folders.jobs().values()}["proj"] == "stalled"
        assert "is stalled at" in client.ask("/").text
    assert "finished" in client.ask(f"/jobs/{jobs['proj'].key}").text


def test_jobs_are_linked_by_the_files_of_their_commands_and_a_checkpoint_is_none(tmp_path):
    motion, picks = refine_run(tmp_path / "motion"), refine_run(tmp_path / "picks")
    (motion / "micrographs").mkdir()
    words = ["pick", "motion/micrographs/*.mrc", "--diameter", "120", "--out", "picks"]
    run = {"command": "pick", "state": "finished", "run_state": "finished", "settings": {}}
    run |= {"started": "2026-01-02T03:04:05+00:00", "finished": "2026-01-02T03:05:15+00:00"}
    vg.io.write_json(picks / "run.json", run | {"call": {"arguments": words, "folder": str(tmp_path)}})
    refine_run(motion / "checkpoint")  # a copy of its record
    jobs = {job.name: job for job in Folders([tmp_path]).jobs().values()}
    assert set(jobs) == {"motion", "picks"}
    assert jobs["picks"].parents == [jobs["motion"].key]
    assert jobs["picks"].seconds == 70.0
    assert jobs["picks"].sentence == "pick has finished"


def test_a_project_has_the_gravest_verdict_of_its_stages(tmp_path):
    project = refine_run(tmp_path / "proj")
    vg.io.write_json(project / "run.json", {"command": "process", "state": "finished", "run_state": "finished"})
    for name, state in (("ctf", "go on"), ("pick", "warn"), ("refine.before", "stop")):
        (project / name).mkdir()
        vg.io.write_json(project / name / "verdict.json", {"state": state, "reasons": [f"{name} says so"]})
    (job,) = [job for job in Folders([tmp_path]).jobs().values() if job.command == "process"]
    assert (job.verdict, job.reasons) == ("warn", ["pick: pick says so"])


def test_a_relion_project_is_shown_and_never_written_into(data_dir, tmp_path):
    import tarfile

    with tarfile.open(data_dir / "relion_project" / "relion_tutorial_files.tar.xz") as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # Python before 3.11.4 has none
        wanted = re.compile(
            r"^(\./)?(default_pipeline\.star|Refine3D/job029/(run_data|run_model)\.star|"
            r"PostProcess/job030/(postprocess|job)\.star|Refine3D/job029/job\.star|CtfFind/job003/micrographs_ctf\.star|"
            r"AutoPick/job011/summary\.star|ManualPick/job004/.*manualpick\.star)$"
        )
        for member in archive:
            if wanted.match(member.name):
                archive.extract(member, tmp_path)
    before = sorted(tmp_path.rglob("*"))
    client = Client(tmp_path)
    jobs = {job.name.partition(" ")[0]: job for job in client.window.folders.jobs().values()}
    assert len(jobs) == 31
    assert jobs["Refine3D/job029"].numbers["particles"] == 4501
    assert jobs["CtfFind/job003"].numbers["micrographs"] == 24
    assert jobs["AutoPick/job011"].numbers == {"picks": 9482, "micrographs": 24}
    assert jobs["ManualPick/job004"].numbers == {"picks": 3, "micrographs": 1}
    assert jobs["PostProcess/job030"].numbers["resolution_A"] == pytest.approx(2.818265)
    assert jobs["Refine3D/job029"].key in jobs["PostProcess/job030"].parents
    page = client.ask(f"/jobs/{jobs['PostProcess/job030'].key}").text
    assert '"name": "corrected"' in page
    # Settings of a file whose help texts cannot be read, and where its particles were seen from.
    assert jobs["Refine3D/job029"].settings["particle_diameter"] == "200"
    assert (
        f"/jobs/{jobs['Refine3D/job029'].key}/angles.json?at="
        in client.ask(f"/jobs/{jobs['Refine3D/job029'].key}").text
    )
    assert client.ask(f"/jobs/{jobs['Refine3D/job029'].key}/angles.json").json["title"] == "Viewing directions"
    drawing = draw(list(jobs.values()))  # 31 jobs in a chain: seven beside each other, the others below
    assert drawing.width <= 8 + 7 * (WIDTH + GAP_X)
    assert len({(one.x, one.y) for one in drawing.nodes}) == 31
    assert client.ask("/").status == 200
    assert sorted(tmp_path.rglob("*")) == before


def test_a_damaged_table_of_a_relion_job_is_as_good_as_missing(tmp_path):
    """Its numbers are left out, and the project is shown."""
    folder = tmp_path / "Extract/job002"
    folder.mkdir(parents=True)
    (folder / "particles.star").write_text("no table\n")
    (tmp_path / "default_pipeline.star").write_text(
        "data_pipeline_processes\nloop_\n_rlnPipeLineProcessName #1\n_rlnPipeLineProcessStatus #2\nExtract/job002/ 2\n"
    )
    (job,) = relion_jobs(tmp_path)
    assert (job.state, job.numbers) == ("finished", {})


def test_a_cryosparc_project_is_shown(tmp_path):
    for uid, kind, parents in (("J1", "import_particles", []), ("J2", "homo_refine_new", ["J1"])):
        (tmp_path / "P3" / uid).mkdir(parents=True)
        record = {"uid": uid, "type": kind, "status": "completed", "title": "<b>T</b>", "parents": parents}
        vg.io.write_json(tmp_path / "P3" / uid / "job.json", record)
    job = tmp_path / "P3" / "J2"
    for name in ("J2_004_volume_map", "J2_005_volume_map", "J2_005_volume_map_half_A", "J2_005_volume_mask_fsc"):
        vg.write_map(job / f"{name}.mrc", vg.Map(np.ones((8, 8, 8)), 2.0))
    for name in ("J2_class_00_00100_volume", "J2_class_01_00100_volume", "J2_class_01_final_volume"):
        vg.write_map(job / f"{name}.mrc", vg.Map(np.ones((8, 8, 8)), 2.0))
    np.save(job / "J2_004_particles.npy", np.zeros(5, [("uid", "u8")]))
    (job / "J2_004_particles.npy").rename(job / "J2_004_particles.cs")
    (job / "J2_005_particles.cs").write_bytes(b"\x93NUMPY")  # cut off while it was written
    client = Client(tmp_path)
    jobs = list(client.window.folders.jobs().values())
    assert [(j.command, j.state) for j in jobs] == [("import_particles", "finished"), ("homo_refine_new", "finished")]
    assert jobs[1].name == "J2 homo refine (<b>T</b>)"
    assert jobs[1].numbers == {}
    (job / "J2_005_particles.cs").unlink()
    assert cryosparc_jobs(job)[0].numbers == {"particles": 5}
    shown = {name: path.stem for name, path in Volumes().paths(jobs[1]).items()}
    assert shown == {
        "map": "J2_005_volume_map",
        "half1": "J2_005_volume_map_half_A",
        "mask": "J2_005_volume_mask_fsc",
        "map_class1": "J2_class_00_00100_volume",
        "map_class2": "J2_class_01_final_volume",
    }
    assert jobs[1].parents == [jobs[0].key]
    assert "&lt;b&gt;T" in client.ask("/").text


def test_readers_are_told_what_changes(tmp_path):
    folder = refine_run(tmp_path / "one")
    watch = Client(tmp_path).window.watch
    watch.every_s = 0.02

    async def follow():
        events = [watch.events() for _ in range(200)]
        first = await asyncio.gather(*(anext(e) for e in events))
        if b'"changed": []' in first[0]:  # asked before the first look
            first = await asyncio.gather(*(anext(e) for e in events))
        with open(folder / "iterations.csv", "a") as file:
            file.write("4,grid,7.9,4\n")
        second = await asyncio.wait_for(asyncio.gather(*(anext(e) for e in events)), 10)
        for one in events:
            await one.aclose()
        return first, second

    first, second = asyncio.run(follow())
    key = next(iter(watch.folders.jobs()))
    assert len(second) == 200
    assert all(json.loads(line[6:])["changed"] == [key] for line in (*first, *second))
    assert watch.readers == 0


# ---- who is refused


def test_the_token_opens_and_stays_as_a_cookie_that_no_script_sees(client):
    page = client.ask(f"/?token={TOKEN}", headers=[("host", HOST)])
    assert page.status == 200
    assert page.headers["set-cookie"] == f"verglas_8000={TOKEN}; Path=/; HttpOnly; SameSite=Strict"
    policy = page.headers["content-security-policy"]
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    assert page.headers["referrer-policy"] == "no-referrer"
    assert not re.search(r"<script>|<style>| on\w+=| style=|https?://(?!www\.w3\.org)", page.text)


def _post(*headers):
    return ("POST", "/jobs/KEY/classes", [*OWN, *headers])


HOSTILE = {
    "no token": ("GET", "/", [("host", HOST)], 403),
    "a wrong token": ("GET", "/?token=guess", [("host", HOST)], 403),
    "two tokens": ("GET", f"/?token={TOKEN}&token=x", [("host", HOST)], 403),
    "the token's beginning": ("GET", f"/?token={TOKEN[:-1]}", [("host", HOST)], 403),
    "a wrong cookie": ("GET", "/", [("host", HOST), ("cookie", "verglas_8000=guess")], 403),
    "the cookie of another port": ("GET", "/", [("host", HOST), ("cookie", f"verglas_9000={TOKEN}")], 403),
    "a name bound to this address": ("GET", "/", [("host", "evil.example:8000"), OWN[1]], 403),
    "a name that begins well": ("GET", "/", [("host", "127.0.0.1.evil.example"), OWN[1]], 403),
    "a user before the name": ("GET", "/", [("host", "localhost@evil.example"), OWN[1]], 403),
    "two hosts": ("GET", "/", [("host", HOST), ("host", "evil.example"), OWN[1]], 403),
    "no host": ("GET", "/", [OWN[1]], 403),
    "a form of another site": (*_post(("origin", "http://evil.example"), ("content-length", "2")), 403),
    "a form without an origin": (*_post(("content-length", "2")), 403),
    "a form of an unnamed origin": (*_post(("origin", "null"), ("content-length", "2")), 403),
    "a form of another port": (*_post(("origin", "http://127.0.0.1:9000"), ("content-length", "2")), 403),
    "a form that a browser calls foreign": (
        *_post(("origin", f"http://{HOST}"), ("sec-fetch-site", "cross-site"), ("content-length", "2")),
        403,
    ),
    "a body that is too long": (*_post(("origin", f"http://{HOST}"), ("content-length", "99999999")), 413),
    "a body of unknown length": (*_post(("origin", f"http://{HOST}")), 411),
    "a body of negative length": (*_post(("origin", f"http://{HOST}"), ("content-length", "-5")), 413),
    "another method": ("PUT", "/", OWN, 405),
    "deletion": ("DELETE", "/jobs/KEY", OWN, 405),
    "a path above": ("GET", "/jobs/KEY/files/../../secret.txt", OWN, 404),
    "a path above, encoded": ("GET", "/jobs/KEY/files/%2e%2e/%2e%2e/secret.txt", OWN, 404),
    "a path above, encoded twice": ("GET", "/jobs/KEY/files/%252e%252e/secret.txt", OWN, 404),
    "an absolute path": ("GET", "/jobs/KEY/files//etc/passwd", OWN, 404),
    "a backslash": ("GET", "/jobs/KEY/files/..%5c..%5csecret.txt", OWN, 404),
    "a zero byte": ("GET", "/jobs/KEY/files/run.json%00.png", OWN, 404),
    "a hidden file": ("GET", "/jobs/KEY/files/.lock", OWN, 404),
    "a link that leads out": ("GET", "/jobs/KEY/files/link.txt", OWN, 404),
    "a folder": ("GET", "/jobs/KEY/files/history", OWN, 404),
    "a program": ("GET", "/jobs/KEY/files/run.py", OWN, 404),
    "a static file above": ("GET", "/static/../server.py", OWN, 404),
    "a static file above, encoded": ("GET", "/static/..%2fserver.py", OWN, 404),
    "a map above": ("GET", "/jobs/KEY/volumes/..%2f..%2fsecret", OWN, 404),
    "a job that is none": ("GET", "/jobs/..%2f..", OWN, 404),
}


@pytest.fixture(scope="module")
def besieged(tmp_path_factory):
    root = tmp_path_factory.mktemp("besieged")
    folder = refine_run(root / "jobs" / "one")
    (root / "secret.txt").write_text("the crown jewels")
    os.symlink(root / "secret.txt", folder / "link.txt")
    (folder / "run.py").write_text("the crown jewels")
    (folder / ".lock").write_text("the crown jewels")
    (folder / "history").mkdir()
    return Client(root / "jobs", allow_changes=True)


@pytest.mark.slow
def test_two_hundred_readers_at_once_have_their_pages(client):
    """Each its own page whole: the project's, a job's, or a map."""
    key = next(iter(keys(client).values()))
    targets = ["/", f"/jobs/{key}", f"/jobs/{key}/volumes/map"]
    alone = [client.ask(target) for target in targets]

    async def all_of_them():
        return await asyncio.gather(*(client.request(targets[k % 3]) for k in range(200)))

    answers = asyncio.run(all_of_them())
    assert len(answers) == 200
    for k, answer in enumerate(answers):
        assert (answer.status, len(answer.body)) == (200, len(alone[k % 3].body))
    assert answers[2].body == alone[2].body


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_requests_get_nothing(besieged, what):
    method, target, headers, status = HOSTILE[what]
    answer = besieged.ask(target.replace("KEY", next(iter(keys(besieged).values()))), method, b"{}", headers)
    assert answer.status == status
    assert "crown jewels" not in answer.text
    assert "root:" not in answer.text


@pytest.mark.slow
def test_a_thousand_hostile_requests_get_nothing(besieged):
    rng = random.Random(7)
    key = next(iter(keys(besieged).values()))
    pieces = [
        "..",
        "%2e%2e",
        "/",
        "//",
        "\\",
        "%5c",
        "secret.txt",
        "etc",
        "passwd",
        ".lock",
        "%00",
        "run.py",
        "link.txt",
    ]
    pieces += ["%252e", "....", "~", "C:", "file:", "jobs", "one", "\u2025", "%c0%af", ";", "?", "#", "history"]
    hosts = ["evil.example", "127.0.0.1.evil", "localhost.evil:8000", "[::1].evil", "0x7f.1.evil", "", "a" * 3000]
    for _ in range(1000):
        kind = rng.randrange(4)
        path = rng.choice(["/jobs/KEY/files/", "/jobs/KEY/volumes/", "/static/", "/jobs/", "/"]).replace("KEY", key)
        target = path + rng.choice(["", "/"]).join(rng.choices(pieces, k=rng.randrange(1, 9)))
        if kind == 0:
            headers = OWN
        elif kind == 1:
            headers = [("host", rng.choice(hosts)), OWN[1]]
        elif kind == 2:
            headers = [
                OWN[0],
                ("cookie", f"verglas_8000={TOKEN[: rng.randrange(len(TOKEN))]}{rng.choice(['', 'x', chr(34)])}"),
            ]
        else:
            headers = [
                *OWN,
                ("origin", rng.choice(["null", "http://evil.example", f"https://{HOST}.evil"])),
                ("content-length", "2"),
            ]
        answer = besieged.ask(
            target.encode("utf-8", "replace").decode("latin-1"), "POST" if kind == 3 else "GET", b"{}", headers
        )
        # With the token and no path but "/" it is the project's page, which anybody with the token may see.
        home = kind == 0 and target.partition("?")[0] == "/"
        assert answer.status in (400, 403, 404, 405) or (home and answer.status == 200), (target, headers)
        assert "crown jewels" not in answer.text
        assert "root:" not in answer.text


def test_names_of_files_and_words_of_records_run_no_script(tmp_path):
    evil = '"><img src=x onerror=alert(1)><script>alert(2)</script>'
    folder = refine_run(tmp_path / evil.replace("/", "_"))
    record = json.loads((folder / "run.json").read_text())
    record["settings"] |= {evil: evil}
    record["verdict"]["reasons"] = [evil]
    vg.io.write_json(folder / "run.json", record)
    (folder / (evil.replace("/", "_") + ".txt")).write_text("x")
    (folder / "fsc.csv").write_text("frequency_per_A,</script><script>alert(3)</script>\n0,1\n0.1,0.5\n")
    (folder / "error.log").write_text(evil)
    client = Client(tmp_path)
    key = next(iter(keys(client).values()))
    for target in ("/", f"/jobs/{key}", f"/compare?a={key}&b={key}"):
        text = client.ask(target).text
        assert "<img src=x" not in text
        assert "<script>alert" not in text
    assert client.ask("/jobs/" + evil.replace("/", "%2f")).status == 404


def test_a_page_that_a_job_wrote_has_no_right_to_the_server(tmp_path):
    folder = refine_run(tmp_path / "one")
    (folder / "report.html").write_text("<script>fetch('/')</script>")
    client = Client(tmp_path)
    answer = client.ask(f"/jobs/{next(iter(keys(client).values()))}/files/report.html")
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("sandbox allow-scripts")
    assert "allow-same-origin" not in policy
    assert "default-src 'none'" in policy


def test_a_password_is_asked_where_others_can_reach_it(tmp_path):
    refine_run(tmp_path / "one")
    client = Client(tmp_path, password="sesame", host="0.0.0.0")
    host = [("host", "192.168.1.7:8000")]
    asked = client.ask("/", headers=host)
    assert asked.status == 401
    assert "Password" in asked.text
    form = [*host, ("origin", "http://192.168.1.7:8000"), ("content-length", "15")]
    opened = client.ask("/login", "POST", b"password=sesame", form)
    assert opened.status == 303
    assert TOKEN in opened.headers["set-cookie"]
    assert client.ask("/", headers=[("host", "rebound.example"), OWN[1]]).status == 403


def test_a_wrong_password_opens_nothing_and_takes_its_time(tmp_path, monkeypatch):
    monkeypatch.setattr("verglas.window.guard._WRONG_PASSWORD_S", 0.01)
    client = Client(tmp_path, password="sesame", host="0.0.0.0")
    form = [("host", HOST), ("origin", f"http://{HOST}"), ("content-length", "14")]
    answer = client.ask("/login", "POST", b"password=guess", form)
    assert answer.status == 401
    assert "set-cookie" not in answer.headers


# ---- the command


def test_an_address_that_others_reach_needs_a_password(tmp_path, capsys):
    status, _, err = main(["serve", str(tmp_path), "--host", "0.0.0.0"], capsys)
    assert (status, "give --password" in err) == (1, True)
    assert main(["serve", str(tmp_path / "none")], capsys)[0] == 1


def test_classes_of_relions_last_iteration_are_shown(tmp_path):
    folder = tmp_path / "Class3D/job016"
    folder.mkdir(parents=True)
    for name in ("run_it024_class001", "run_it025_class001", "run_it025_class002", "run_it025_half1_class001_unfil"):
        vg.write_map(folder / f"{name}.mrc", vg.Map(np.ones((8, 8, 8)), 2.0))
    (tmp_path / "default_pipeline.star").write_text(
        "data_pipeline_processes\nloop_\n_rlnPipeLineProcessName #1\n_rlnPipeLineProcessStatus #2\nClass3D/job016/ 2\n"
    )
    (job,) = relion_jobs(tmp_path)
    shown = {name: path.stem for name, path in Volumes().paths(job).items()}
    assert shown == {"map_class1": "run_it025_class001", "map_class2": "run_it025_class002"}
