"""Draw the pictures of docs/serving.md: ``python docs/serving/screenshots.py ADDRESS FOLDER``.

Needs a running ``partita serve``, Playwright, Pillow, and Chromium as ``chromium`` on the path.
"""

import io
import shutil
import sys
import time
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

PIECES = ("a slow sad piano piece in D minor, 70 bpm", "a lively waltz for flute and strings")
WINDOWS = {"studio-light": (1000, 1060), "studio-dark": (1000, 1060), "studio-phone": (360, 760)}


def queue(page: Page, prompt: str, seed: int) -> None:
    """Queue a piece and wait until it is on the shelf."""
    count = page.locator("#shelf li").count()
    page.fill("#prompt", prompt)
    page.fill("#duration", "24")
    page.fill("#seed", str(seed))
    page.click("#enqueue")
    while page.locator("#shelf li").count() == count:
        time.sleep(0.5)


def draw(page: Page, name: str) -> bytes:
    """Open a take, mark a span, play another one, and take the picture."""
    page.fill("#prompt", PIECES[0])
    page.fill("#duration", "24")
    if name != "studio-phone":
        page.click("summary:has-text('Plan')")
    page.click("#shelf li:last-child button")
    time.sleep(3)
    frame = page.locator("#picture").bounding_box()
    assert frame is not None
    page.mouse.move(frame["x"] + 0.4 * frame["width"], frame["y"] + 40)
    page.mouse.down()
    page.mouse.move(frame["x"] + 0.6 * frame["width"], frame["y"] + 50)
    page.mouse.up()
    page.evaluate("window.scrollTo(0, 0)")
    time.sleep(0.5)
    return page.screenshot()


def main(address: str, folder: Path) -> None:
    """Write a WebP file for every window."""
    with sync_playwright() as started:
        options = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
        browser = started.chromium.launch(executable_path=shutil.which("chromium"), args=options)
        for name, (width, height) in WINDOWS.items():
            scheme = "dark" if name == "studio-dark" else "light"
            page = browser.new_page(
                viewport={"width": width, "height": height}, color_scheme=scheme
            )
            page.goto(address)
            page.wait_for_selector("#play:not([disabled])")
            if name == "studio-light":
                for seed, prompt in enumerate(PIECES[::1]):
                    queue(page, prompt, seed + 3)
            picture = Image.open(io.BytesIO(draw(page, name)))
            picture.save(folder / f"{name}.webp", quality=80, method=6)
            page.close()
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
