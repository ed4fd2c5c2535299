"""`python -m ui`: the command behind `make ui`."""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import signal
import socket
import sys
import tempfile
from pathlib import Path

from command_line import Parser, exit_status
from predict.pictures import pictures
from search.index import PictureIndex
from serve.errors import ServeError
from ui.asking import Asking

ROOT = Path(__file__).resolve().parent.parent
HOST = "127.0.0.1"
SAMPLES = 10


def check_port(port: int) -> None:
    """Raises ServeError if the port is not available: Gradio's own message speaks of a range of ports."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError) as error:  # the latter for a number above 65535
            reason = getattr(error, "strerror", None) or error
            raise ServeError(f"port {port} cannot be used ({reason}): make ui UI_PORT=… takes another one") from error


def samples_of(folder: Path) -> list[Path]:
    """Returns up to SAMPLES pictures from a folder, evenly spaced by name. Raises UserError if it has none."""
    found = pictures([folder])
    return found[:: math.ceil(len(found) / SAMPLES)]


def serve(options: argparse.Namespace, folder: str) -> None:
    """Serves the page until the user interrupts it. `folder` is for uploads."""
    index = PictureIndex.load(options.index) if options.index else None
    check_port(options.port)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_TEMP_DIR"] = folder
    os.environ["NO_PROXY"] = HOST  # the user's proxy does not apply to loopback
    from ui.page import CSS, THEME, build  # Gradio takes seconds to import, and reads its settings then

    page = build(Asking(options.run_dir, index), samples_of(options.samples))
    page.launch(
        server_name=HOST,
        server_port=options.port,
        share=False,
        quiet=True,
        prevent_thread_lock=True,
        ssr_mode=False,
        run_history=False,
        footer_links=[],
        theme=THEME,
        css=CSS,
    )
    print(f"the page is at http://{HOST}:{options.port}; Ctrl+C ends it", flush=True)
    try:
        signal.pause()
    finally:
        page.close(verbose=False)  # nothing asks for, or writes, an upload once its folder is removed


def main(arguments: list[str] | None = None) -> int:
    parser = Parser(prog="python -m ui", description="Open a page for the server that make serve has started.")
    parser.add_argument("--port", type=int, default=7860, metavar="N", help="of the page (default: 7860)")
    parser.add_argument("--index", type=Path, metavar="FILE", help="of search: the nearest pictures are shown too")
    parser.add_argument(
        "--samples",
        type=Path,
        default=ROOT / "examples" / "digits" / "samples",
        metavar="FOLDER",
        help="of pictures to click (default: those of the example)",
    )
    parser.add_argument("--run-dir", type=Path, default=ROOT / ".torchserve", metavar="FOLDER", help="where the server runs")
    options = parser.parse_args(arguments)

    def run() -> None:
        # SIGTERM ends the command as an exception, and what was uploaded is removed.
        with contextlib.suppress(KeyboardInterrupt), tempfile.TemporaryDirectory(prefix="ui-") as folder:
            serve(options, folder)

    return exit_status("ui", run)


if __name__ == "__main__":
    sys.exit(main())
