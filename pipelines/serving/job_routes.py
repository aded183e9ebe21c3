"""Routes for jobs: submit, list, watch, cancel, fetch."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Query
from fastapi.responses import Response
from sse_starlette import EventSourceResponse

from pipelines.serving.job_store import Job
from pipelines.serving.music_request import EditRequest, Format, JobRequest
from pipelines.serving.music_routes import OurStudio
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


def find(id: str, studio: OurStudio) -> Job:
    """Find a job or raise 404."""
    job = studio.store.get(id)
    if job is None:
        raise HTTPException(404, "there is no such job")
    return job


FoundJob = Annotated[Job, Depends(find)]


@router.post("/v1/jobs", status_code=202)
def submit(body: JobRequest, studio: OurStudio) -> dict[str, Any]:
    """Queue a piece; its take goes on the shelf."""
    studio.check.piece(body)
    return show(studio, studio.add_job(body))


@router.post("/v1/edits", status_code=202)
def submit_edit(body: EditRequest, studio: OurStudio) -> dict[str, Any]:
    """Queue a continuation, a filled span, a variation or a loop of a take."""
    return show(studio, studio.add_edit(body))


@router.get("/v1/jobs")
def list_jobs(
    studio: OurStudio, limit: Annotated[int, Query(ge=0, le=1000)] = 50
) -> dict[str, Any]:
    """List what waits, in its order, and then what ended last."""
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
async def watch_all(studio: OurStudio) -> EventSourceResponse:
    """Send the list of jobs, as an event whenever it has changed."""

    def look() -> tuple[str, Any]:
        return "jobs", [show(studio, job) for job in studio.store.newest(20)]

    return EventSourceResponse(changes(look, lasts=True), send_timeout=30)


@router.get("/v1/jobs/{id}")
def get_job(job: FoundJob, studio: OurStudio) -> dict[str, Any]:
    """Say how a job stands."""
    return show(studio, job)


@router.get("/v1/jobs/{id}/events")
async def watch(job: FoundJob, studio: OurStudio) -> EventSourceResponse:
    """Send a job's state whenever it has changed, until it ends."""

    def look() -> tuple[str, Any]:
        now = find(job.id, studio)
        return now.state, show(studio, now)

    return EventSourceResponse(changes(look, lasts=False), send_timeout=30)


@router.delete("/v1/jobs/{id}")
def cancel(job: FoundJob, studio: OurStudio) -> dict[str, Any]:
    """End a job that waits or runs; one that has ended stays as it is."""
    ended = studio.cancel_job(job.id)
    assert ended is not None
    return show(studio, ended)


@router.get("/v1/jobs/{id}/result", response_class=Response)
def result(job: FoundJob, studio: OurStudio, format: Format = "wav") -> Response:
    """Fetch the finished file; 409 while there is none."""
    if job.state != "done":
        raise HTTPException(409, f"the job is {job.state}" + f": {job.error}" * bool(job.error))
    return take_audio(job.id, studio, format)
