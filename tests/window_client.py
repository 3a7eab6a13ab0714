"""A client of an ASGI application in this process, which sends what no browser would: any header, any path."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pandas as pd

import verglas as vg
from verglas.run.tenure import tenure
from verglas.window.folders import Folders
from verglas.window.guard import Guard
from verglas.window.server import Window, window_app

TOKEN = "a-token-that-nobody-guesses"
HOST = "127.0.0.1:8000"


@dataclass(frozen=True)
class Answer:
    """Status, headers and body."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace")

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """Asks a window over some folders.

    Parameters
    ----------
    folders : paths
    allow_changes, password
        As for the server.
    """

    def __init__(
        self, *folders: Path, allow_changes: bool = False, password: str = "", host: str = "127.0.0.1"
    ) -> None:
        self.window = Window(Folders([Path(folder).resolve() for folder in folders]), allow_changes)
        self.app = window_app(self.window, Guard(TOKEN, host, password, "verglas_8000"))
        self.own = [("host", HOST), ("cookie", f"verglas_8000={TOKEN}")]

    def ask(
        self, target: str, method: str = "GET", body: bytes = b"", headers: list[tuple[str, str]] | None = None
    ) -> Answer:
        """One request; ``headers`` takes the place of those of a browser that has the cookie."""
        return asyncio.run(self.request(target, method, body, headers))

    def send(self, target: str, value: Any) -> Answer:
        """A change, as a page of the server makes it."""
        body = json.dumps(value).encode()
        own = [*self.own, ("origin", f"http://{HOST}"), ("content-type", "application/json")]
        return self.ask(target, "POST", body, [*own, ("content-length", str(len(body)))])

    async def request(
        self, target: str, method: str = "GET", body: bytes = b"", headers: list[tuple[str, str]] | None = None
    ) -> Answer:
        path, _, query = target.partition("?")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": unquote(path),
            "raw_path": path.encode("utf-8", "replace"),
            "query_string": query.encode("utf-8", "replace"),
            "root_path": "",
            "headers": [
                (k.encode("latin-1"), v.encode("latin-1")) for k, v in (self.own if headers is None else headers)
            ],
            "client": ("127.0.0.1", 50000),
            "server": ("127.0.0.1", 8000),
        }
        parts = [{"type": "http.request", "body": body, "more_body": False}]
        sent: list[dict[str, Any]] = []

        async def receive() -> Any:
            if not parts:
                await asyncio.Event().wait()  # a browser stays until it has its answer
            return parts.pop(0)

        async def send(message: Any) -> None:
            sent.append(dict(message))

        await self.app(scope, receive, send)
        start = next(m for m in sent if m["type"] == "http.response.start")
        told = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in start["headers"]}
        return Answer(start["status"], told, b"".join(m.get("body", b"") for m in sent))


def ball(box: int = 32, radius: float = 9.0, pixel_size_A: float = 2.0) -> vg.Map:
    """A soft ball, its radius where the density is one half."""
    axis = np.arange(box) - box // 2
    distance = np.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2)
    return vg.Map(1.0 / (1.0 + np.exp(2.0 * (distance - radius))), pixel_size_A)


def refine_run(folder: Path, seed: int = 0, state: str = "finished") -> Path:
    """A run folder with what its page shows, made without a refinement."""
    folder.mkdir(parents=True)
    run = {"command": "refine", "state": state, "run_state": state, "started": "2026-01-02T03:04:05+00:00"}
    run |= {"settings": {"symmetry": "D2", "seed": seed, "diameter_A": 115.50000000000001}, "n_particles": 1200}
    run |= {"verdict": {"state": "warn", "reasons": ["few <particles>"], "findings": []}, "seconds": 12.5}
    vg.io.write_json(folder / "run.json", run)
    frequency = np.linspace(0, 0.25, 17)
    curve = 1 / (1 + np.exp(60 * (frequency - 0.12 - 0.01 * seed)))
    columns = {"frequency_per_A": frequency, "unmasked": curve, "corrected": curve**0.9, "n_masked": np.ones(17)}
    pd.DataFrame(columns).to_csv(folder / "fsc.csv", index=False)
    rows = {
        "iteration": [1, 2, 3],
        "phase": ["grid"] * 3,
        "resolution_A": [20.0, 12.0, 8.3],
        "seconds": [1.0, 2.0, 3.0],
    }
    pd.DataFrame(rows).to_csv(folder / "iterations.csv", index=False)
    vg.io.write_map(folder / "map.mrc", ball())
    return folder


def class_folder(folder: Path) -> Path:
    """What class2d leaves, of 90 particles in three classes and one of noise."""
    with tenure(folder, "class2d") as hold:
        hold.write(state="running")
    rng = np.random.default_rng(0)
    vg.io.write_stack(folder / "averages.mrcs", rng.normal(size=(3, 24, 24)).astype(np.float32), 2.0)
    classes = {"rlnClassNumber": [1, 2, 3, 4], "rlnEstimatedResolution": [8.0, 12.0, 999.0, 999.0]}
    classes |= {"verglasParticles": [50, 30, 10, 0], "verglasSignal": [9.0, 7.0, 0.1, np.nan]}
    classes |= {"verglasOffset": [0.01, 0.02, 0.03, np.nan]}
    general = {"verglasSignalFound": 1, "verglasEmptyClass": 4}
    vg.io.write_star(folder / "classes.star", {"classification": general, "classes": pd.DataFrame(classes)})
    numbers = np.repeat([1, 2, 3], [50, 30, 10])
    images = rng.normal(size=(90, 24, 24)).astype(np.float32)
    vg.io.write_stack(folder / "images.mrcs", images, 2.0)
    optics = {"rlnOpticsGroup": [1], "rlnImagePixelSize": [2.0], "rlnImageSize": [24], "rlnVoltage": [300.0]}
    optics |= {"rlnSphericalAberration": [2.7], "rlnAmplitudeContrast": [0.1], "rlnImageDimensionality": [2]}
    particles = {"rlnImageName": [f"{k}@{folder}/images.mrcs" for k in range(1, 91)], "rlnClassNumber": numbers}
    particles |= {"rlnOpticsGroup": 1, "rlnDefocusU": 10000.0, "rlnDefocusV": 10000.0, "rlnDefocusAngle": 0.0}
    vg.io.write_star(folder / "particles.star", {"optics": pd.DataFrame(optics), "particles": pd.DataFrame(particles)})
    return folder


def pick_folder(folder: Path) -> Path:
    """What picking leaves, of two micrographs of 300 x 200 pixels."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(1)
    names = [str(folder / f"m {k}.mrc") for k in (1, 2)]
    for name in names:
        vg.io.write_micrograph(name, vg.Micrograph(rng.normal(size=(200, 300)).astype(np.float32), 1.5))
    xy = np.array([[30.0, 40.0], [100.0, 150.0], [250.0, 20.0]])
    merit = {"rlnAutopickFigureOfMerit": np.array([0.9, 0.5, 0.2])}
    vg.io.write_picks(folder / "picks.star", {name: vg.Picks(xy, name, merit) for name in names})
    table = {"micrograph": names, "picks": [3, 3], "separation": [4.0, 1.0], "bad_fraction": [0.0, 0.5]}
    pd.DataFrame(table).to_csv(folder / "picks.csv", index=False)
    vg.io.write_json(folder / "verdict.json", {"state": "go on", "reasons": [], "numbers": {}})
    return folder


def key_of(client, name):
    """The key of the job whose folder has this name."""
    return next(key for key, job in client.window.folders.jobs().items() if job.name == name)
