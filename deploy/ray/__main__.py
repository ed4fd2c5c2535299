"""`python -m deploy.ray ARCHIVE.mar…`: serves archives with Ray Serve, on this machine or on a running cluster."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from pathlib import Path

from command_line import Parser, UserError, exit_status, positive, relative, show_step
from deploy.ray.running import ROOT, Running, connect
from deploy.ray.tokens import Tokens
from serve.archive import identity
from vit_core.archive import opened
from vit_core.settings import ArchiveError

RUN_DIR = ROOT / ".ray-serve"
HOST, PORT = "127.0.0.1", 8000


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    return exit_status("deploy.ray", lambda: run(options))


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = Parser(
        prog="python -m deploy.ray",
        description="Serve archives with Ray Serve. It starts Ray on this machine, until Ctrl+C. Where it has done so already, "
        "or with --address, the archives go there: another model besides, another version in the place of the one served.",
    )
    parser.add_argument("archives", type=Path, nargs="+", metavar="ARCHIVE", help="a .mar file")
    parser.add_argument("--address", help="of a Ray cluster that runs; the archives are at the same path on each node")
    front = parser.add_argument_group("the front, where it is started")
    front.add_argument("--host", help="default: 127.0.0.1")
    front.add_argument("--port", type=positive, metavar="N", help="default: 8000")
    front.add_argument("--metrics-port", type=positive, metavar="N", help="for Prometheus (default: Ray chooses one)")
    front.add_argument(
        "--tokens", type=Path, metavar="FILE", help="tokens, one a line (default: a new one in .ray-serve/tokens)"
    )
    front.add_argument("--no-tokens", action="store_true", help="anyone who reaches the port may send requests")
    models = parser.add_argument_group("each of the models")
    models.add_argument("--replicas", type=positive, metavar="N", help="default: the archive's workers")
    models.add_argument("--max-replicas", type=positive, metavar="N", help="that are started where many requests wait")
    models.add_argument(
        "--cpus",
        type=positive,
        metavar="N",
        help="of a replica (default: 1 for a small model, else its share of the cores here)",
    )
    models.add_argument("--gpus", type=float, default=0, metavar="SHARE", help="of a replica (default: 0)")
    return parser.parse_args(arguments)


def run(options: argparse.Namespace) -> None:
    running, archives = Running(RUN_DIR), {}
    for archive in options.archives:  # so that a wrong one is reported before anything starts
        archives[_checked(archive)] = archive.resolve()
    if len(archives) < len(options.archives):
        raise UserError("two of the archives are of one name, and one version of a model is served at a time")
    if address := options.address or running.address():
        _deploy_to(address, options, archives)
    else:
        _serve_here(running, options, archives)


def _serve_here(running: Running, options: argparse.Namespace, archives: dict[str, Path]) -> None:
    """Starts Ray on this machine, and serves until Ctrl+C or SIGTERM."""
    host, port = options.host or HOST, options.port or PORT
    if options.tokens:
        _check_tokens(options.tokens)
    show_step("starting Ray")
    with running.started(host, port, options.metrics_port):
        token_file = None if options.no_tokens else options.tokens or running.new_token()
        _deploy(options, archives, front_with=(token_file,))
        _say_served(archives)
        sample = relative(sorted((ROOT / "examples" / "digits" / "samples").glob("*.*g"))[0])
        header = f'-H "Authorization: Bearer $(head -1 {relative(token_file)})" ' if token_file else ""
        print(f"\n  curl {header}\\\n    http://{host}:{port}/predictions/{next(iter(archives))} -T {sample}\n")
        print(
            "the same command with another archive adds it, or takes it in place of the version that is served; Ctrl+C ends all"
        )
        sys.stdout.flush()
        wait_for_end()
        show_step("answering what is in flight")
    show_step("")


def _deploy_to(address: str, options: argparse.Namespace, archives: dict[str, Path]) -> None:
    """Deploys the archives on the Ray at an address, and replaces older versions of their models."""
    show_step("connecting")
    connect(address=address)
    from ray import serve

    has_front = "front" in serve.status().applications
    if has_front and (options.host or options.port or options.tokens or options.no_tokens):
        raise UserError("the front runs already: its address and its tokens stay as they are")
    if not has_front and not (options.tokens or options.no_tokens):
        raise UserError("a cluster needs --tokens FILE, at the same path on each node, or --no-tokens")
    if not has_front:
        serve.start(proxy_location="EveryNode", http_options={"host": options.host or HOST, "port": options.port or PORT})
    _deploy(options, archives, front_with=None if has_front else (options.tokens,))
    _say_served(archives)


def _deploy(options: argparse.Namespace, archives: dict[str, Path], front_with: tuple[Path | None] | None) -> None:
    """Waits until replicas of all models are ready. Raises UserError if one does not start.

    `front_with` is the file of tokens for a front that is started along.
    """
    from ray import serve

    from deploy.ray import app

    show_step(f"loading {', '.join(archives)}")
    scale = {"cpus": options.cpus, "gpus": options.gpus, "min_replicas": options.replicas, "max_replicas": options.max_replicas}
    applications = {name: app.model(app.ModelArgs(archive=str(path), **scale)) for name, path in archives.items()}
    targets = [serve.RunTarget(application, name, None) for name, application in applications.items()]
    if front_with:
        token_file = front_with[0] and str(front_with[0].resolve())
        targets.append(serve.RunTarget(app.front(app.FrontArgs(token_file=token_file)), "front", "/"))
    try:
        serve.run_many(targets)
    except RuntimeError as error:
        found = serve.status().applications
        reasons = [each.message for name in archives for each in found[name].deployments.values()] if found else []
        kept = "" if front_with else " What was served before goes on: deploy it again, so that its replicas are replaced, too."
        raise UserError(f"{error} {last_line(reasons)}.{kept}") from error
    finally:
        show_step("")


def _checked(archive: Path) -> str:
    """Returns the name of the model in an archive. Raises UserError if the archive cannot be served."""
    name, _ = identity(archive)
    try:
        with opened(archive):
            pass
    except ArchiveError as error:
        raise UserError(f"{archive}: {error}") from error
    return name


def _check_tokens(file: Path) -> None:
    try:
        Tokens(file)
    except (OSError, ValueError) as error:
        raise UserError(f"no tokens in {file}: {getattr(error, 'strerror', None) or error}") from error


def _say_served(archives: dict[str, Path]) -> None:
    for name, archive in archives.items():
        print(f"{name} {identity(archive)[1]} is served")


def last_line(messages: list[str]) -> str:
    """Returns Serve's last line about a failed deployment: the exception itself, below its frames."""
    lines = [line.strip() for message in messages for line in message.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def wait_for_end() -> None:
    """Returns at Ctrl+C and at SIGTERM."""
    end = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: end.set())
    end.wait()


if __name__ == "__main__":
    sys.exit(main())
