"""Record the README's film of a page: python3 tests/explorer/record.py PAGE.html FILM.gif.

The mouse wanders over the map, draws a digit, and plays a path, as in test_interaction.py.
"""

import io
import math
import shutil
import sys
from pathlib import Path

from conftest import BROWSERS, FLAGS
from PIL import Image
from playwright.sync_api import Page, sync_playwright

WINDOW = {"width": 1240, "height": 700}
FILM_WIDTH = 860
MILLISECONDS = 90


def positions(page: Page, selector: str, shares: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Places in an element, given in shares of its sides, as places in the window."""
    box = page.locator(selector).bounding_box()
    return [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in shares]


def record(page: Page) -> list[Image.Image]:
    """The frames of the film, one after each small movement."""
    frames = []

    def shoot() -> None:
        page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        frames.append(Image.open(io.BytesIO(page.screenshot())).convert("RGB"))

    turns = [i / 34 * 2 * math.pi for i in range(34)]
    wander = [(0.5 + 0.26 * math.sin(t), 0.5 - 0.3 * math.cos(t) * math.cos(t / 2)) for t in turns]
    for place in positions(page, "#map", wander):
        page.mouse.move(*place)
        shoot()
    page.click("#clear")
    three = [
        (0.32, 0.26),
        (0.5, 0.17),
        (0.66, 0.26),
        (0.64, 0.4),
        (0.48, 0.47),
        (0.66, 0.56),
        (0.68, 0.72),
        (0.5, 0.83),
        (0.3, 0.75),
    ]
    stroke = positions(page, "#pad", three)
    page.mouse.move(*stroke[0])
    page.mouse.down()
    for (x0, y0), (x1, y1) in zip(stroke, stroke[1:], strict=False):
        for step in (0.5, 1.0):
            page.mouse.move(x0 + step * (x1 - x0), y0 + step * (y1 - y0))
            shoot()
    page.mouse.up()
    for _ in range(5):
        page.keyboard.press("e")
        shoot()
        shoot()
    page.click("#path")
    for place in positions(page, "#map", [(0.43, 0.25), (0.7, 0.62)]):
        page.mouse.click(*place)
        shoot()
    page.keyboard.press("Space")
    for step in range(17):
        page.evaluate("(position) => goAlongPath(position)", (1 - math.cos(step / 16 * math.pi)) / 2)
        shoot()
    return frames


def main(source: str, target: str) -> None:
    """Open the page, record it, and write the film with one palette for all frames."""
    path = next(filter(None, map(shutil.which, BROWSERS)))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        page = browser.new_page(viewport=WINDOW, color_scheme="light")
        page.goto(Path(source).resolve().as_uri())
        page.evaluate("explorer.ready")
        page.wait_for_timeout(3_000)  # the manifold
        frames = record(page)
        browser.close()
    height = round(FILM_WIDTH * WINDOW["height"] / WINDOW["width"])
    frames = [frame.resize((FILM_WIDTH, height), Image.Resampling.LANCZOS) for frame in frames]
    palette = frames[0].quantize(256, kmeans=4)
    frames = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    frames[0].save(target, save_all=True, append_images=frames[1:], duration=MILLISECONDS, loop=0, optimize=True)
    print(f"{target}: {len(frames)} frames, {Path(target).stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main(*sys.argv[1:])
