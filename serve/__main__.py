"""`python -m serve start|run|ready|status|predict|token|roll|remove|stop|demo`: the commands behind `make serve` and others."""

from __future__ import annotations

import argparse
import csv
import re
import sys
from pathlib import Path

from command_line import Parser, bar, positive, relative, show_step, undisturbed
from predict.pictures import named_paths, pictures
from predict.table import Lines, Table
from serve.archive import identity
from serve.ask import ask
from serve.client import Client
from serve.drain import drain
from serve.errors import ServeError, exit_status
from serve.register import register, served
from serve.roll import roll
from serve.run import Ending, ask_ready, run
from serve.server import Server
from serve.settings import PORTS, free_ports
from serve.status import status

ROOT = Path(__file__).resolve().parent.parent
RUN_DIR = ROOT / ".torchserve"
SAMPLES = ROOT / "examples" / "digits" / "samples"
DEMO_SHARE = 0.9  # the share of the samples that must be right: the example model reads 98 of 100 such pictures


def start(options: argparse.Namespace) -> None:
    """Starts a server with these models, or adds them to the running server."""
    archives = [f"{name}.mar" for name in options.model_names]
    names = [identity(options.model_store / archive)[0] for archive in archives]  # reports a wrong one before anything starts
    server = Server(RUN_DIR)
    ports = _ports(options)
    running = server.running()
    if running:
        client = server.client()
        _check_running(client, names, options.model_store, ports)
    else:
        show_step("starting TorchServe")
        client = server.start(options.config, options.model_store, ports)
    try:
        for archive, name in zip(archives, names, strict=True):
            show_step(f"loading {name}")
            register(server, client, archive, name)
    except BaseException:
        if not running:
            with undisturbed():
                server.stop()
        raise
    finally:
        show_step("")
    for name in names:
        print(served(client, name))
    sample = relative(sorted(SAMPLES.glob("*.*g"))[0])
    print(f"\n  curl -H 'Authorization: Bearer {client.token('inference')}' \\")
    print(f"    {client.inference}/predictions/{names[0]} -T {sample}\n")
    print(f"make predict NAME={names[0]} IMAGE={sample} asks it, make status tells what is served, make stop ends it")
    print(f"tokens: {relative(RUN_DIR / 'key_file.json')}")


def run_in_foreground(options: argparse.Namespace) -> int:
    if options.notice >= options.grace:
        raise ServeError(f"--grace {options.grace} includes the notice of {options.notice} s: it must be longer")
    archives = [f"{name}.mar" for name in options.model_names]
    ending = Ending(options.notice, options.grace)
    settings = (options.config, options.model_store, archives, _ports(options))
    return run(Server(RUN_DIR), *settings, options.tokens, options.probes, ending, _say)


def ready(_: argparse.Namespace) -> int:
    reason = ask_ready(RUN_DIR)
    print(reason or "ready")
    return int(bool(reason))


def _ports(options: argparse.Namespace) -> dict[str, int]:
    return {name: port for name in PORTS if (port := getattr(options, name.replace("-", "_"))) is not None}


def _check_running(client: Client, names: list[str], model_store: Path, ports: dict[str, int]) -> None:
    """Raises ServeError if the running server cannot add these models."""
    if there := [name for name in client.models() if name in names]:
        raise ServeError(f"{there[0]} is served by a server that is running already: make stop ends it, make roll replaces it")
    if ports:
        raise ServeError("a server that was started here is running already, with its own ports: make stop ends it")
    if client.model_store != model_store.resolve():
        raise ServeError(
            f"a server that was started here is running already, with the archives in {client.model_store}: make stop ends it"
        )


def predict(options: argparse.Namespace) -> int:
    client = Server(RUN_DIR).client()
    name = options.model_name or next(iter(client.models()), None)
    if name is None:
        raise ServeError("the server has no model: make stop, then make serve, registers one")
    files = pictures(named_paths(options.images))
    show = Lines() if options.json else Table(files, client.describe(name).get("customizedMetadata") or {})
    failed = False
    for file in files:
        answer, error = ask(client, name, file)
        show.print_row(file, answer, error)
        failed |= error is not None
    return int(failed)


def show_status(_: argparse.Namespace) -> None:
    print(status(Server(RUN_DIR).client()))


def token(options: argparse.Namespace) -> None:
    print(Server(RUN_DIR).client().token(options.kind))


def roll_out(options: argparse.Namespace) -> None:
    client = Server(RUN_DIR).client()
    roll(client, f"{options.archive}.mar", pictures(options.pictures), options.patience, _say)


def remove(options: argparse.Namespace) -> None:
    client = Server(RUN_DIR).client()
    name, _, version = options.model_name.partition("/")
    default = client.model(name)["modelVersion"]  # TorchServe refuses to remove the default as long as there are other versions
    versions = [version] if version else sorted(client.versions(name), key=lambda each: each == default)
    for each in versions:
        drain(client, name, each, options.patience)
        _say(f"{name} {each} is unregistered")


def _say(line: str) -> None:
    print(line, flush=True)


def stop(_: argparse.Namespace) -> None:
    print("stopped" if Server(RUN_DIR).stop() else "no server that was started here is running")


