"""Replaces the served version of a model by a new one, and no request is lost or waits for it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from serve.archive import identity
from serve.client import Client, message
from serve.drain import drain
from serve.errors import ServeError


def roll(client: Client, archive: str, pictures: list[Path], patience: float, say: Callable[[str], None]) -> None:
    """Registers the version in `archive`, compares its answers on `pictures`, makes it the default, and drains the old default.

    Until the new version is the default, every failure, and Ctrl+C, unregisters it again and leaves the old one as it was.
    Raises ServeError.
    """
    name, version = identity(client.model_store / archive)
    if name not in client.models():
        raise ServeError(f"no model {name} is served that {archive} could take the place of: make serve NAME={name}")
    served = client.model(name)
    old = served["modelVersion"]
    if version in client.versions(name):
        raise ServeError(f"{name} {version} is registered already: make archive ARGS='--version …' makes another version")
    say(f"{name} {old} is served; loading {version}")
    try:
        client.register(archive)
        _as_many_workers(client, f"{name}/{version}", len(served["workers"]))
        say(_compared(client, f"{name}/{old}", f"{name}/{version}", pictures))
        client.set_default(name, version)
    except BaseException:
        with contextlib.suppress(ServeError):
            if client.model(name)["modelVersion"] == old and version in client.versions(name):
                client.unregister(f"{name}/{version}")
        raise
    say(f"{name} {version} is the default; waiting for the last answers of {old}")
    drain(client, name, old, patience)
    say(f"{name} {old} is unregistered")


def _as_many_workers(client: Client, path: str, workers: int) -> None:
    model = client.model(path)
    wanted = min(workers, model["maxWorkers"])
    if wanted > len(model["workers"]):
        client.scale(path, wanted)


def _compared(client: Client, old: str, new: str, pictures: list[Path]) -> str:
    """Says in one line how the answers of two versions differ. Raises ServeError if the new one fails where the old one does
    not.
    """
    differences, same = [], []
    for picture in pictures:
        image = picture.read_bytes()
        before, after = client.predict(old, image), client.predict(new, image)
        if not before.ok:  # the fault of the picture, or of the old version
            continue
        if not after.ok:
            raise ServeError(f"{new} answers {picture.name} with {after.status_code} ({message(after)}): {old} stays")
        first, second = _numbers(before.json()), _numbers(after.json())
        differences.append(max((abs(first[key] - second[key]) for key in first.keys() & second.keys()), default=0.0))
        if isinstance(before.json(), dict):
            same.append(next(iter(first), None) == next(iter(second), None))
    if not differences:
        raise ServeError(f"{old} answers none of the pictures, so {new} cannot be compared with it: PICTURES=FOLDER has others")
    labels = f"the first label is the same for {sum(same)} of {len(same)}, " if same else ""
    return f"asked {len(differences)} pictures: {labels}scores differ by at most {max(differences):.2g}"


def _numbers(answer: dict | list) -> dict:
    """Returns label → score, or index → number of an embedding."""
    return answer if isinstance(answer, dict) else dict(enumerate(answer))
