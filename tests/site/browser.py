"""A page as a browser shows it: Chromium without a window, and a server that has it say what became of the page."""

import functools
import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.site.page import Page

PROBE = b"""<script>
addEventListener("load", async () => {
  if (window.MathJax) await MathJax.startup.promise;
  const pictures = [...document.images].map(image => [image.currentSrc, image.naturalWidth]);
  document.documentElement.dataset.pictures = JSON.stringify(pictures);
  const wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  document.documentElement.dataset.overflow = JSON.stringify(wide);
});
</script>"""
"""What the DOM alone does not tell: whether pictures have loaded, and whether the page is wider than the window."""

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--window-size=1300,1500"),
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost",  # nothing outside can be reached
    "--virtual-time-budget=20000",
)


class _Handler(SimpleHTTPRequestHandler):
    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        if path.suffix != ".html" or not path.is_file():
            super().do_GET()
            return
        body = path.read_bytes().replace(b"</body>", PROBE + b"</body>")
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        pass


@contextmanager
def served(site: Path) -> Iterator[str]:
    """The address of a server for the site."""
    server = ThreadingHTTPServer(("localhost", 0), functools.partial(_Handler, directory=str(site)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://localhost:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Shown:
    """A page after its scripts have run."""

    def __init__(self, address: str) -> None:
        browser = shutil.which("chromium")
        assert browser, "chromium is not installed"
        with TemporaryDirectory() as profile:
            command = [browser, *FLAGS, f"--user-data-dir={profile}", "--dump-dom", address]
            done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        self.page = Page(done.stdout)
        said = self.page.attributes
        self.pictures: dict[str, int] = dict(json.loads(said["data-pictures"]))
        self.overflow: int = json.loads(said["data-overflow"])
        self.formulas = self.page.tags.count("mjx-container")
        self.text = "".join(self.page.text)