def demo(options: argparse.Namespace) -> None:
    """Starts a server on free ports, registers the archive, sends the sample pictures, and stops the server."""
    samples = list(csv.DictReader((SAMPLES / "labels.csv").open()))
    server = Server(RUN_DIR.with_name(f"{RUN_DIR.name}-demo"))
    show_step("starting TorchServe")
    client = server.start(options.config, options.model_store, free_ports())
    try:
        show_step(f"loading {options.model_name}")
        register(server, client, f"{options.model_name}.mar", options.model_name)
        show_step("")
        print(f"{served(client, options.model_name)}\n\n{'picture':10} {'is':>4} {'answer':>7}")
        right = 0
        for sample in samples:
            answer, error = ask(client, options.model_name, SAMPLES / sample["file"])
            if error:
                raise ServeError(f"{sample['file']}: {error}")
            label, probability = next(iter(answer.items()))
            right += label == sample["label"]
            print(f"{sample['file']:10} {sample['label']:>4} {label:>7}  {probability:6.1%}  {bar(probability)}")
    finally:
        show_step("")
        with undisturbed():
            server.stop()
    print(f"\n{right} of {len(samples)} right; the server is stopped")
    if right < DEMO_SHARE * len(samples):
        raise ServeError("too many wrong answers")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = Parser(prog="python -m serve", description="Run TorchServe for this checkout.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    sub = commands.add_parser("start", help="start TorchServe in the background, register archives, wait for their workers")
    sub.set_defaults(run=start)
    sub.add_argument("model_names", nargs="+", metavar="NAME", help="archive in the model store, without .mar")
    _add_store_and_config(sub)
    _add_ports(sub)
    sub = commands.add_parser("run", help="the same in the foreground, until SIGTERM: for a container or a process manager")
    sub.set_defaults(run=run_in_foreground)
    sub.add_argument("model_names", nargs="+", metavar="NAME", help="archive in the model store, without .mar")
    _add_store_and_config(sub)
    _add_ports(sub)
    probes_help = "where GET /ready, /live and /metrics are answered, without a token (default: 127.0.0.1:8083)"
    sub.add_argument("--probes", type=_host_and_port, default=("127.0.0.1", 8083), metavar="HOST:PORT", help=probes_help)
    tokens_help = "anyone who reaches the ports may send requests: for a pod behind a gateway that checks keys"
    sub.add_argument("--no-tokens", dest="tokens", action="store_false", help=tokens_help)
    notice_help = "after SIGTERM: seconds to be unready but still answer, until the load balancer has noticed (default: 0)"
    sub.add_argument("--notice", type=positive, default=0, metavar="S", help=notice_help)
    grace_help = "after SIGTERM: seconds until it ends at the latest, including the notice (default: 60)"
    sub.add_argument("--grace", type=positive, default=60, metavar="S", help=grace_help)
    commands.add_parser("ready", help="exit with 0 if the server of run is ready, else print why not").set_defaults(run=ready)
    sub = commands.add_parser("demo", help="start TorchServe on free ports, ask it the sample pictures of digits, stop it")
    sub.set_defaults(run=demo)
    sub.add_argument("model_name", metavar="NAME", help="archive in the model store, without .mar")
    _add_store_and_config(sub)
    sub = commands.add_parser("status", help="what is served: models, versions, workers, precision, queue")
    sub.set_defaults(run=show_status)
    sub = commands.add_parser("predict", help="ask the server that start has started, print the answers")
    sub.set_defaults(run=predict)
    sub.add_argument("images", nargs="+", metavar="PICTURE", help="an image file, a folder, a pattern")
    sub.add_argument("--model-name", metavar="NAME", help="default: the first model that is served")
    sub.add_argument("--json", action="store_true", help="a line of JSON for each picture: its path, its answer or error")
    sub = commands.add_parser("token", help="print a token for curl that is valid for at least a minute")
    sub.set_defaults(run=token)
    sub.add_argument("kind", nargs="?", choices=("inference", "management"), default="inference")
    sub = commands.add_parser("roll", help="put a new version in the place of the one that is served, under load")
    sub.set_defaults(run=roll_out)
    sub.add_argument("archive", metavar="ARCHIVE", help="in the model store that the server was started with, without .mar")
    pictures_help = "files or folders: both versions answer them (default: the sample pictures)"
    sub.add_argument("--pictures", type=Path, nargs="+", default=[SAMPLES], metavar="PICTURE", help=pictures_help)
    _add_patience(sub)
    sub = commands.add_parser("remove", help="unregister a model, or one version of it, once it has answered all it has")
    sub.set_defaults(run=remove)
    sub.add_argument("model_name", metavar="NAME[/VERSION]")
    _add_patience(sub)
    commands.add_parser("stop", help="stop the server that start has started").set_defaults(run=stop)
    return parser.parse_args(arguments)


def _add_store_and_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model-store", type=Path, default=ROOT / "model_store", metavar="FOLDER")
    parser.add_argument("--config", type=Path, default=ROOT / "config.properties", metavar="FILE")


def _add_ports(parser: argparse.ArgumentParser) -> None:
    for name, key in PORTS.items():
        parser.add_argument(f"--{name}", type=int, metavar="N", help=f"instead of the port in {key}")


def _host_and_port(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not re.fullmatch(r"[0-9]{1,5}", port):
        raise argparse.ArgumentTypeError(f"expected HOST:PORT, not {text[:40]!r}")
    return host, int(port)


def _add_patience(parser: argparse.ArgumentParser) -> None:
    help = "how long it may take until no request is left (default: 300)"
    parser.add_argument("--patience", type=positive, default=300, metavar="S", help=help)


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    return exit_status("serve", lambda: options.run(options))


if __name__ == "__main__":
    sys.exit(main())
