"""Pictures of the page for the documentation, taken by a browser from a real server: `python -m tests.e2e.tour`.

Writes docs/ui.png, and docs/ui.gif: a sample is clicked, then another label, then a picture of one's own is dropped.
"""

import tempfile
from pathlib import Path

from PIL import Image

from search.embedding import Embedder
from search.index import build
from tests.conftest import DIGITS, ROOT, export_to
from tests.e2e.browser import Browser
from tests.e2e.conftest import serving
from tests.e2e.page import HEAT_MAP, drop, opened, page_of

SIZE = 1200, 990
GIF_SIZE = 800, 660
COLOURS = 256
# Milliseconds that each picture of the GIF stays.
SHORT, LONG = 900, 2200


def take(browser: Browser, folder: Path) -> Image.Image:
    browser.screenshot(folder / "shot.png")
    return Image.open(folder / "shot.png").convert("RGB")


def tour(browser: Browser, url: str, folder: Path) -> tuple[Image.Image, list[tuple[Image.Image, int]]]:
    """The page with a whole answer, and the pictures of the GIF with their times."""
    frames = []
    opened(browser, url)
    browser.wait("document.querySelectorAll('#samples img').length === 10")
    frames.append((take(browser, folder), SHORT))
    browser.evaluate("document.querySelectorAll('#samples button')[7].click()")
    browser.wait("document.querySelectorAll('#nearest img').length === 7")
    still = take(browser, folder)
    frames.append((still, LONG))
    before = browser.evaluate(HEAT_MAP)
    browser.evaluate("document.querySelectorAll('#labels button')[1].click()")
    browser.wait(f"{HEAT_MAP} && {HEAT_MAP} !== {before!r}")
    frames.append((take(browser, folder), LONG))
    drop(browser, DIGITS / "samples" / "4-b.png")
    browser.wait(
        f"document.querySelector('#picture img').alt === '4-b.png' && !!{HEAT_MAP} && !!document.querySelector('#nearest img')"
    )
    frames.append((take(browser, folder), LONG))
    return still, frames


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        export_to(folder / "store", f"local-dir:{DIGITS}", "--task", "classify,embed")
        with serving(folder / "store", folder / "run", "digits.mar") as client:
            index = folder / "samples.index"
            build(Embedder(client, "digits"), DIGITS / "samples", index, print).save(index)
            with page_of(client.run_dir, "--index", str(index)) as url, Browser(*SIZE) as browser:
                still, frames = tour(browser, url, folder)
    still.quantize(COLOURS).save(ROOT / "docs" / "ui.png", optimize=True)
    small = [frame.resize(GIF_SIZE, Image.Resampling.LANCZOS).quantize(COLOURS) for frame, _ in frames]
    times = [time for _, time in frames]
    small[0].save(ROOT / "docs" / "ui.gif", save_all=True, append_images=small[1:], duration=times, loop=0, optimize=True)


if __name__ == "__main__":
    main()
