"""Photograph the console of a running server, for the README and the documents.

    python tools/screenshot.py http://127.0.0.1:8080/ --out docs/images

Writes ``console-light.png``, ``console-dark.png`` and ``console-phone.png``. For each it becomes a new person and
takes a few items of one genre, so that the picture shows what the page is for. Needs Chromium and ``playwright``.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

from playwright.sync_api import Browser, Page, sync_playwright
from playwright.sync_api import Error as PlaywrightError

_BROWSERS = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
_ARGUMENTS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
_LEARNED_MS = 60_000


class _View(NamedTuple):
    name: str
    width: int
    height: int
    scheme: str
    scale: int


_VIEWS = (
    _View("light", 1440, 1400, "light", 1),
    _View("dark", 1440, 1400, "dark", 1),
    _View("phone", 390, 844, "light", 2),
)


def _take_items(page: Page, genre: str | None, count: int) -> str:
    """Become someone new and take ``count`` items of one genre (the first item's if ``None``); says what was taken.

    Where the slate holds none of the genre, its first item is taken, and the answer says so.
    """
    page.get_by_role("button", name="Be someone new").click()
    page.locator("#slate li").first.wait_for()
    if genre is None:
        chips = page.locator("#slate li .chip:not(.fresh)")
        genre = chips.first.inner_text() if chips.count() else None
    of_genre_count = 0
    for _ in range(count):
        of_genre = page.locator("#slate li button").filter(has=page.locator(".chip", has_text=genre or ""))
        target = of_genre.first if of_genre.count() else page.locator("#slate li button").first
        of_genre_count += int(of_genre.count() > 0)
        target.focus()
        target.press("Enter")
        page.locator("#journey [data-step=learned].reached").wait_for(timeout=_LEARNED_MS)
    page.evaluate("document.activeElement.blur()")
    return f"{of_genre_count} of {count} items taken are {genre}"


def _photograph(browser: Browser, view: _View, given: argparse.Namespace) -> None:
    context = browser.new_context(
        viewport={"width": view.width, "height": view.height},
        color_scheme="dark" if view.scheme == "dark" else "light",
        device_scale_factor=view.scale,
    )
    page = context.new_page()
    page.goto(given.address)
    page.locator("#link[data-state=up]").wait_for()
    taken = _take_items(page, given.genre, given.clicks)
    page.evaluate("scrollTo(0, 0)")
    page.wait_for_timeout(1500)  # let the slate settle and the dots spread along the arrows
    path = given.out / f"console-{view.name}.png"
    page.screenshot(path=path)
    context.close()
    sys.stdout.write(f"{path}  ({view.width} x {view.height}, {taken})\n")


def main() -> int:
    """Parse the command line, take the pictures; 1 where there is no browser."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address", nargs="?", default="http://127.0.0.1:8080/", help="where the console is")
    parser.add_argument("--out", type=Path, default=Path("docs/images"), help="folder of the pictures")
    parser.add_argument("--genre", help="take items of this genre (default: that of the first item)")
    parser.add_argument("--clicks", type=int, default=4, help="how many items to take before the picture")
    given = parser.parse_args()
    path = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if path is None:
        sys.stderr.write(f"no browser: none of {', '.join(_BROWSERS)} is on the PATH\n")
        return 1
    given.out.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=_ARGUMENTS)
        try:
            for view in _VIEWS:
                _photograph(browser, view, given)
        except PlaywrightError as problem:
            sys.stderr.write(
                f"no picture: {problem.message.splitlines()[0]}\nThe loop must be running at {given.address}, and learn"
                " a click within a minute; the page's staleness tells whether the machine keeps up.\n"
            )
            return 1
        finally:
            browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
