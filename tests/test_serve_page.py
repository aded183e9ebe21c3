"""The page of ``partita serve`` in Chromium, by mouse, keyboard and telephone."""

import base64
import io
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

pytest.importorskip("fastapi")
pytest.importorskip("playwright.sync_api")

from playwright import sync_api as playwright
from served_studio import Client, served, wait_for

from pipelines import Pipeline

pytestmark = pytest.mark.slow
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
COLLECT = """() => {
    window.heard = [];
    document.addEventListener("piece", ({detail}) => {
        window.heard.push(detail.map((channel) => channel.slice()));
    });
}"""
HEARD = """() => {
    const joined = [0, 1].map((c) => window.heard.flatMap((piece) => [...piece[c]]));
    const bytes = new Uint8Array(Float32Array.from(joined.flat()).buffer);
    let text = "";
    for (const byte of bytes) text += String.fromCharCode(byte);
    return btoa(text);
}"""


@pytest.fixture(scope="module")
def client(pipeline_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with served(pipeline_folder, tmp_path_factory.mktemp("page") / "takes") as client:
        client.studio.loop.cost.update({False: 0.0, True: 0.0})
        yield client


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    with playwright.sync_playwright() as started:
        options = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
        browser = started.chromium.launch(executable_path=CHROMIUM, args=options)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any, client: Client) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 1100, "height": 900})
    page = context.new_page()
    page.faults = []
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    page.on("console", lambda said: page.faults.append(said.text) if said.type == "error" else None)
    page.goto(f"http://{client.address}/")
    playwright.expect(page.locator("#model")).to_contain_text("tiny")
    yield page
    assert page.faults == []
    context.close()


def fill(page: Any, prompt: str, duration: str, seed: str) -> None:
    page.fill("#prompt", prompt)
    page.fill("#duration", duration)
    page.fill("#seed", seed)


def test_what_is_heard_is_what_the_pipeline_makes(page: Any, client: Client, pipeline_folder: Path):
    wanted = (
        Pipeline.from_pretrained(pipeline_folder)("a slow piano", 3, 5, ending="cut")
        .audio[0]
        .numpy()
    )
    page.evaluate(COLLECT)
    fill(page, "a slow piano", "3", "5")
    page.click("#play")
    playwright.expect(page.locator("#status")).to_contain_text("whole", timeout=60_000)
    heard = np.frombuffer(base64.b64decode(page.evaluate(HEARD)), np.float32).reshape(2, -1)
    assert np.array_equal(heard, wanted)
    playwright.expect(page.locator("#stop")).to_be_disabled(timeout=30_000)  # nothing sounds now
    page.click("#shelf li:first-child button")
    time = "document.querySelector('#transport audio')?.currentTime > 0.3"
    wait_for(lambda: page.evaluate(time))


def test_a_piece_is_steered_and_stopped(page: Any, client: Client):
    fill(page, "a slow piano", "20", "1")
    page.click("#play")
    playwright.expect(page.locator("#status")).to_contain_text("playing", timeout=60_000)
    page.fill("#prompt", "fast drums")
    page.keyboard.press("Control+Enter")
    playwright.expect(page.locator("#status")).to_contain_text("steered", timeout=60_000)
    page.click("#stop")
    playwright.expect(page.locator("#status")).to_contain_text("stopped", timeout=60_000)


def test_a_piece_is_steered_before_its_first_sound(page: Any, client: Client):
    hold = threading.Event()
    client.studio.loop.call(lambda: hold.wait(60))  # nothing is made meanwhile
    fill(page, "an early steer", "3", "4")
    page.click("#play")
    page.fill("#prompt", "fast drums")
    page.click("#steer")
    playwright.expect(page.locator("#status")).to_contain_text("steered", timeout=30_000)
    hold.set()
    playwright.expect(page.locator("#status")).to_contain_text("whole", timeout=60_000)
    job = client.json("GET", "/v1/jobs")[1]["data"][0]
    assert (job["fields"]["prompt"], job["fields"]["steers"][0][0]) == ("an early steer", 0)
    assert job["fields"]["steers"][0][1]["prompt"] == "fast drums"


def test_the_plan_is_a_strip_of_bars(page: Any, client: Client):
    page.click("summary:has-text('Plan')")
    plan = {"bpm": 120, "meter": "4/4", "key": "Bb major", "first_beat": 0.0}
    plan["chords"] = [{"bar": 1, "beat": 1, "chord": "Bb"}, {"bar": 2, "beat": 1, "chord": "Ebm"}]
    job = {"prompt": "a strip", "duration_s": 3, "seed": 1, "plan": plan}
    client.finished(client.json("POST", "/v1/jobs", job)[1]["id"])
    page.locator("#shelf li", has_text="a strip").locator("button").first.click()
    page.fill("#duration", "3")
    chords = page.get_by_label("Chord of bar")
    playwright.expect(chords).to_have_count(2)
    assert [chord.input_value() for chord in chords.all()] == ["Bb", "Ebm"]
    assert page.get_by_label("Key").input_value() == "Bb major"
    page.get_by_label("Meter").select_option("6/8")  # two beats a bar, not four
    playwright.expect(chords).to_have_count(3)
    chords.nth(1).select_option("F#dim")
    page.get_by_label("Section from bar 2").select_option("chorus")
    page.click("#enqueue")
    playwright.expect(page.locator("#status")).to_contain_text("queued")
    made = client.json("GET", "/v1/jobs")[1]["data"][0]["fields"]["plan"]
    assert made["meter"] == "6/8"
    assert {"bar": 2, "beat": 1, "chord": "F#dim"} in made["chords"]
    assert [section["name"] for section in made["sections"]] == ["intro", "chorus"]


