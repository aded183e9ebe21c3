"""A thousand malformed requests: none is a fault of the server, and nothing is written."""

import json
import string
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("fastapi")

from served_studio import Client

ROUTES = ("/v1/audio/music", "/v1/audio/speech", "/v1/jobs", "/v1/edits", "/v1/plans")
NAMES = (
    *("prompt", "input", "duration_s", "seed", "plan", "format", "stream", "id", "edit", "take"),
    *("chords", "bpm", "key", "meter", "sections", "spans_s", "voice", "top_p", "guidance"),
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)
BODIES = st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=8), VALUES, max_size=6).map(
    lambda fields: fields | {"unknown field": 1}  # so that none is right by chance
)
PLANS = st.dictionaries(
    st.sampled_from((*NAMES, "instruments", "drums", "melody", "first_beat", "version")), VALUES
)


def check(client: Client, path: str, body: bytes) -> None:
    status, content, _ = client.send("POST", path, body)
    assert 400 <= status < 500, (status, content)
    message = json.loads(content)["error"]["message"]
    assert "Traceback" not in message
    assert client.studio.store.count()["queued"] == 0


def examples(number: int) -> settings:
    """So many examples, on a server that a module shares."""
    shared = [HealthCheck.function_scoped_fixture]
    return settings(max_examples=number, deadline=None, database=None, suppress_health_check=shared)


@examples(30)
@given(path=st.sampled_from(ROUTES), body=BODIES)
def test_wrong_fields(client: Client, path: str, body: dict[str, Any]):
    check(client, path, json.dumps(body).encode())


@pytest.mark.slow
@examples(500)
@given(path=st.sampled_from(ROUTES), body=BODIES)
def test_many_wrong_fields(client: Client, path: str, body: dict[str, Any]):
    check(client, path, json.dumps(body).encode())


@pytest.mark.slow
@examples(300)
@given(path=st.sampled_from(ROUTES), body=st.binary(max_size=200))
def test_many_bodies_that_are_no_json(client: Client, path: str, body: bytes):
    check(client, path, body + b"\xff")


@pytest.mark.slow
@examples(200)
@given(plan=PLANS)
def test_many_plans(client: Client, plan: dict[str, Any]):
    """A plan may be right by chance: it is only never a fault."""
    asked = {"prompt": "a piano", "duration_s": 0.2, "seed": 1, "plan": plan}
    status, content, _ = client.send("POST", "/v1/plans", json.dumps(asked).encode())
    assert status in (200, 422), (status, content)


@pytest.mark.slow
@examples(100)
@given(id=st.text(string.printable, min_size=1, max_size=40))
def test_many_names_of_takes(client: Client, id: str):
    from urllib.parse import quote

    path = f"/v1/takes/{quote(id, safe='')}/play"
    assert client.send("GET", path)[0] in (404, 405, 422)
