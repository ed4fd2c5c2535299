"""`python -m serve start|predict|roll|remove|stop|demo`: what `make serve` and its kin run."""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path

from command_line import bar, positive, print_labels, relative
from predict.pictures import pictures
from serve.client import Client, message
from serve.drain import drain
from serve.errors import ServeError, exit_status
from serve.roll import roll
from serve.server import Server
from serve.settings import PORTS, free_ports

ROOT = Path(__file__).resolve().parent.parent
RUN_DIR = ROOT / ".torchserve"
SAMPLES = ROOT / "examples" / "digits" / "samples"
DEMO_SHARE = 0.9  # of the samples must be answered right: the example model reads 98 of 100 such pictures


def start(options: argparse.Namespace) -> None:
    server = Server(RUN_DIR)
    ports = {name: port for name in PORTS if (port := getattr(options, name.replace("-", "_"))) is not None}
    client = server.start(options.config, options.model_store, ports)
    try:
        _register(server, client, options.model_name)
        _add_workers(server, client, options.model_name)
    except BaseException:
        server.stop()
        raise
    sample = sorted(SAMPLES.glob("*.*g"))[0]
    print(f"{_served(client, options.model_name)}\n")
    print(f"  curl -H 'Authorization: Bearer {client.token('inference')}' \\")
    print(f"    {client.inference}/predictions/{options.model_name} -T {relative(sample)}\n")
    print(f"make predict IMAGE=… asks it, make stop ends it; tokens: {relative(RUN_DIR / 'key_file.json')}")


def predict(options: argparse.Namespace) -> None:
    client = Server(RUN_DIR).client()
    name = options.model_name or next(iter(client.models()), None)
    if name is None:
        raise ServeError("the server has no model: make stop, then make serve, registers one")
    try:
        image = options.image.expanduser().read_bytes()
    except OSError as error:
        raise ServeError(f"{options.image} cannot be read: {error.strerror}") from error
    print_labels(_answer(client, name, image))


def roll_out(options: argparse.Namespace) -> None:
    client = Server(RUN_DIR).client()
    roll(client, f"{options.archive}.mar", pictures(options.pictures), options.patience, _say)


def remove(options: argparse.Namespace) -> None:
    client = Server(RUN_DIR).client()
    name, _, version = options.model_name.partition("/")
    default = client.model(name)["modelVersion"]  # TorchServe keeps it as long as there are others
    versions = [version] if version else sorted(client.versions(name), key=lambda each: each == default)
    for each in versions:
        drain(client, name, each, options.patience)
        _say(f"{name} {each} is unregistered")


def _say(line: str) -> None:
    print(line, flush=True)


def stop(_: argparse.Namespace) -> None:
    print("stopped" if Server(RUN_DIR).stop() else "no server that was started here is running")


def demo(options: argparse.Namespace) -> None:
    """Everything once: a server on free ports, the archive registered, the sample pictures asked, the server stopped."""
    samples = list(csv.DictReader((SAMPLES / "labels.csv").open()))
    server = Server(RUN_DIR.with_name(f"{RUN_DIR.name}-demo"))
    client = server.start(options.config, options.model_store, free_ports())
    try:
        _register(server, client, options.model_name)
        print(f"{_served(client, options.model_name)}\n\n{'picture':10} {'is':>4} {'answer':>7}")
        right = 0
        for sample in samples:
            answer = _answer(client, options.model_name, (SAMPLES / sample["file"]).read_bytes())
            label, probability = next(iter(answer.items()))
            right += label == sample["label"]
            print(f"{sample['file']:10} {sample['label']:>4} {label:>7}  {probability:6.1%}  {bar(probability)}")
    finally:
        server.stop()
    print(f"\n{right} of {len(samples)} right; the server is stopped")
    if right < DEMO_SHARE * len(samples):
        raise ServeError("too many wrong answers")


def _register(server: Server, client: Client, model_name: str) -> None:
    try:
        client.register(f"{model_name}.mar")
    except ServeError as error:
        if "Failed to start workers" not in str(error):
            raise ServeError(f"{model_name} was not registered: {error}") from error
        raise ServeError(f"a worker of {model_name} died while it loaded: {server.reason()} (log: {server.log})") from error


def _add_workers(server: Server, client: Client, model_name: str) -> None:
    """As many as the first one says that this machine has use for and the archive allows; if they do not start, none."""
    model = client.describe(model_name)
    told = model.get("customizedMetadata")  # by the handler; that of another project may tell nothing
    useful = told.get("useful_workers", 1) if isinstance(told, dict) else 1
    first, workers = len(model["workers"]), min(useful, model["maxWorkers"])
    if workers > first:
        try:
            client.scale(model_name, workers)
        except ServeError:  # a GPU, say, that has the memory for one of them
            client.scale(model_name, first)
            print(f"{workers} workers would be of use, and did not all start: {server.reason()}", file=sys.stderr)


def _served(client: Client, model_name: str) -> str:
    model = client.model(model_name)
    workers = model["workers"]
    device = "GPU" if workers[0]["gpu"] else "CPU"
    return (
        f"{model_name} {model['modelVersion']} is served at {client.inference}/predictions/{model_name}: "
        f"{len(workers)} worker{'s' * (len(workers) > 1)} on the {device}, batches of up to {model['batchSize']}"
    )


def _answer(client: Client, model_name: str, image: bytes) -> dict[str, float]:
    response = client.predict(model_name, image)
    if not response.ok:
        raise ServeError(f"{response.status_code}: {message(response)}")
    answer = response.json()
    if not isinstance(answer, dict) or not answer:
        raise ServeError(f"{model_name} answers without labels: ask it with curl, as docs/requests.md has it")
    return answer


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m serve", description="Run TorchServe for this checkout.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command, help in (
        (start, "start TorchServe in the background, register the archive, wait for its worker"),
        (demo, "start TorchServe on free ports, ask it the sample pictures of digits, stop it"),
    ):
        sub = commands.add_parser(command.__name__, help=help)
        sub.set_defaults(run=command)
        sub.add_argument("model_name", metavar="NAME", help="archive in the model store, without .mar")
        sub.add_argument("--model-store", type=Path, default=ROOT / "model_store", metavar="FOLDER")
        sub.add_argument("--config", type=Path, default=ROOT / "config.properties", metavar="FILE")
        if command is start:
            for name, key in PORTS.items():
                sub.add_argument(f"--{name}", type=int, metavar="N", help=f"instead of the port in {key}")
    sub = commands.add_parser("predict", help="ask the server that start has started, print the answer")
    sub.set_defaults(run=predict)
    sub.add_argument("image", type=Path, metavar="IMAGE")
    sub.add_argument("--model-name", metavar="NAME", help="default: the model that is served")
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


def _add_patience(parser: argparse.ArgumentParser) -> None:
    help = "how long it may take until no request is left (default: 300)"
    parser.add_argument("--patience", type=positive, default=300, metavar="S", help=help)


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    return exit_status("serve", lambda: options.run(options))


if __name__ == "__main__":
    sys.exit(main())
