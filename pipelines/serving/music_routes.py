"""Routes for music at once: ``/v1/audio/music``, OpenAI's ``/v1/audio/speech``, the models."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any

import torch
from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from pipelines.inference.plan_schema import plan_json
from pipelines.serving.chunk_encoder import CONTENT_TYPES, STREAMED, ChunkEncoder
from pipelines.serving.live_piece import LivePiece
from pipelines.serving.music_request import MusicRequest, PieceFields, SpeechRequest
from pipelines.serving.piece_work import Work
from pipelines.serving.service_metrics import ServiceMetrics
from pipelines.serving.shelf import audio_bytes
from pipelines.serving.studio import Studio

router = APIRouter(tags=["music"])


async def studio_of(request: Request) -> Studio:
    """Return the studio that the application was built with."""
    return request.app.state.studio


async def metrics_of(request: Request) -> ServiceMetrics:
    """Return the metrics that the application was built with."""
    return request.app.state.metrics


OurStudio = Annotated[Studio, Depends(studio_of)]
OurMetrics = Annotated[ServiceMetrics, Depends(metrics_of)]


@router.get("/v1/models")
def models(studio: OurStudio) -> dict[str, Any]:
    """List the one model that is loaded, and what it can do."""
    origin, pipeline = studio.origin, studio.pipeline
    edits = [name for name in ("extend", "inpaint", "vary", "loop") if hasattr(pipeline, name)]
    model = {
        "id": origin.name,
        "object": "model",
        "created": 0,
        "owned_by": "partita",
        "license": origin.license,
        "hash": origin.hash,
        "sample_rate": pipeline.sample_rate,
        "channels": pipeline.channels,
        "longest_s": studio.check.longest_s,
        "reads_plan": bool(pipeline.prior.config.reads_plan),
        "edits": edits,
        "plans": pipeline.planner is not None,
        "midi": True,
    }
    return {"object": "list", "data": [model]}


@router.post("/v1/audio/music", response_class=Response)
async def music(
    body: MusicRequest, request: Request, studio: OurStudio, metrics: OurMetrics
) -> Response:
    """Make a piece: the finished file, or with ``stream`` its bytes while it is written."""
    await asyncio.to_thread(studio.check.piece, body)
    if body.stream:
        return stream_piece(body, studio, metrics)
    return await whole_piece(body, request, studio)


@router.post("/v1/audio/speech", response_class=Response)
async def speech(
    body: SpeechRequest, request: Request, studio: OurStudio, metrics: OurMetrics
) -> Response:
    """Do what ``/v1/audio/music`` does, in the words of OpenAI's clients."""
    return await music(body.to_music(), request, studio, metrics)


def stream_piece(body: MusicRequest, studio: Studio, metrics: ServiceMetrics) -> Response:
    """Send a piece while it is made."""
    if body.format not in STREAMED:
        raise HTTPException(422, f"format must be one of {', '.join(STREAMED)} for a stream")
    if "ending" in body.model_fields_set and body.ending != "cut":
        raise HTTPException(422, "a stream has no ending: leave stream out, or ask for ending cut")
    pipeline = studio.pipeline
    num_samples = round(body.duration_s * pipeline.sample_rate)
    piece = studio.open_stream(body)
    encoder = ChunkEncoder(body.format, pipeline.sample_rate, pipeline.channels, num_samples)
    kind = CONTENT_TYPES[body.format].format(rate=pipeline.sample_rate, channels=pipeline.channels)
    chunks = encode_chunks(piece, encoder, metrics)
    return ClosingResponse(chunks, media_type=kind, headers={"cache-control": "no-store"})


class ClosingResponse(StreamingResponse):
    """Closes its iterator at once, also where the client does not read on."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it all."""
        chunks: Any = self.body_iterator
        async with contextlib.aclosing(chunks):
            await super().__call__(scope, receive, send)


async def encode_chunks(
    piece: LivePiece, encoder: ChunkEncoder, metrics: ServiceMetrics
) -> AsyncIterator[bytes]:
    """Yield the bytes of a live piece, and end it when nobody reads on."""
    start = time.monotonic()
    try:
        async for samples in piece:
            if piece.taken_s == samples.shape[-1] / encoder.sample_rate:
                metrics.first_sound.observe(time.monotonic() - start)
            data = await asyncio.to_thread(encoder.encode, samples)
            if data:
                yield data
        if piece.error is not None:
            raise ConnectionError("the piece failed") from piece.error  # not to look complete
        yield encoder.finish()
    finally:
        piece.cancel()
        metrics.streamed.inc(piece.taken_s)
        metrics.late.inc(piece.late_s)


async def whole_piece(body: MusicRequest, request: Request, studio: Studio) -> Response:
    """Make a whole piece; it is given up when the client leaves."""
    loop, done = asyncio.get_running_loop(), asyncio.Event()

    def end(work: Work) -> None:
        loop.call_soon_threadsafe(done.set)

    work, pieces = studio.submit(body, end)
    try:
        while not done.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(done.wait(), 0.5)
            if not done.is_set() and await request.is_disconnected():
                return Response(status_code=499)
    finally:
        work.canceled = True
    if work.error is not None:
        raise work.error
    pipeline, audio = studio.pipeline, torch.cat(pieces, dim=-1)
    data = await asyncio.to_thread(audio_bytes, audio, pipeline.sample_rate, body.format)
    kind = CONTENT_TYPES[body.format].format(rate=pipeline.sample_rate, channels=pipeline.channels)
    return Response(data, media_type=kind, headers={"x-partita-seed": str(work.fields.seed)})


@router.post("/v1/plans")
async def write_plan(body: PieceFields, studio: OurStudio) -> dict[str, Any]:
    """Let the planner write what the plan that is given leaves open."""
    await asyncio.to_thread(studio.check.piece, body)
    given = body.plan, body.plan_fields()
    call = studio.loop.call(
        lambda: studio.pipeline.plan(body.prompt, body.duration_s, body.seed, given[0], **given[1])
    )
    plan = await asyncio.wrap_future(call)
    return {"plan": plan_json(plan), "text": str(plan)}


@router.get("/healthz")
def health(studio: OurStudio) -> JSONResponse:
    """Say whether the server makes music: 200, or 503 while it warms up or has stopped."""
    alive = studio.loop.ready.is_set() and studio.loop.thread.is_alive()
    return JSONResponse({"status": "ok" if alive else "starting"}, 200 if alive else 503)


@router.get("/metrics", response_class=Response)
def metrics_text(metrics: OurMetrics) -> Response:
    """Send everything measured, in Prometheus' text format."""
    return Response(metrics.text(), media_type="text/plain; version=0.0.4")
