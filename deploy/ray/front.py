"""The front: turns HTTP requests into questions to the models, and their replies into responses. It knows addresses, tokens and
sizes.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from ray import serve
from ray.exceptions import RayActorError, RayTaskError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, RayServeException
from ray.serve.handle import DeploymentHandle
from starlette.requests import Request
from starlette.responses import Response

from deploy.ray import model
from deploy.ray.forms import fields_of
from deploy.ray.reply import Question, Reply
from deploy.ray.routes import Asked, no_model, read_address
from deploy.ray.tokens import Tokens
from vit_core.answer import Answer
from vit_core.errors import RequestError, ServerError
from vit_core.request import Sent

logger = logging.getLogger("ray.serve")
TOO_LARGE = Reply(413, b"")  # as TorchServe says it
TRIES = 2  # of a request whose replica died: asking again has no side effects, but a third replica should not die of it


class Front:
    """Serves the addresses of TorchServe's inference API. Each model is a Serve application with the model's name."""

    def __init__(self, token_file: str | None, max_request_size: int):
        self._tokens = Tokens(Path(token_file)) if token_file else None
        self._most = max_request_size
        self._handles: dict[str, DeploymentHandle] = {}

    async def __call__(self, request: Request) -> Response:
        try:
            reply = await self._reply(request)
        except RequestError as error:
            reply = Reply.of(error)
        except Exception:  # a mistake of ours
            logger.exception("a request could not be read")
            reply = Reply.of(ServerError(500, "InternalServerException", "the front failed: its log says how"))
        return Response(reply.body, reply.code, dict(reply.headers))

    async def _reply(self, request: Request) -> Reply:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in request.headers.raw}
        if self._tokens:
            self._tokens.check(headers.get("authorization", ""))
        path = request.scope.get("raw_path", request.url.path.encode()).decode("latin-1")
        if path == "/ping":
            return Reply.of(Answer({"status": "Healthy"}))
        asked = read_address(path, request.scope["query_string"])
        handle = await self._handle(asked.name)
        if asked.describes:
            return await self._ask(asked, handle.describe, asked.version)
        body = await self._body(request)
        if body is None:
            return TOO_LARGE
        headers["content-length"] = str(len(body))  # a chunked body has none
        sent = Sent({**asked.fields, **fields_of(body, headers)}, headers, asked.explains)
        return await self._ask(asked, handle, Question(sent, asked.version))

    async def _body(self, request: Request) -> bytes | None:
        """The body; None for one that is larger than it may be, of which no more is read."""
        announced = request.headers.get("content-length", "0")
        if announced.isdecimal() and int(announced[:20]) > self._most:
            return None
        parts, size = [], 0
        async for part in request.stream():
            size += len(part)
            if size > self._most:
                return None
            parts.append(part)
        return b"".join(parts)

    async def _handle(self, name: str) -> DeploymentHandle:
        """The application of a model. Raises InputError 404 where there is none, or it is none of this project."""
        if name not in self._handles:
            try:
                handle = await asyncio.to_thread(serve.get_app_handle, name)
            except RayServeException as error:
                raise no_model(name) from error
            if handle.deployment_name != model.NAME:
                raise no_model(name)
            self._handles[name] = handle
        return self._handles[name]

    async def _ask(self, asked: Asked, method: DeploymentHandle, question: Question | str | None) -> Reply:
        """What a replica of the model answers. Raises RequestError where none does."""
        for _ in range(TRIES):
            try:
                return await method.remote(question)
            except RayActorError:
                logger.warning("a replica of %s died with a request", asked.name)
            except BackPressureError as error:
                message = f"too many requests wait for {asked.name}: send it again"
                raise ServerError(503, "ServiceUnavailableException", message) from error
            except DeploymentUnavailableError as error:
                self._handles.pop(asked.name, None)  # another request may have noticed, too
                raise no_model(asked.name) from error
            except RayTaskError as error:
                logger.exception("a replica of %s failed", asked.name)
                raise ServerError(500, "PredictionFailed", "the model failed: the server's log says how") from error
        raise ServerError(
            503, "ServiceUnavailableException", f"the workers of {asked.name} died with the request: send it again"
        )
