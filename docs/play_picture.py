"""Photographs the page of `vitriad play` for the guides, on a light and on a dark ground: `play_picture.py [FOLDER]`.

It needs what the tests of the page need: Chromium and playwright. The times in the picture are those of this machine.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS.parent / "tests"))

from chromium import browser  # noqa: E402

WIDTH, HEIGHT = 1120, 900
DIGIT = 19  # the scan that the model is least sure of


def main(folder: Path) -> None:
    """Both pictures: the classifier, unsure of a digit, and what one head of its second layer looks at."""
    command = [sys.executable, "-m", "vitriad", "play", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server, browser() as chromium:
        address = server.stdout.readline().strip()
        for theme in ("light", "dark"):
            page = chromium.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme=theme)
            page.goto(address)
            page.locator(".examples button").nth(DIGIT).click()
            page.get_by_text("a scan of 9, as").wait_for()
            page.locator("#views").get_by_text("Heads").click()
            page.locator("#layer").fill("1")
            page.locator("#head").fill("2")
            page.locator("h1").click()  # no frame of the focus
            page.screenshot(path=folder / f"play-{theme}.png", full_page=True)
        server.terminate()


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else DOCS / "pictures")
