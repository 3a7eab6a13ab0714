"""What a page may ask to be done; every one is refused unless the server was started with ``--allow-changes``."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from verglas.errors import InputError
from verglas.io import write_text
from verglas.window import cleaning, control, decisions, drafts, latest
from verglas.window.job import Job
from verglas.window.particles import KEPT_PARTICLES
from verglas.window.picked import LEFT_OUT
from verglas.window.versions import check_seen, seen_mark

if TYPE_CHECKING:
    from verglas.window.server import Window

_MOST_NOTE = 20_000


class Changes:
    """The pages of curation, and what they send.

    Parameters
    ----------
    window : Window
    """

    def __init__(self, window: Window) -> None:
        self.window, self.picked, self.tables = window, window.picked, window.particle_tables

    def routes(self) -> list[Route]:
        """Addresses; those that change something take POST."""
        get: tuple[tuple[str, Callable[..., Any]], ...] = (
            ("/jobs/{key}/classes", self.classes),
            ("/jobs/{key}/classes.png", self.class_pictures),
            ("/jobs/{key}/micrographs", self.micrographs),
            ("/jobs/{key}/micrographs.json", self.micrographs_json),
            ("/jobs/{key}/draft/{name}", self.draft),
            ("/jobs/{key}/particles", self.particles),
            ("/jobs/{key}/particles.json", self.particles_json),
            ("/jobs/{key}/particles/points.json", self.particle_points),
            ("/jobs/{key}/particles/chosen.json", self.particles_chosen),
            ("/jobs/{key}/picks/{number:int}", self.picks),
            ("/jobs/{key}/picks/{number:int}.json", self.picks_json),
            ("/jobs/{key}/picks/{number:int}.png", self.picks_picture),
            ("/jobs/{key}/picks/{number:int}/small.png", self.small_picture),
            ("/jobs/{key}/montage.png", self.montage),
        )
        post: tuple[tuple[str, Callable[[Job, Any, Request], dict[str, str]]], ...] = (
            ("/jobs/{key}/classes", self._save_classes),
            ("/jobs/{key}/micrographs", self._save_micrographs),
            ("/jobs/{key}/particles", self._save_particles),
            ("/jobs/{key}/picks/{number:int}", self._save_picks),
            ("/jobs/{key}/stop", lambda job, *_: {"said": control.stop(job)}),
            ("/jobs/{key}/resume", lambda job, *_: {"said": control.resume(job)}),
            ("/jobs/{key}/note", self._save_note),
            ("/jobs/{key}/draft/{name}", self._keep_draft),
            ("/jobs/{key}/clean", lambda job, record, _: {"said": cleaning.clean(job, record.get("names") or [])}),
        )
        routes = [Route(path, self.window.share(endpoint), methods=["GET"]) for path, endpoint in get]
        return routes + [Route(path, self._changing(how), methods=["POST"]) for path, how in post]

    def _changing(self, how: Callable[[Job, Any, Request], dict[str, str]]) -> Callable[..., Any]:
        async def endpoint(request: Request) -> Response:
            if not self.window.allow_changes:
                raise HTTPException(403, "this server is read-only; start it with --allow-changes")
            job = await run_in_threadpool(self.window.job, request)
            if not job.changeable:
                raise HTTPException(403, f"a project of {job.package} is looked at and never changed")
            try:
                record = json.loads(await request.body() or b"{}")
            except (ValueError, RecursionError) as error:
                raise HTTPException(400, "expected JSON") from error
            if not isinstance(record, dict):
                raise HTTPException(400, "expected a JSON object")
            return JSONResponse(await run_in_threadpool(how, job, record, request))

        return endpoint

    # ---- 2D classes

    def classes(self, request: Request) -> Response:
        """The page of 2D classes."""
        job = self.window.job(request)
        if not decisions.has_classes(job):
            raise HTTPException(404, "this job has no classes to choose from")
        shown = decisions.class_cards(job)
        cards = json.dumps([asdict(card) for card in shown]).replace("<", "\\u003c")
        flat, volumes = decisions.has_averages(job), self.window.maps(job)
        values: dict[str, Any] = {"cards": cards, "shown": shown, "cli": decisions.classes_command(job)}
        values |= {"flat": flat, "volumes": volumes, "seen": decisions.classes_seen(job)}
        return self.window.page("classes.html", job=job, **values)

    def class_pictures(self, request: Request) -> Response:
        """All averages in one picture."""
        job = self.window.job(request)
        if not decisions.has_classes(job):
            raise HTTPException(404, "this job has no classes")
        return Response(decisions.class_pictures(job), media_type="image/png")

    def _save_classes(self, job: Job, record: Any, request: Request) -> dict[str, str]:
        done = decisions.save_classes(job, record.get("classes") or [], record.get("seen"))
        return {"said": f"saved {decisions.SELECTION}", **done}

    # ---- micrographs

    def micrographs(self, request: Request) -> Response:
        """The page of micrographs."""
        job = self.window.job(request)
        if not decisions.micrograph_files(job):
            raise HTTPException(404, "this job has no table of micrographs")
        return self.window.page("micrographs.html", job=job, cli=decisions.micrographs_command(job))

    def micrographs_json(self, request: Request) -> Response:
        """Their numbers."""
        return JSONResponse(decisions.micrographs_json(self.window.job(request)))

    def _save_micrographs(self, job: Job, record: Any, request: Request) -> dict[str, str]:
        dropped = record.get("dropped")
        if not isinstance(dropped, list):
            raise InputError("micrographs: expected a list of rows")
        return {"said": f"saved {decisions.KEPT}", **decisions.save_micrographs(job, dropped, record.get("seen"))}

    # ---- particles

    def _with_particles(self, request: Request) -> Job:
        job = self.window.job(request)
        if not self.tables.has(job):
            raise HTTPException(404, "this job has no particles with values to choose by")
        return job

    def particles(self, request: Request) -> Response:
        """The page of particles."""
        job = self._with_particles(request)
        return self.window.page("particles.html", job=job, cli=self.tables.command(job))

    def particles_json(self, request: Request) -> Response:
        """Columns and histograms."""
        return JSONResponse(self.tables.as_json(self._with_particles(request)))

    def particle_points(self, request: Request) -> Response:
        """Points of two columns."""
        x, y = (request.query_params.get(name, "") for name in "xy")
        return JSONResponse(self.tables.points(self._with_particles(request), x, y))

    def particles_chosen(self, request: Request) -> Response:
        """What steps leave."""
        query = request.query_params
        try:
            steps, page = json.loads(query.get("steps", "[]")), int(query.get("page", "0"))
        except (ValueError, RecursionError) as error:
            raise HTTPException(400, "expected steps as JSON, and a page") from error
        job = self._with_particles(request)
        return JSONResponse(self.tables.choose(job, steps, query.get("sort", ""), query.get("way") == "down", page))

    def _save_particles(self, job: Job, record: Any, request: Request) -> dict[str, str]:
        job = self._with_particles(request)
        return {"said": f"saved {KEPT_PARTICLES}", **self.tables.save(job, record.get("steps"), record.get("seen"))}

    # ---- picks

    def picks(self, request: Request) -> Response:
        """The page of one micrograph's picks."""
        job, number = self._picked_micrograph(request)
        values = {"number": number, "count": len(self.picked.names(job)), "cli": self.picked.command(job)}
        values |= {"goes_on": self.picked.goes_on(job), "earlier": self.picked.earlier(job)}
        values |= {"again": self.picked.left_out_command(job)}
        return self.window.page("picks.html", job=job, name=self.picked.name(job, number), **values)

    def picks_json(self, request: Request) -> Response:
        """Places and merits."""
        return JSONResponse(self.picked.as_json(*self._picked_micrograph(request)))

    def picks_picture(self, request: Request) -> Response:
        """The micrograph."""
        return Response(self.picked.picture(*self._picked_micrograph(request))[0], media_type="image/png")

    def small_picture(self, request: Request) -> Response:
        """The micrograph, small, with rings about its picks."""
        job, number = self._picked_micrograph(request)
        return Response(latest.small_picture(job, self.picked, number), media_type="image/png")

    def montage(self, request: Request) -> Response:
        """Averages so far."""
        picture = latest.montage(self.window.job(request))
        if picture is None:
            raise HTTPException(404, "this job has no averages yet, or no longer")
        return Response(picture, media_type="image/png")

    def _picked_micrograph(self, request: Request) -> tuple[Job, int]:
        job, number = self.window.job(request), int(request.path_params["number"])
        if not self.picked.has(job) or number >= len(self.picked.names(job)):
            raise HTTPException(404, "this job has no picks of that micrograph")
        return job, number

    def _save_picks(self, job: Job, record: Any, request: Request) -> dict[str, str]:
        job, number = self._picked_micrograph(request)
        done, again = self.picked.save(job, number, record), self.picked.left_out_command(job)
        said = ["saved picks_edited.star", f"saved {LEFT_OUT}" if again else "", done.pop("set_aside")]
        return {"said": "; ".join(filter(None, said)), **done, "again": again}

    # ---- drafts and notes

    def draft(self, request: Request) -> Response:
        """What was changed and not saved."""
        return JSONResponse(drafts.draft_of(self.window.job(request), request.path_params["name"]))

    def _keep_draft(self, job: Job, record: Any, request: Request) -> dict[str, str]:
        return {"said": drafts.keep_draft(job, request.path_params["name"], record)}

    def _save_note(self, job: Job, record: Any, request: Request) -> dict[str, str]:
        text = record.get("note")
        if not isinstance(text, str) or len(text) > _MOST_NOTE:
            raise InputError(f"note: expected a text of at most {_MOST_NOTE} characters")
        text = text.encode("utf-8", "replace").decode()  # half a surrogate pair is valid JSON and no text
        check_seen("note", record.get("seen"), seen_mark(decisions.note_of(job)), seen_mark(text))
        write_text(job.folder / decisions.NOTE, text)
        return {"said": f"saved {decisions.NOTE}", "seen": seen_mark(decisions.note_of(job))}
