"""Routes for jobs: submit, list, watch, cancel, fetch."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Query, Request
from fastapi.responses import Response
from sse_starlette import EventSourceResponse

from pipelines.serving.job_store import Job
from pipelines.serving.music_request import EditRequest, Format, JobRequest
from pipelines.serving.music_routes import studio_of
from pipelines.serving.studio import Studio
from pipelines.serving.take_routes import take_audio

router = APIRouter(tags=["jobs"])
WATCH_S = 0.25  # seconds between two looks at a job's progress


def show(studio: Studio, job: Job) -> dict[str, Any]:
    """Return a job as JSON."""
    progress = 1.0 if job.state == "done" else studio.progress(job.id)
    shown = {**vars(job), "progress": round(progress, 3), "left_s": None}
    if job.state in ("queued", "running"):
        left_s = job.fields["duration_s"] * studio.loop.job_cost() * (1 - progress)
        shown["left_s"] = round(left_s, 1)
    return shown


def find(studio: Studio, id: str) -> Job:
    """Find a job or raise 404."""
    job = studio.store.get(id)
    if job is None:
        raise HTTPException(404, "there is no such job")
    return job


@router.post("/v1/jobs", status_code=202)
def submit(body: JobRequest, request: Request) -> dict[str, Any]:
    """Queue a piece; its take goes on the shelf."""
    studio = studio_of(request)
    studio.check.piece(body)
    return show(studio, studio.add_job(body))


@router.post("/v1/edits", status_code=202)
def submit_edit(body: EditRequest, request: Request) -> dict[str, Any]:
    """Queue a continuation, a filled span, a variation or a loop of a take."""
    studio = studio_of(request)
    return show(studio, studio.add_edit(body))


@router.get("/v1/jobs")
def list_jobs(request: Request, limit: Annotated[int, Query(ge=0, le=1000)] = 50) -> dict[str, Any]:
    """List what waits, in its order, and then what ended last."""
    studio = studio_of(request)
    return {"data": [show(studio, job) for job in studio.store.newest(limit)]}


async def changes(
    look: Callable[[], tuple[str, Any]], lasts: bool
) -> AsyncIterator[dict[str, str]]:
    """Yield an event and its data whenever the data have changed, for ever or until an end."""
    last = None
    while True:
        event, now = await asyncio.to_thread(look)
        if now != last:
            yield {"event": event, "data": json.dumps(now)}
        if not lasts and now["finished"] is not None:
            return
        last = now
        await asyncio.sleep(WATCH_S)


@router.get("/v1/jobs/events")
async def watch_all(request: Request) -> EventSourceResponse:
    """Send the list of jobs, as an event whenever it has changed."""
    studio = studio_of(request)

    def look() -> tuple[str, Any]:
        return "jobs", [show(studio, job) for job in studio.store.newest(20)]

    return EventSourceResponse(changes(look, lasts=True), send_timeout=30)


@router.get("/v1/jobs/{id}")
def get_job(id: str, request: Request) -> dict[str, Any]:
    """Say how a job stands."""
    studio = studio_of(request)
    return show(studio, find(studio, id))


@router.get("/v1/jobs/{id}/events")
async def watch(id: str, request: Request) -> EventSourceResponse:
    """Send a job's state whenever it has changed, until it ends."""
    studio = studio_of(request)
    await asyncio.to_thread(find, studio, id)

    def look() -> tuple[str, Any]:
        job = find(studio, id)
        return job.state, show(studio, job)

    return EventSourceResponse(changes(look, lasts=False), send_timeout=30)


@router.delete("/v1/jobs/{id}")
def cancel(id: str, request: Request) -> dict[str, Any]:
    """End a job that waits or runs; one that has ended stays as it is."""
    studio = studio_of(request)
    find(studio, id)
    job = studio.cancel_job(id)
    assert job is not None
    return show(studio, job)


@router.get("/v1/jobs/{id}/result", response_class=Response)
def result(id: str, request: Request, format: Format = "wav") -> Response:
    """Fetch the finished file; 409 while there is none."""
    studio = studio_of(request)
    job = find(studio, id)
    if job.state != "done":
        raise HTTPException(409, f"the job is {job.state}" + f": {job.error}" * bool(job.error))
    return take_audio(id, request, format)
