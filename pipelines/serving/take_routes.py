"""Routes for the shelf: list, describe, play, download and delete takes."""

import asyncio
from typing import Annotated, Any

import torch
from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import FileResponse, Response
from torch import Tensor

from codec.audio_file import read_audio
from pipelines.inference.token_file import describe_codes
from pipelines.serving.chunk_encoder import CONTENT_TYPES
from pipelines.serving.edited_take import encode_windows
from pipelines.serving.music_request import Format
from pipelines.serving.music_routes import OurStudio
from pipelines.serving.shelf import ID, audio_bytes, new_id
from pipelines.serving.studio import Studio
from pipelines.serving.upload_decoder import decode_upload

router = APIRouter(tags=["takes"])
LONGEST_UPLOAD_S = 300.0
TakeId = Annotated[str, Path(pattern=f"^{ID.pattern}$")]


@router.get("/v1/takes")
def list_takes(
    studio: OurStudio, limit: Annotated[int, Query(ge=0, le=10_000)] = 200
) -> dict[str, Any]:
    """List the takes, newest first."""
    return {"data": studio.shelf.list(limit)}


@router.post("/v1/takes", status_code=201)
async def upload(
    request: Request,
    studio: OurStudio,
    name: Annotated[str, Query(min_length=1, max_length=100)] = "upload",
) -> dict[str, Any]:
    """Put an audio file, which is the body, on the shelf, so that it can be edited."""
    studio.shelf.check_disk()
    pipeline, id = studio.pipeline, new_id(name)
    sent, decoded = (studio.shelf.path / f".{id}.partial.{end}" for end in ("sent", "wav"))
    try:
        with sent.open("wb") as file:
            async for data in request.stream():
                await asyncio.to_thread(file.write, data)
        longest_s = min(LONGEST_UPLOAD_S, studio.check.longest_s)
        wanted = pipeline.sample_rate, pipeline.channels, longest_s
        plan = await asyncio.to_thread(decode_upload, sent, decoded, *wanted)
        audio = (await asyncio.to_thread(read_audio, decoded)).audio
        facts = {"prompt": name, "settings": {"plan": plan}, "sample_rate": pipeline.sample_rate}
        codes = await encode(studio, audio)
        tokens = describe_codes(codes, pipeline.codec, audio.shape[-1], **facts)
        await asyncio.to_thread(studio.shelf.put, id, decoded, tokens)
    finally:
        sent.unlink(missing_ok=True)
        decoded.unlink(missing_ok=True)
    return studio.shelf.facts(id)


async def encode(studio: Studio, audio: Tensor) -> Tensor:
    """Encode (C, S) audio to (K, T) codes; streams go on between two windows."""
    codes, windows = [], encode_windows(studio.pipeline, audio[None])
    while (
        part := await asyncio.wrap_future(studio.loop.call(lambda: next(windows, None)))
    ) is not None:
        codes.append(part[0].cpu())
    return torch.cat(codes, dim=-1)


@router.get("/v1/takes/{id}")
def get_take(id: TakeId, studio: OurStudio) -> dict[str, Any]:
    """Say what a take was made from, and how loud it is."""
    return studio.shelf.describe(id)


@router.delete("/v1/takes/{id}", status_code=204)
def delete_take(id: TakeId, studio: OurStudio) -> None:
    """Remove a take's sound and tokens from the folder."""
    studio.shelf.delete(id)


@router.get("/v1/takes/{id}/play", response_class=FileResponse)
def play_take(id: TakeId, studio: OurStudio) -> FileResponse:
    """Send the sound as it lies on the shelf, or the range of it that is asked for."""
    return FileResponse(studio.shelf.file(id, "wav"), media_type="audio/wav")


@router.get("/v1/takes/{id}/tokens", response_class=FileResponse)
def take_tokens(id: TakeId, studio: OurStudio) -> FileResponse:
    """Send the tokens, which ``partita decode`` makes the same sound from."""
    path = studio.shelf.file(id, "safetensors")
    return FileResponse(path, media_type="application/octet-stream", filename=path.name)


@router.get("/v1/takes/{id}/mid", response_class=Response)
def take_midi(id: TakeId, studio: OurStudio) -> Response:
    """Send a take's plan as MIDI: chords, tune, tempo and sections."""
    name = {"content-disposition": f'attachment; filename="{id}.mid"'}
    return Response(studio.shelf.lead_sheet(id), media_type="audio/midi", headers=name)


@router.get("/v1/takes/{id}/audio", response_class=Response)
def take_audio(id: TakeId, studio: OurStudio, format: Format = "wav") -> Response:
    """Send the file that ``partita generate`` would have written."""
    pipeline = studio.pipeline
    kind = CONTENT_TYPES[format].format(rate=pipeline.sample_rate, channels=pipeline.channels)
    name = {"content-disposition": f'attachment; filename="{id}.{format}"'}
    clip = read_audio(studio.shelf.file(id, "wav"))
    data = audio_bytes(clip.audio, clip.sample_rate, format)
    return Response(data, media_type=kind, headers=name)
