"""Answers orchestrators and load balancers without a token: readiness, liveness, and how much waits."""

from __future__ import annotations

import contextlib
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psutil
import requests

from serve.client import Client, waiting
from serve.errors import ServeError

SECONDS = 3  # for TorchServe to answer
LOOK_SECONDS = 0.5  # between two requests to TorchServe, however many probes come: anyone who reaches the port may send some


class _Listener(ThreadingHTTPServer):
    def handle_error(self, *_) -> None:
        """Ignores clients that do not wait for the answer."""


class Probes:
    """Answers `GET /ready`, `/live` and `/metrics` at an address until it is closed.

    Ready: every model of `names` has a worker that answers, and the server is not about to end. Alive: TorchServe's front end
    answers. Both return 200, or 503 with the reason. The metrics are TorchServe's and the gauge RequestsWaiting. Raises
    ServeError if the port is not available.
    """

    def __init__(self, host: str, port: int, names: list[str]):
        self.client: Client | None = None  # as soon as there is one to ask
        self.loaded = self.draining = False
        self._names, self._lock = names, threading.Lock()
        self._looked, self._seen = -LOOK_SECONDS, ""
        probes = self

        class Handler(BaseHTTPRequestHandler):
            timeout = SECONDS  # for a client that connects and sends nothing

            def do_GET(self) -> None:
                if self.path == "/metrics":
                    self._answer(*probes.metrics())
                elif self.path in ("/ready", "/live"):
                    reason = probes.why_not_ready() if self.path == "/ready" else probes.why_not_alive()
                    self._answer(503 if reason else 200, reason or self.path[1:])
                else:
                    self._answer(404, "/ready, /live and /metrics are here")

            def _answer(self, status: int, text: str) -> None:
                body = f"{text}\n".encode()
                self.send_response_only(status)
                self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_) -> None:
                """Logs nothing, since probes come every few seconds."""

        try:
            self._server = _Listener((host, port), Handler)
        except (OSError, OverflowError) as error:
            raise ServeError(f"the probes cannot have {host}:{port}: {error}. Another place: --probes HOST:PORT") from error
        self.address = f"http://{host}:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def why_not_ready(self) -> str:
        """Returns the reason why the server is not ready, or an empty string."""
        if self.draining:
            return "draining"
        if not self.loaded:
            return "loading"
        with self._lock:
            if time.monotonic() > self._looked + LOOK_SECONDS:
                self._seen = self._look()
                self._looked = time.monotonic()
            return self._seen

    def _look(self) -> str:
        # TorchServe's word for a worker, not a request to it: one that has much to do answers late. And describing a model
        # (`customized=true`) asks a worker without a limit of time: TorchServe would not end one that hangs any more.
        try:
            for name in self._names:
                model = self.client.model(name)
                states = [_state(worker) for worker in model["workers"]]
                if "READY" not in states:
                    return f"no worker of {name} answers: {', '.join(states) or 'there is none'}"
        except (requests.RequestException, ServeError) as error:
            return f"TorchServe does not answer: {error}"
        return ""

    def why_not_alive(self) -> str:
        """Returns the reason why the server is not alive, or an empty string."""
        if self.client is None:
            return "starting"
        try:
            self.client.request("GET", f"{self.client.inference}/ping", "inference")  # whatever the answer: workers come back
        except (requests.RequestException, ServeError) as error:
            return f"TorchServe does not answer: {error}"
        return ""

    def metrics(self) -> tuple[int, str]:
        """Returns a status, and the metrics in Prometheus' format or the reason why there are none."""
        if self.client is None:
            return 503, "starting"
        lines = [
            "# HELP RequestsWaiting Requests in the queue of a model",
            "# TYPE RequestsWaiting gauge",
        ]
        try:
            for model in self.client.all_versions():
                labels = f'ModelName="{model["modelName"]}",ModelVersion="{model["modelVersion"]}"'
                lines.append(f"RequestsWaiting{{{labels}}} {waiting(model)}")
            return 200, self.client.metrics_text() + "\n".join(lines)
        except (requests.RequestException, ServeError) as error:
            return 503, f"TorchServe does not answer: {error}"


def _state(worker: dict) -> str:
    """Returns the state that TorchServe reports, unless the system knows that the process does not run, because it is STOPPED,
    say.
    """
    if worker["status"] == "READY":
        with contextlib.suppress(psutil.AccessDenied):
            try:
                state = psutil.Process(worker["pid"]).status()
            except psutil.NoSuchProcess:
                return "GONE"
            if state in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE):
                return state.upper()
    return worker["status"]
