"""Who is asked: a server behind an address, or the core in this process."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Protocol

import requests

from deploy.ray.forms import fields_of
from deploy.ray.reply import Reply
from deploy.ray.routes import no_model, no_version, read_address
from deploy.ray.tokens import REFUSED
from serve.archive import identity
from tests.conformance.asked import Case, Got
from vit_core.archive import Archive, unpack
from vit_core.cost import Bounds
from vit_core.errors import RequestError
from vit_core.predictor import Predictor
from vit_core.request import Sent

MAX_REQUEST_SIZE, MAX_RESPONSE_SIZE = 20_000_000, 4_000_000  # bytes, of config.properties


class Asks(Protocol):
    """Whoever answers cases. Several threads may ask at once."""

    name: str

    def __call__(self, case: Case) -> Got: ...


class Server:
    """A server behind `url`, the model `model` of it, and its token if it wants one."""

    def __init__(self, url: str, model: str, token: str | None):
        self.name, self._url, self._model, self._token = url, url.rstrip("/"), model, token
        self._local = threading.local()

    def __call__(self, case: Case) -> Got:
        """Raises requests.RequestException where the server does not answer."""
        headers = dict(case.headers)
        if case.token and self._token:
            headers["authorization"] = f"Bearer {self._token}"
        url = self._url + case.path.replace("MODEL", self._model)
        # In bytes: as text a header would be refused that is not Latin-1.
        sent = {name: value.encode("latin-1") for name, value in headers.items()}
        answer = self._session().request(case.method, url, headers=sent, data=case.body, timeout=120)
        return Got.of(answer.status_code, answer.headers.items(), answer.content)

    def _session(self) -> requests.Session:
        if not hasattr(self._local, "session"):
            self._local.session = requests.Session()
            self._local.session.trust_env = False
            self._local.session.headers.clear()  # those of the case, and no others
        return self._local.session


class InProcess:
    """The core with the archive in this process, and what a front says of addresses, sizes and tokens."""

    name = "the core"

    def __init__(self, archive: Path):
        self._model, self._version = identity(archive)
        # As many threads as a server's worker has: they change the last digits of large models.
        self._predictor = Predictor.load(archive, workers=_workers(archive))
        timeout = self._predictor.archive.serving.response_timeout
        self._bounds = Bounds.of_server(timeout, MAX_RESPONSE_SIZE, MAX_REQUEST_SIZE)
        self._lock = threading.Lock()

    def __call__(self, case: Case) -> Got:
        try:
            reply = self._reply(case)
        except RequestError as error:
            reply = Reply.of(error)
        return Got.of(reply.code, reply.headers.items(), reply.body)

    def _reply(self, case: Case) -> Reply:
        if not case.token:
            raise REFUSED
        path, _, query = case.path.replace("MODEL", self._model).partition("?")
        asked = read_address(path, query.encode())
        if asked.name != self._model:
            raise no_model(asked.name)
        if asked.version not in (None, self._version):
            raise no_version(asked.name, asked.version)
        if len(case.body) > MAX_REQUEST_SIZE:
            return Reply(413, b"")
        sent = Sent({**asked.fields, **fields_of(case.body, case.headers)}, case.headers, asked.explains)
        with self._lock:
            return Reply.of(self._predictor.answer([sent], bounds=self._bounds)[0])


def _workers(archive: Path) -> int:
    with unpack(archive) as folder:
        return Archive.read(Path(folder)).serving.min_workers
