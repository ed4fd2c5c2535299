"""A Hugging Face hub on loopback: serves the folders of models by the hub's download protocol."""

import contextlib
import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0" * 40


@contextlib.contextmanager
def hub(repositories: dict[str, Path]):
    """The address of a hub that holds `repositories`: `organization/name` → a folder of files."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self._answer(send_body=False)

        def do_GET(self):
            self._answer(send_body=True)

        def _answer(self, send_body: bool):
            repository, _, file = self.path.strip("/").partition("/resolve/main/")
            path = repositories.get(repository, Path("/nowhere")) / file
            if not file or not path.is_file():
                self.send_response(404)
                # What tells the client that the file is missing, rather than the repository.
                self.send_header("X-Error-Code", "EntryNotFound" if repository in repositories else "RepoNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            data = path.read_bytes()
            self.send_response(200)
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if send_body:
                self.wfile.write(data)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
