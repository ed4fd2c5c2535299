"""What ends with a server."""

import json
import subprocess
import sys

import psutil

from serve.server import Server
from tests.e2e.conftest import eventually

STARTS = "import subprocess, time; print(subprocess.Popen(['sleep', '60']).pid, flush=True); time.sleep(60)"


def test_what_a_launcher_starts_just_now_ends_with_it(home, monkeypatch):
    """Java that is started between the look for processes and their end would run on, and hold the output open."""
    launcher = psutil.Popen([sys.executable, "-c", STARTS], stdout=subprocess.PIPE)
    started = psutil.Process(int(launcher.stdout.readline()))
    server = Server(home / "run")
    server.run_dir.mkdir()
    (server.run_dir / "server.json").write_text(json.dumps({"processes": [[launcher.pid, launcher.create_time()]]}))
    looks, look = [[psutil.Process(launcher.pid)]], server._processes
    monkeypatch.setattr(server, "_processes", lambda: looks.pop() if looks else look())
    assert server.stop()
    launcher.wait(60)
    assert eventually(lambda: not started.is_running() or started.status() == psutil.STATUS_ZOMBIE)
