"""The page of `make ui` where its server is not there, comes later, dies or knows another token; and a port that is in use."""

import socket
import subprocess

from serve.settings import free_ports
from tests.conftest import DIGITS, ROOT
from tests.e2e.page import ALERT, SECONDS, UI, UI_PYTHON, asked, give, page_of, said

SAMPLE = DIGITS / "samples" / "7-a.png"
pytestmark = UI


def test_a_server_that_is_not_there_is_said_so(browser, tmp_path):
    with page_of(tmp_path / "nothing") as url:
        browser.open(url)
        assert said(browser, "who") == "No server is running: make serve starts one."
        give(browser, SAMPLE)
        assert said(browser, "labels") == "No server is running: make serve starts one."


def test_the_page_finds_a_server_that_is_started_later(browser, client, tmp_path):
    run_dir = tmp_path / "later"
    with page_of(run_dir) as url:
        browser.open(url)
        assert said(browser, "who") == "No server is running: make serve starts one."
        run_dir.symlink_to(client.run_dir)
        about = browser.wait("document.querySelector('#who p:not([role])')?.innerText")
        assert about.startswith("digits 1.0, in ") and about.endswith(" on cpu")
        assert not browser.evaluate(ALERT.format("who"))


def test_a_server_that_has_died_and_a_token_that_is_wrong_are_said(browser, client, tmp_path):
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    settings, keys = ((client.run_dir / name).read_text() for name in ("config.properties", "key_file.json"))
    (run_dir / "key_file.json").write_text(
        keys.replace(client.token("inference"), "wrong").replace(client.token("management"), "wrong")
    )
    (run_dir / "config.properties").write_text(settings)
    with page_of(run_dir) as url:
        asked(browser, url, SAMPLE)
        assert "token" in said(browser, "labels").lower()
        port = free_ports()["management-port"]
        changed = tmp_path / "changed.properties"
        changed.write_text(f"{settings}\nmanagement_address=http://127.0.0.1:{port}\n")
        changed.replace(run_dir / "config.properties")  # at once: the page may be reading it
        asked(browser, url, SAMPLE)
        assert browser.wait(f"{ALERT.format('labels')}?.innerText.startsWith('The server does not answer')")


def test_a_port_in_use_is_named_in_one_line():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        command = [str(UI_PYTHON), "-m", "ui", "--port", port]
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith(f"ui: port {port} cannot be used (Address already in use): make ui UI_PORT=…")
    assert ended.stderr.count("\n") == 1