def test_a_span_of_a_take_is_filled(page: Any, client: Client):
    job = {"prompt": "to be filled", "duration_s": 4, "seed": 1, "id": "to-be-filled"}
    client.finished(client.json("POST", "/v1/jobs", job)[1]["id"])
    page.locator("#shelf li", has_text="to be filled").locator("button").first.click()
    frame = page.locator("#picture").bounding_box()
    page.mouse.move(frame["x"] + 0.25 * frame["width"], frame["y"] + 20)
    page.mouse.down()
    page.mouse.move(frame["x"] + 0.5 * frame["width"], frame["y"] + 20)
    page.mouse.up()
    span = [float(page.get_by_label(name).input_value()) for name in ("From (s)", "To (s)")]
    assert np.allclose(span, [1, 2], atol=0.05)
    page.get_by_role("button", name="Fill the span").click()
    playwright.expect(page.locator("#status")).to_contain_text("queued")
    id = page.inner_text("#status").removeprefix("queued: ")
    client.finished(id)
    sounds = [client.send("GET", f"/v1/takes/{take}/play")[1] for take in ("to-be-filled", id)]
    before, after = (soundfile.read(io.BytesIO(sound), dtype="float32")[0] for sound in sounds)
    first, last = (round(at * 44_100) for at in span)
    changed = np.flatnonzero((before != after).any(1))
    assert first <= changed[0] < changed[-1] < last


def test_a_reload_does_not_end_the_piece(page: Any, client: Client):
    fill(page, "a long reload", "20", "2")
    page.click("#play")
    playwright.expect(page.locator("#status")).to_contain_text("playing", timeout=60_000)
    page.reload()
    playwright.expect(page.locator("#shelf")).to_contain_text("a long reload", timeout=120_000)
    assert page.input_value("#prompt") == "a long reload"


def test_a_batch_is_queued_in_one_tab_and_canceled_in_another(page, browser, client):
    hold = threading.Event()
    client.studio.loop.call(lambda: hold.wait(300))  # nothing is made meanwhile
    page.click("summary:has-text('Many at once')")
    rows = "".join(f'"piece, number {n}",20,{n}\n' for n in range(4))
    page.fill("#batch", "prompt,duration_s,seed\n" + rows)
    page.click("#enqueue-all")
    other = browser.new_page()
    other.goto(f"http://{client.address}/")
    cancel = other.locator("#queue button")
    playwright.expect(cancel).to_have_count(4, timeout=30_000)
    for left in (3, 2, 1, 0):
        cancel.first.click()
        playwright.expect(cancel).to_have_count(left, timeout=30_000)
    playwright.expect(page.locator("#queue button")).to_have_count(0, timeout=30_000)
    hold.set()
    other.close()


def test_two_takes_are_compared_at_equal_loudness(page: Any, client: Client):
    for seed in ("7", "8"):
        job = {"prompt": f"compare {seed}", "duration_s": 2, "seed": int(seed)}
        client.finished(client.json("POST", "/v1/jobs", job)[1]["id"])
    first, second = (page.locator("#shelf li", has_text=f"compare {seed}") for seed in "78")
    for take in (first, second):  # the list grows at its front: not while something is clicked
        playwright.expect(take).to_be_visible(timeout=60_000)
    first.get_by_label("is A").check()
    second.get_by_label("is B").check()
    page.click("#compare")
    page.get_by_role("button", name="B: compare-8").click()
    heard = page.get_by_role("button", name="B: compare-8")
    playwright.expect(heard).to_have_attribute("aria-pressed", "true")


def test_the_keyboard_is_enough(page: Any, client: Client):
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # the link to the prompt
    for _ in range(30):
        if page.evaluate("document.activeElement.id") == "prompt":
            break
        page.keyboard.press("Tab")
    page.keyboard.press("Control+A")
    page.keyboard.type("typed only")
    page.keyboard.press("Tab")
    page.keyboard.press("Control+A")
    page.keyboard.type("2")
    while page.evaluate("document.activeElement.id") != "enqueue":
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    playwright.expect(page.locator("#shelf")).to_contain_text("typed only", timeout=60_000)


def test_mistakes_are_said(page: Any):
    page.fill("#prompt", "abcdefghij " * 12)
    page.click("#play")
    playwright.expect(page.locator("#status")).to_contain_text("at most 64 tokens", timeout=30_000)


def test_text_stays_text(page: Any, client: Client):
    prompt = "<img src=x onerror=alert(1)>"
    job = {"prompt": prompt, "duration_s": 1, "seed": 1}
    client.finished(client.json("POST", "/v1/jobs", job)[1]["id"])
    playwright.expect(page.locator("#shelf")).to_contain_text(prompt, timeout=30_000)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_everything(browser: Any, client: Client, scheme: str):
    page = browser.new_page(viewport={"width": 360, "height": 740}, color_scheme=scheme)
    page.goto(f"http://{client.address}/")
    playwright.expect(page.locator("#play")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.close()


def test_everything_has_a_name_for_a_screen_reader(page: Any):
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("button, input, select, textarea, audio, canvas")]
            .filter((one) => !(one.labels?.length || one.textContent.trim()
                || one.getAttribute("aria-label") || one.controls)).map((one) => one.outerHTML)"""
    )
    assert nameless == []


def test_the_page_is_light():
    import pipelines.serving.application as application

    size = sum(path.stat().st_size for path in application.PAGE.rglob("*") if path.is_file())
    assert size < 300_000
