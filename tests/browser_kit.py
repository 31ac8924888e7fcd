"""A real headless Chromium for tests of pages: what a page asks for, says, refuses and draws."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

# Before any script of the page: keep what its policy refuses, and the genome browser it makes.
WATCH = """
window.refused = [];
document.addEventListener("securitypolicyviolation",
    event => window.refused.push(event.violatedDirective + " " + event.blockedURI));
let held;
Object.defineProperty(window, "igv", {
    get: () => held,
    set: value => {
        const make = value.createBrowser;
        value.createBrowser = async (...all) => (window.genomeBrowser = await make(...all));
        held = value;
    },
});
"""
# Pixels of the genome browser, which draws on canvases, by colour; white and clear ones left out.
PIXELS = """() => {
    const found = {};
    const look = root => {
        for (const canvas of root.querySelectorAll("canvas")) {
            if (!canvas.width || !canvas.height) continue;
            const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
            for (let i = 0; i < data.length; i += 4) {
                if (data[i + 3] < 200) continue;
                const key = `${data[i]},${data[i + 1]},${data[i + 2]}`;
                if (key !== "255,255,255") found[key] = (found[key] || 0) + 1;
            }
        }
        for (const node of root.querySelectorAll("*")) if (node.shadowRoot) look(node.shadowRoot);
    };
    look(document);
    return found;
}"""


@dataclass
class Visit:
    """A page that is open, and what it did since."""

    page: Any
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def wait(self, condition: str, argument: object = None) -> None:
        self.page.wait_for_function(condition, arg=argument, timeout=20_000)

    def run(self, script: str, argument: object = None) -> Any:
        return self.page.evaluate(script, argument)

    def pixels(self) -> dict[tuple[int, ...], int]:
        """Count the pixels of the genome browser by colour."""
        found = self.run(PIXELS)
        return {tuple(map(int, key.split(","))): n for key, n in found.items()}

    def check_quiet(self) -> None:
        """Fail where the page asked for anything, tried to, or wrote an error."""
        outside = [x for x in self.requests[1:] if not x.startswith(("data:", "blob:"))]
        assert self.requests[0].startswith("file://")
        assert outside == []
        assert self.run("() => window.refused") == []
        assert self.complaints == []


@contextmanager
def chromium() -> Iterator[Any]:
    """Start Chromium; skip where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    # Its sandbox does not start for root, as in most containers.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def visit(browser: Any, path: Path, size: tuple[int, int] = (1440, 1000)) -> Iterator[Visit]:
    """Open a report from a file, and wait until it has drawn its first variant."""
    page = browser.new_page(viewport={"width": size[0], "height": size[1]})
    try:
        found = Visit(page)
        page.add_init_script(WATCH)
        page.on("request", lambda request: found.requests.append(request.url))
        page.on("pageerror", lambda error: found.complaints.append(str(error)))
        page.on("console", lambda x: found.complaints.append(x.text) if x.type == "error" else None)
        page.goto(path.as_uri())
        found.wait("() => document.documentElement.dataset.report === 'ready'")
        yield found
    finally:
        page.close()
