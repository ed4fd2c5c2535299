"""TorchServe's settings: `config.properties`, with the ports that the user or a test wants."""

from __future__ import annotations

import contextlib
import re
import socket
from pathlib import Path

from serve.errors import ServeError

# The setting of each port, and how it is named on the command lines of `make` and `python -m serve`.
PORTS = {
    "port": "inference_address",
    "management-port": "management_address",
    "metrics-port": "metrics_address",
    "grpc-port": "grpc_inference_port",
    "grpc-management-port": "grpc_management_port",
}
NEEDED = (*PORTS.values(), "grpc_inference_address", "grpc_management_address")
FILES = ("metrics_config", "certificate_file", "private_key_file")


def read(path: Path) -> dict[str, str]:
    """Reads the settings of a `.properties` file. Raises ServeError if it does not exist, or lacks an address or a port."""
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeError) as error:
        raise ServeError(f"the settings could not be read from {path}: {getattr(error, 'strerror', None) or error}") from error
    pairs = (line.split("=", 1) for line in lines if "=" in line and not line.lstrip().startswith("#"))
    found = {key.strip(): value.strip() for key, value in pairs}
    for key in NEEDED:
        if key not in found:
            raise ServeError(f"{path} does not set {key}: config.properties of this project does")
    return found


def port_overrides(settings: dict[str, str], ports: dict[str, int]) -> dict[str, str]:
    """Returns the settings that replace the ports in `settings` by the given ones (keys as in PORTS)."""
    keys = {PORTS[name]: port for name, port in ports.items()}
    return {
        key: re.sub(r":\d+$", f":{port}", settings[key]) if key.endswith("address") else str(port) for key, port in keys.items()
    }


def files(settings: dict[str, str], config: Path) -> dict[str, str]:
    """Returns the settings that name a file, with absolute paths, because TorchServe runs in a folder of its own.

    Relative paths start at the folder of `config` or at the current one. Raises ServeError for a file that is in neither.
    """
    found = {}
    for key in [key for key in FILES if key in settings]:
        candidates = [folder / settings[key] for folder in (config.parent, Path())]
        existing = next((path for path in candidates if path.is_file()), None)
        if existing is None:
            raise ServeError(f"{key}={settings[key]} in {config}: there is no such file")
        found[key] = str(existing.resolve())
    return found


def free_ports() -> dict[str, int]:
    """Returns for each of PORTS a port on which nothing listens now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in PORTS]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return {name: each.getsockname()[1] for name, each in zip(PORTS, sockets, strict=True)}


def check_ports(settings: dict[str, str]) -> None:
    """Raises ServeError for the first port that another program or setting uses: TorchServe's own words are less clear."""
    taken: dict[int, str] = {}
    for name, key in PORTS.items():
        host, port = _host_and_port(settings, key)
        if other := taken.get(port):
            raise ServeError(f"port {port} is that of {other} and of {key}: each needs its own")
        taken[port] = key
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                if not port:
                    raise OverflowError("a client could not know which one 0 becomes")
                probe.bind((host, port))
            except (OSError, OverflowError, TypeError) as error:  # the latter two for numbers above 65535 and odd hosts
                variable = name.replace("-", "_").upper()
                reason = getattr(error, "strerror", None) or error
                raise ServeError(
                    f"port {port} ({key}) cannot be used: {reason}. Choose another one with {variable}=… for make, "
                    f"--{name} … for python -m serve, or {key} in config.properties"
                ) from error


def _host_and_port(settings: dict[str, str], key: str) -> tuple[str, int]:
    if key.endswith("address"):
        match = re.fullmatch(r"https?://([^:/]+):(\d{1,9})", settings[key])
        if not match:
            raise ServeError(f"{key}={settings[key]}: expected http://HOST:PORT")
        return match[1], int(match[2])
    if not re.fullmatch(r"-?\d{1,9}", settings[key]):
        raise ServeError(f"{key}={settings[key]}: expected the number of a port")
    return settings[key.replace("_port", "_address")], int(settings[key])
