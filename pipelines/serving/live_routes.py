"""``WS /v1/live``: hear a piece while it is made, and steer it.

The client sends ``{"type": "start", "prompt": ...}`` and then, at any time, ``steer``, ``played``
or ``stop``, and hangs up after the server's ``end``; the server sends JSON about the piece and
binary messages of interleaved samples.
"""

import asyncio
import contextlib
import json
import logging
import time
from typing import Any

from fastapi import APIRouter, WebSocket, WebSocketDisconnect

from pipelines.inference.music_generator import MusicGenerator
from pipelines.inference.plan_schema import plan_json
from pipelines.serving.error_replies import first_fault
from pipelines.serving.live_piece import LivePiece
from pipelines.serving.music_request import LiveMessage, LivePlayed, LiveStart, LiveSteer
from pipelines.serving.refusals import BusyError, StorageError
from pipelines.serving.service_metrics import ServiceMetrics
from pipelines.serving.shelf import pcm_bytes
from pipelines.serving.studio import Studio

LOG = logging.getLogger("partita.serve")
router = APIRouter()
START_S = 30.0  # for the first message to come
HANG_UP_S = 60.0  # for the client to hang up after ``end``


@router.websocket("/v1/live")
async def live(socket: WebSocket) -> None:
    """Play one piece to one client."""
    studio: Studio = socket.app.state.studio
    await socket.accept()
    try:
        start = LiveStart.model_validate_json(
            await asyncio.wait_for(socket.receive_text(), START_S)
        )
        await asyncio.to_thread(studio.check.piece, start)
        id, piece = await asyncio.to_thread(studio.open_live, start)
    except (ValueError, KeyError) as error:
        return await refuse(socket, *first_fault(error))
    except BusyError as error:
        socket.app.state.metrics.refused.inc()
        return await refuse(socket, str(error), retry_after_s=error.retry_after_s)
    except StorageError as error:
        return await refuse(socket, str(error))
    except (TimeoutError, WebSocketDisconnect):
        with contextlib.suppress(RuntimeError):
            await socket.close(1008)
        return
    metrics: ServiceMetrics = socket.app.state.metrics
    tasks = [
        asyncio.create_task(send_audio(socket, id, piece, start.encoding, metrics)),
        asyncio.create_task(obey(socket, studio, id, piece)),
    ]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if tasks[0] in done and tasks[0].exception() is None:
            await asyncio.wait(tasks, timeout=HANG_UP_S)  # a slow client has not read it all yet
        for fault in filter(None, (task.exception() for task in done)):
            if not isinstance(fault, TimeoutError | WebSocketDisconnect):
                LOG.error("fault", exc_info=fault)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if id:
            piece.detach()
        else:
            piece.cancel()
        with contextlib.suppress(Exception):  # it may be closed already
            await socket.close()


async def send_audio(
    socket: WebSocket, id: str, piece: LivePiece, encoding: str, metrics: ServiceMetrics
) -> None:
    """Send every piece of audio, and what is known about the whole."""
    begun = time.monotonic()
    pipeline = socket.app.state.studio.pipeline
    try:
        async for samples in piece:
            if piece.taken_s == samples.shape[-1] / pipeline.sample_rate:
                metrics.first_sound.observe(time.monotonic() - begun)
                await socket.send_text(json.dumps(describe(id, piece, pipeline)))
            await socket.send_bytes(pcm_bytes(samples, encoding))
        error = None if piece.error is None else str(piece.error)
        await socket.send_text(json.dumps({"type": "end", "id": id, "error": error}))
    finally:
        metrics.streamed.inc(piece.taken_s)
        metrics.late.inc(piece.late_s)


async def obey(socket: WebSocket, studio: Studio, id: str, piece: LivePiece) -> None:
    """Do what the client says until it leaves; a mistake is answered and changes nothing."""
    with contextlib.suppress(WebSocketDisconnect, RuntimeError):
        while True:
            try:
                message = LiveMessage.validate_json(await socket.receive_text())
                if isinstance(message, LivePlayed):
                    piece.played(message.seconds)
                elif isinstance(message, LiveSteer):
                    frame = await asyncio.to_thread(studio.steer, id, piece, message)
                    plan = None if piece.stream is None else piece.stream.plan
                    at_s = frame / studio.pipeline.codec.frame_rate
                    shown = None if plan is None else plan_json(plan)
                    await socket.send_text(
                        json.dumps({"type": "steered", "at_s": at_s, "plan": shown})
                    )
                else:
                    piece.stop()
            except (ValueError, KeyError) as error:
                message_, field = first_fault(error)
                said = {"type": "error", "message": message_, "param": field}
                await socket.send_text(json.dumps(said))


def describe(id: str, piece: LivePiece, pipeline: MusicGenerator) -> dict[str, Any]:
    """Say what is being played."""
    assert piece.stream is not None
    plan, made = piece.stream.plan, piece.stream.piece
    return {
        "type": "started",
        "id": id,
        "seed": made.seed,
        "sample_rate": pipeline.sample_rate,
        "channels": pipeline.channels,
        "duration_s": made.duration_s,
        "plan": None if plan is None else plan_json(plan),
    }


async def refuse(
    socket: WebSocket, message: str, field: str | None = None, retry_after_s: int | None = None
) -> None:
    """Say why, and hang up; the client may have left already."""
    said = {"type": "error", "message": message, "param": field, "retry_after_s": retry_after_s}
    with contextlib.suppress(WebSocketDisconnect, RuntimeError):
        await socket.send_text(json.dumps(said))
        await socket.close(1013 if retry_after_s else 1008)
