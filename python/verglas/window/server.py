"""The application: addresses, what stands at each, and how it is started."""

from __future__ import annotations

import functools
import json
import mimetypes
import secrets
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from verglas._version import __version__
from verglas.errors import InputError, VerglasError
from verglas.report.chart import chart_html
from verglas.report.html import template_text, templates_of
from verglas.report.refine import duration
from verglas.window import cleaning, control, decisions, graph
from verglas.window.changes import Changes
from verglas.window.commands import asked_words
from verglas.window.curves import charts_of, compared_charts
from verglas.window.directions import angles_chart, angles_stamp
from verglas.window.files import file_of, files_of, tail_of
from verglas.window.folders import Folders, folder_bytes
from verglas.window.guard import Guard, Guarded, is_loopback
from verglas.window.job import Job
from verglas.window.latest import last_picked, montage_stamp
from verglas.window.particles import ParticleTables
from verglas.window.picked import PickedMicrographs
from verglas.window.said import differences, flat, number_text, numbers_text, size_text, time_text
from verglas.window.shared_work import SharedWork
from verglas.window.versions import seen_mark
from verglas.window.volumes import Volumes
from verglas.window.watch import Watch

# Pages that jobs have written hold their own script and style. They are shown without any right to this server.
_STRANGE_PAGE = (
    "sandbox allow-scripts allow-downloads; default-src 'none'; script-src 'unsafe-inline'; "
    "style-src 'unsafe-inline'; img-src data:; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
_SHARED = {"chart.js": "text/javascript", "viewer.js": "text/javascript", "sort.js": "text/javascript"}
_OWN = {"window.css": "text/css"} | dict.fromkeys(
    ("window.js", "decide.js", "curation.js", "particles.js", "picks.js"), "text/javascript"
)
_MOST_GRAPH = 400
_OWN_PAGES = ("report.html", "classes.html")  # that jobs write of themselves


@functools.cache
def _templates() -> Environment:
    environment = templates_of("verglas.window")
    environment.filters |= {
        "size_text": size_text,
        "time_text": time_text,
        "number_text": number_text,
        "numbers_text": numbers_text,
        "asked": asked_words,
        "duration": lambda seconds: "" if seconds is None else duration(seconds),
        "chart": chart_html,
    }
    environment.globals |= {"version": __version__}
    return environment


@dataclass
class Window:
    """What the pages show, and the few things kept in memory: everything in it can be read again from the files.

    Attributes
    ----------
    folders : Folders
    allow_changes : bool
        Decisions may be written, jobs stopped and begun again.
    """

    folders: Folders
    allow_changes: bool = False
    _sizes: dict[Path, tuple[float, int]] = field(default_factory=dict)
    _sizes_lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.watch = Watch(self.folders)
        self.volumes = Volumes(self.folders.roots)
        self.particle_tables, self.picked = ParticleTables(), PickedMicrographs()
        self._work: SharedWork[Response] = SharedWork()

    def share(self, answer: Callable[[Request], Response]) -> Callable[[Request], Response]:
        """An answer that readers who ask at the same time get from one making: nothing in it is one reader's own."""

        def endpoint(request: Request) -> Response:
            address = f"{request.url.path}?{request.url.query}"
            made = self._work(address, lambda: answer(request))
            own = Response(made.body, made.status_code)
            own.raw_headers = list(made.raw_headers)  # each reader's answer takes headers of its own
            return own

        return endpoint

    def page(self, template: str, /, **values: Any) -> HTMLResponse:
        """A page made of its template."""
        text = _templates().get_template(template).render(allow_changes=self.allow_changes, **values)
        # Names of files need not be UTF-8, and a page of marks is better than none.
        return HTMLResponse(text.encode("utf-8", "replace"))

    def job(self, request: Request) -> Job:
        """The job that an address names."""
        job = self.folders.jobs().get(request.path_params["key"])
        if job is None:
            raise HTTPException(404, "no such job: it was removed, or the address is that of another server")
        return job

    def size(self, folder: Path) -> int:
        """Disk use, counted again after a minute."""
        with self._sizes_lock:
            when, size = self._sizes.get(folder, (-1e9, 0))
            if time.monotonic() - when > 60:
                size = folder_bytes(folder)
                self._sizes[folder] = time.monotonic(), size
        return size

    def _shown_path(self, folder: Path) -> str:
        """A folder from the one that is served, if it lies there."""
        inside = [folder.relative_to(root) for root in self.folders.roots if folder.is_relative_to(root)]
        return str(inside[0]) if inside and inside[0].parts else folder.name

    def maps(self, job: Job) -> str:
        """Names and addresses of a job's maps, as the viewer takes them; empty where there are none."""
        names = self.volumes.names(job)
        sources = [{"name": n, "url": f"/jobs/{job.key}/volumes/{n}", "kind": "map"} for n in names]
        models = self.volumes.models(job) if names else {}
        sources += [{"name": n, "url": f"/jobs/{job.key}/models/{quote(n)}", "kind": "model"} for n in models]
        return json.dumps(sources) if names else ""

    def labels(self, jobs: Mapping[str, Job]) -> dict[str, str]:
        """Names of jobs in lists: of those that share one, the folder as well."""
        shared = Counter(job.name for job in jobs.values())
        return {
            key: job.name if shared[job.name] == 1 or not job.changeable else self._shown_path(job.folder)
            for key, job in jobs.items()
        }

    # ---- pages

    def project(self, request: Request) -> Response:
        """All jobs: a drawing for each project, and a table."""
        jobs = list(self.folders.jobs().values())
        groups: dict[str, list[Job]] = {}
        for job in jobs:
            groups.setdefault(job.project, []).append(job)
        heads = {job.key: job for job in jobs}
        projects = {job.project for job in jobs}
        drawings = []
        for project, members in groups.items():
            members = [job for job in members if job.key not in projects]
            if members:
                head = heads.get(project)
                place = head.folder if head else members[0].folder.parent if not project else _root(members[0])
                title = self._shown_path(place)
                drawings.append((title, head, graph.draw(members[:_MOST_GRAPH]), len(members)))
        roots = [str(root) for root in self.folders.roots]
        columns = {
            "of": any(job.project in heads for job in jobs),
            "begun": any(job.started for job in jobs),
            "time": any(job.seconds for job in jobs),
        }
        labels = self.labels(heads)
        return self.page(
            "project.html",
            jobs=jobs,
            drawings=drawings,
            roots=roots,
            names=heads,
            box=graph,
            columns=columns,
            labels=labels,
        )

    def sizes(self, request: Request) -> Response:
        """Disk use of all jobs: on its own, since it takes longer than the page may."""
        jobs = self.folders.jobs()
        return JSONResponse({key: size_text(self.size(job.folder)) for key, job in jobs.items() if job.folder.is_dir()})

    def show_job(self, request: Request) -> Response:
        """One job."""
        job = self.job(request)
        jobs, note = self.folders.jobs(), decisions.note_of(job)
        control.reap()
        return self.page(
            "job.html",
            job=job,
            jobs=jobs,
            labels=self.labels(jobs),
            charts=charts_of(job),
            settings=flat(job.settings or decisions.settings_of_project(job)),
            volumes=self.maps(job),
            files=files_of(job),
            own_page=next((name for name in _OWN_PAGES if file_of(job, name) is not None), ""),
            log=tail_of(job),
            others=[one for one in jobs.values() if one.command == job.command and one.key != job.key],
            parts=sorted((one for one in jobs.values() if one.project == job.key), key=lambda one: one.started),
            has_classes=decisions.has_classes(job),
            has_micrographs=bool(decisions.micrograph_files(job)),
            has_particles=self.particle_tables.has(job),
            has_picks=self.picked.has(job),
            montage=montage_stamp(job),
            last_picked=last_picked(job, self.picked),
            note=note,
            note_seen=seen_mark(note),
            removable=cleaning.removable(job),
            angles=angles_stamp(job),
            can_stop=control.can_stop(job),
            resume=control.resume_text(job),
        )

    def compare(self, request: Request) -> Response:
        """Two jobs side by side."""
        jobs = self.folders.jobs()
        pair = [jobs.get(request.query_params.get(name, "")) for name in ("a", "b")]
        first, second = pair
        if first is None or second is None:
            raise HTTPException(404, "expected two jobs: /compare?a=KEY&b=KEY")
        return self.page(
            "compare.html",
            pair=pair,
            labels=[self.labels(jobs)[one.key] for one in (first, second)],
            rows=differences(first.settings, second.settings),
            numbers=[(n, first.numbers.get(n), second.numbers.get(n)) for n in {**first.numbers, **second.numbers}],
            charts=compared_charts(first, second),
            volumes=[self.maps(one) for one in (first, second)],
            angles=[angles_stamp(one) for one in (first, second)],
            classes=[_classes_address(one) for one in (first, second)],
        )

    def angles(self, request: Request) -> Response:
        """Viewing directions of a job's particles, of a large set a sample."""
        job = self.job(request)
        chart = angles_chart(job)
        if chart is None:
            raise HTTPException(404, "this job has no particles with angles")
        return Response(chart, media_type="application/json")

    # ---- what pages fetch

    async def events(self, request: Request) -> Response:
        """What changes, as it changes."""
        return StreamingResponse(self.watch.events(), media_type="text/event-stream")

    def volume(self, request: Request) -> Response:
        """A map for the viewer."""
        packed = self.volumes.map_bytes(self.job(request), request.path_params["name"])
        if packed is None:
            raise HTTPException(404, "no such map")
        return Response(packed, media_type="application/octet-stream")

    def model(self, request: Request) -> Response:
        """A model for the viewer."""
        packed = self.volumes.packed_model(self.job(request), request.path_params["name"])
        if packed is None:
            raise HTTPException(404, "no such model")
        return Response(packed, media_type="application/octet-stream")

    def file(self, request: Request) -> Response:
        """A file of a job, as it stands."""
        path = file_of(self.job(request), request.path_params["path"])
        if path is None:
            raise HTTPException(404, "no such file, or one that is not shown")
        kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        if path.suffix == ".html":
            return FileResponse(path, media_type=kind, headers={"content-security-policy": _STRANGE_PAGE})
        if kind in ("image/png", "image/jpeg", "application/pdf") or path.suffix in (
            ".json",
            ".csv",
            ".star",
            ".log",
            ".txt",
            ".out",
        ):
            shown = kind if kind.startswith(("image/", "application/pdf")) else "text/plain"
            return FileResponse(path, media_type=shown)
        return FileResponse(path, media_type="application/octet-stream", filename=path.name)

    def static(self, request: Request) -> Response:
        """Our own scripts and style."""
        name = request.path_params["name"]
        if name in _SHARED:
            return Response(template_text(name), media_type=_SHARED[name])
        if name not in _OWN:
            raise HTTPException(404, "no such file")
        text = files("verglas.window").joinpath("static", name).read_text(encoding="utf-8")
        if name == "window.css":
            text = files("verglas.report").joinpath("page.css").read_text(encoding="utf-8") + text
        return Response(text, media_type=_OWN[name])


def _classes_address(job: Job) -> str:
    """Of the picture of a job's classes, or of those it has come to; empty where there are none."""
    if decisions.has_classes(job):
        return f"/jobs/{job.key}/classes.png"
    stamp = montage_stamp(job)
    return f"/jobs/{job.key}/montage.png?at={stamp}" if stamp else ""


def _root(job: Job) -> Path:
    """The folder of a project of another package."""
    return job.folder.parents[1] if job.package == "RELION" else job.folder.parent


def _on_error(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 400
    text = str(error.detail) if isinstance(error, HTTPException) else str(error)
    text = text.encode("utf-8", "replace").decode()
    if text == "Not Found":  # of an address that is none of ours
        text = "There is no such page."
    if "text/html" in request.headers.get("accept", ""):
        page = _templates().get_template("problem.html").render(text=text, allow_changes=True)
        return HTMLResponse(page, status_code=status)
    return JSONResponse({"problem": text}, status_code=status)


def window_app(window: Window, guard: Guard) -> Guarded:
    """The application behind its guard.

    Parameters
    ----------
    window : Window
    guard : Guard
    """
    get: tuple[tuple[str, Callable[..., Any]], ...] = (
        ("/", window.share(window.project)),
        ("/sizes", window.sizes),
        ("/compare", window.share(window.compare)),
        ("/events", window.events),
        ("/static/{name}", window.static),
        ("/jobs/{key}", window.share(window.show_job)),
        ("/jobs/{key}/volumes/{name}", window.volume),
        ("/jobs/{key}/models/{name}", window.model),
        ("/jobs/{key}/angles.json", window.angles),
        ("/jobs/{key}/files/{path:path}", window.file),
    )
    changes = Changes(window)
    routes = [Route(path, endpoint, methods=["GET"]) for path, endpoint in get] + changes.routes()
    problems: Mapping[Any, Any] = {HTTPException: _on_error, VerglasError: _on_error, OSError: _on_error}
    application = Starlette(routes=routes, exception_handlers=problems)
    application.router.redirect_slashes = False  # an address is right or it is not
    return Guarded(application, guard)


@dataclass(frozen=True)
class ServeJob:
    """What ``verglas serve`` is asked for.

    Attributes
    ----------
    folders : sequence of Path
        Looked under for jobs.
    host, port : str, int
        Where to listen; port 0: a free one.
    password : str
        For those without the token; needed where others can reach the address.
    allow_changes : bool
        Decisions may be written, jobs stopped and begun again.
    """

    folders: tuple[Path, ...]
    host: str = "127.0.0.1"
    port: int = 0
    password: str = field(default="", repr=False)
    allow_changes: bool = False

    def __post_init__(self) -> None:
        for folder in self.folders:
            if not folder.is_dir():
                raise InputError(f"serve: {folder} is no folder; expected one with run folders or projects under it")
        if not is_loopback(self.host) and not self.password:
            raise InputError(
                f"serve: {self.host} can be reached from other machines; give --password (or listen at 127.0.0.1 and "
                "come through ssh -L)"
            )


def serve(job: ServeJob, said: Callable[[str], None]) -> None:
    """Serve until interrupted.

    Parameters
    ----------
    job : ServeJob
    said : callable
        Told the address, with the token, before the first request is answered.

    Raises
    ------
    InputError
        The address cannot be listened at.
    """
    import uvicorn

    family = socket.AF_INET6 if ":" in job.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((job.host, job.port))
        listening.listen(1024)  # before the address is printed: whoever reads it may come at once
    except OSError as error:
        listening.close()
        raise InputError(f"serve: cannot listen at {job.host}:{job.port}: {error.strerror}") from error
    port = listening.getsockname()[1]
    token = secrets.token_urlsafe(24)
    guard = Guard(token, job.host, job.password, f"verglas_{port}")
    window = Window(Folders([folder.resolve() for folder in job.folders]), job.allow_changes)
    shown = f"[{job.host}]" if family == socket.AF_INET6 else job.host
    said(f"http://{shown}:{port}/?token={token}")
    config = uvicorn.Config(
        window_app(window, guard),
        log_level="warning",
        access_log=False,  # addresses hold the token
        server_header=False,
        timeout_graceful_shutdown=1,
        ws="none",
    )
    uvicorn.Server(config).run(sockets=[listening])
