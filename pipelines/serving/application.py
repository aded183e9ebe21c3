"""Builds the application: routes, guard, log, and the page."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles

from pipelines.serving import job_routes, live_routes, music_routes, take_routes
from pipelines.serving.error_replies import add_error_replies
from pipelines.serving.guard import Guard
from pipelines.serving.service_metrics import RequestLog, ServiceMetrics
from pipelines.serving.studio import Studio

PAGE = Path(__file__).parent / "page"


def build_application(studio: Studio, **guard: Any) -> FastAPI:
    """Build the server around a studio, which starts and stops with it, behind a ``Guard``."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        studio.start()
        yield
        await asyncio.to_thread(studio.stop)

    app = FastAPI(
        title="Partita",
        version="1",
        lifespan=lifespan,
        docs_url=None,  # their pages load scripts from elsewhere
        redoc_url=None,
    )
    app.state.studio = studio
    app.state.metrics = ServiceMetrics(studio)
    for routes in (music_routes, job_routes, take_routes, live_routes):
        app.include_router(routes.router)
    app.mount("/", StaticFiles(directory=PAGE, html=True), name="page")
    add_error_replies(app)
    app.add_middleware(Guard, **guard)
    app.add_middleware(RequestLog, metrics=app.state.metrics)
    return app
