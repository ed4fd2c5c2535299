"""A client for TorchServe's REST interface: predictions with one token, management with another."""

from __future__ import annotations

import contextlib
import json
import re
import time
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path

import requests

from serve import settings
from serve.archive import identity
from serve.errors import ServeError

DIED = re.compile(rb"State change \w+ -> WORKER_(STOPPED|ERROR)")  # in TorchServe's log, after a worker's name
LABEL = re.compile(r'(\w+)="([^"]*)"')  # of a metric
POLL_SECONDS = 0.1
LONGEST_SECONDS = 3600  # that workers may take to load: TorchServe ends those that exceed their archive's startup timeout


class Client:
    """Talks to the TorchServe that runs in the folder `run_dir`, where it reads addresses and tokens."""

    def __init__(self, run_dir: Path, timeout: float = 300):
        self.run_dir = run_dir
        configured = settings.read(run_dir / "config.properties")
        self.inference, self.management, self.metrics = (
            configured[f"{api}_address"] for api in ("inference", "management", "metrics")
        )
        self.model_store = Path(configured["model_store"])
        self._log = run_dir / "logs" / "ts_log.log"
        self._timeout = timeout  # s, without a byte of an answer
        self._open = configured.get("disable_token_authorization") == "true"
        self._certificate = configured.get("certificate_file", True)  # the server's own is trusted

    def is_healthy(self) -> bool:
        """Whether both the inference and the management address answer, given the tokens in the key file."""
        try:
            ping = self.request("GET", f"{self.inference}/ping", "inference")
            return ping.ok and self.request("GET", f"{self.management}/models", "management").ok
        except (ServeError, requests.RequestException):
            return False

    def predict(self, name: str, image: bytes) -> requests.Response:
        """Posts the bytes of an image file. The response is 200 with label → probability, or an error with code, type and
        message.
        """
        return self.request("POST", f"{self.inference}/predictions/{name}", "inference", data=image)

    def register(self, archive: str) -> None:
        """Registers an archive of the model store by its file name, and waits for its workers.

        Raises ServeError if the file is no archive, which TorchServe would leave unpacked in part, or if a worker does not
        start. In that case the model is unregistered again.
        """
        path = "/".join(identity(self.model_store / archive))
        since = self._log_size()
        self._manage("POST", "models", url=archive, synchronous="false")
        try:
            self._wait_for_workers(path, None, since)
        except ServeError:
            with contextlib.suppress(ServeError):
                self.unregister(path)
            raise

    def unregister(self, name: str) -> None:
        """Unregisters a version, once none of its workers is loading. Its requests that wait or are being answered get no
        answer; serve.drain waits until there are none.
        """
        self._wait_while_loading(name)
        self._manage("DELETE", f"models/{name}")

    def set_default(self, name: str, version: str) -> None:
        """Makes this version the one for requests that name no version."""
        self._manage("PUT", f"models/{name}/{version}/set-default")

    def scale(self, name: str, workers: int) -> None:
        """Changes the number of worker processes and waits for them. Raises ServeError if one does not start."""
        self._wait_while_loading(name)
        since = self._log_size()
        self._manage("PUT", f"models/{name}", min_worker=workers, max_worker=workers, synchronous="false")
        self._wait_for_workers(name, workers, since)

    def _wait_for_workers(self, path: str, count: int | None, since: int) -> None:
        """Waits until the model has `count` workers (None: the least that its archive wants), and all are ready.

        TorchServe's own way of waiting (`synchronous=true`) makes the requests of other connections wait as long. TorchServe
        restarts a worker that died again and again, and reports it only in its log; only the log after the first `since` bytes
        is read.
        """
        end = time.monotonic() + LONGEST_SECONDS
        died = False
        while not died and time.monotonic() < end:
            model = self.model(path)
            workers = model["workers"]
            if len(workers) == (model["minWorkers"] if count is None else count):
                if all(worker["status"] == "READY" for worker in workers):
                    return
                names = [f"W-{worker['id']}-{model['modelName']}_{model['modelVersion']}".encode() for worker in workers]
                with self._log.open("rb") as log:
                    log.seek(since)
                    died = any(name in line and DIED.search(line) for line in log for name in names)
            time.sleep(POLL_SECONDS)
        raise ServeError(f"Failed to start workers for model {model['modelName']} version: {model['modelVersion']}")

    def _wait_while_loading(self, path: str) -> None:
        """Waits until each worker of the model has loaded or died, for as long as TorchServe lets one load.

        When TorchServe ends a worker that is loading, two of its threads change the same list. Now and then the one that
        answers fails on that, with a 500: the model's name stays without a version, /ping never answers again, and its other
        workers live on.
        """
        model = self.model(path)
        end = time.monotonic() + model["startupTimeout"]
        while any(_is_loading(worker) for worker in model["workers"]) and time.monotonic() < end:
            time.sleep(POLL_SECONDS)
            model = self.model(path)

    def _log_size(self) -> int:
        return self._log.stat().st_size

    def model(self, name: str) -> dict:
        """Returns TorchServe's own description of a model: settings, workers, queue."""
        return self._manage("GET", f"models/{name}")[0]

    def describe(self, name: str) -> dict:
        """Returns the same, with the handler's part as `customizedMetadata`. A worker answers it, after the requests that wait
        for it.
        """
        return self._manage("GET", f"models/{name}", customized="true")[0]

    def models(self) -> list[str]:
        return [model["modelName"] for model in self._manage("GET", "models")["models"]]

    def all_versions(self) -> list[dict]:
        """Returns TorchServe's own description of every version of every model."""
        return [version for name in self.models() for version in self._manage("GET", f"models/{name}/all")]

    def wait_until_loaded(self, name: str) -> None:
        """Waits for the workers of a model that TorchServe loads at its start. Raises ServeError if one does not start."""
        self._wait_for_workers(name, None, 0)

    def versions(self, name: str) -> list[str]:
        return [model["modelVersion"] for model in self._manage("GET", f"models/{name}/all")]

    def metric(self, name: str, **dimensions: str) -> list[float]:
        """Returns the values of a metric that have these dimensions, whatever their other ones are; for example one for each
        worker.
        """
        text = self.metrics_text()
        found = re.findall(rf"^{name}{{(.*)}} (\S+)$", text, re.MULTILINE)
        return [float(value) for labels, value in found if dimensions.items() <= dict(LABEL.findall(labels)).items()]

    def metrics_text(self) -> str:
        return self._send("GET", f"{self.metrics}/metrics", None).text

    def token(self, kind: str) -> str:
        """Returns the `inference` or `management` token, which it fetches anew from TorchServe if it has expired."""
        keys = self._keys()
        try:
            expires = datetime.fromisoformat(keys[kind]["expiration time"])
            if expires - datetime.now(UTC) < timedelta(minutes=1):
                url, api_key = f"{self.management}/token", keys["API"]["key"]
                self._send("GET", url, api_key, params={"type": kind})  # TorchServe writes the new token to the key file
                keys = self._keys()
            return keys[kind]["key"].encode("ascii").decode()
        except requests.RequestException:  # before ValueError, which some of these are
            raise
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ServeError(f"{self.run_dir / 'key_file.json'} has no {kind} token as TorchServe writes it") from error

    def request(self, method: str, url: str, token_kind: str, **options) -> requests.Response:
        return self._send(method, url, None if self._open else self.token(token_kind), **options)

    def _manage(self, method: str, path: str, **params) -> dict | list:
        response = self.request(method, f"{self.management}/{path}", "management", params=params)
        if not response.ok:
            raise ServeError(message(response))
        return response.json()

    def _send(self, method: str, url: str, token: str | None, headers: dict | None = None, **options) -> requests.Response:
        session = requests.Session()
        session.trust_env = False  # the user's proxy does not apply to loopback
        session.verify = self._certificate
        with session:
            headers = {**(headers or {}), **({"Authorization": f"Bearer {token}"} if token else {})}
            return session.request(method, url, headers=headers, timeout=self._timeout, **options)

    def _keys(self) -> dict:
        try:
            return json.loads((self.run_dir / "key_file.json").read_text())
        except (FileNotFoundError, ValueError) as error:  # TorchServe has not written it yet, or only a part of it
            raise ServeError("no server that was started here is running: make serve starts one") from error


def _is_loading(worker: dict) -> bool:
    """Whether a worker's process runs and has not loaded, from TorchServe's description; it has no id until it says one."""
    return worker["status"] != "READY" and (worker["pid"] < 0 or Path(f"/proc/{worker['pid']}").exists())


def waiting(model: dict) -> int:
    """Returns the number of requests in a version's queue, from its description. Requests that a worker has are not in it."""
    return model["jobQueueStatus"]["pendingRequests"]


def message(response: requests.Response) -> str:
    """Returns in one line why a request was refused: TorchServe's own words, if it has any."""
    try:
        said = response.json()["message"]
    except (ValueError, KeyError, TypeError):
        said = "more bytes than max_request_size in config.properties" if response.status_code == 413 else ""
    known = response.status_code in list(HTTPStatus)
    return " ".join(str(said or (HTTPStatus(response.status_code).phrase if known else "no reason was given")).split())
