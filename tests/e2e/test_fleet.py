"""Several hosts behind HAProxy, under load: cut off, hung, rolled to another version, joined by a slow one. Nothing is lost."""

import contextlib
import io
import os
import re
import time
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from tests.conformance.asked import between
from tests.conftest import LAST_DIGITS
from tests.e2e.conftest import SAMPLES, altered
from tests.e2e.fleet import CONFIG, CONTROL, HAPROXY, PROXY, SWITCH, Host, Switch, start_proxy
from tests.e2e.load import Load
from tests.e2e.test_roll import BEGINS, SECOND

ADDRESSES = {"one": "10.0.0.11", "two": "10.0.0.12", "three": "10.0.0.13"}  # as in the configuration
JOINING = ("four", "10.0.0.14")
CUT_SECONDS = 9
SLOW = {"vit_core/predictor.py": (BEGINS, BEGINS + b"        time.sleep(0.5)\n")}

pytestmark = pytest.mark.skipif(os.geteuid() != 0 or HAPROXY is None, reason="needs root, for networks of its own, and HAProxy")


def enlarged(edge: int) -> bytes:
    """A sample picture as a PNG of three bytes for each pixel."""
    written = io.BytesIO()
    pixels = np.asarray(Image.open(SAMPLES[0][0]).convert("RGB").resize((edge, edge)))
    Image.fromarray(pixels).save(written, "PNG", compress_level=0)
    return written.getvalue()


BODIES = [enlarged(130), enlarged(1000)]  # 50 kB and 3 MB


@pytest.fixture
def stack() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack


def unprotecting(text: str) -> str:
    """The configuration without retries, and asking the hosts in turns: a host that hangs goes on being asked."""
    assert "retry-on" in text and "redispatch" in text and "balance leastconn" in text
    text = text.replace("balance leastconn", "balance roundrobin")
    text = re.sub(r"^ *(retry-on|option redispatch).*$", "", text, flags=re.MULTILINE)
    return re.sub(r"retries \d+", "retries 0", text)


def phase(name: str, load: Load, since: float) -> None:
    """Prints what became of the requests of a phase: `pytest -s` shows it. None may be lost."""
    print(f"\n{name}: {load.figures(since)}", end="")
    assert load.lost == []


def test_nothing_is_lost_whatever_becomes_of_a_host(stack, digits_store, tmp_path):
    altered(digits_store, tmp_path / "second.mar", SECOND)
    altered(digits_store, tmp_path / "slow.mar", SECOND | SLOW)
    try:
        switch = Switch(stack)
    except OSError as error:
        pytest.skip(str(error))
    hosts = [Host(stack, switch, name, address, tmp_path) for name, address in ADDRESSES.items()]
    for host in hosts:
        host.start(digits_store / "digits.mar")
    proxy = start_proxy(stack, switch, CONFIG.read_text(), PROXY, tmp_path / "proxy")
    control = start_proxy(stack, switch, unprotecting(CONFIG.read_text()), CONTROL, tmp_path / "control")
    assert proxy.has(*ADDRESSES) and control.has(*ADDRESSES)

    known = [hosts[0].predict(body) for body in BODIES]
    assert known[0] and all(host.predict(body) == answer for host in hosts for body, answer in zip(BODIES, known, strict=True))
    precisions = {host.describe()["customizedMetadata"]["precision"] for host in hosts}
    assert len(precisions) == 1

    def check(which: int, answer: dict) -> None:
        assert between(answer, known[which], LAST_DIGITS) is None

    def ask(port: int) -> Load:
        load = Load(f"http://{SWITCH}:{port}/predictions/digits", BODIES, check, clients=8, pause=0.3, begin=switch.enter)
        stack.callback(load.stop)
        return load

    load, unprotected, begin = ask(PROXY), ask(CONTROL), time.monotonic()
    assert load.goes_on(150) and unprotected.goes_on()
    phase("nothing happens", load, begin)
    assert unprotected.lost == []

    begin = time.monotonic()
    for _ in range(3):  # without retries a cut loses a handful of so few requests, and by luck none
        with switch.cut("to-three"):
            assert proxy.has("one", "two")
            time.sleep(CUT_SECONDS)
        assert proxy.has(*ADDRESSES)
        assert load.goes_on()
        if unprotected.lost:
            break
    phase("one host cut off", load, begin)
    assert unprotected.lost
    print(f"; unprotected: {unprotected.figures(begin)}", end="")
    unprotected.stop()

    begin = time.monotonic()
    with hosts[1].hanging():
        assert proxy.has("one", "three")
        assert load.goes_on()
    assert proxy.has(*ADDRESSES)
    assert load.goes_on()
    phase("one host hangs", load, begin)

    begin = time.monotonic()
    for host in hosts:
        assert host.end() == 0
        host.start(tmp_path / "second.mar")
        assert proxy.has(*ADDRESSES)
    assert load.goes_on()
    phase("1.0 becomes 2.0, host by host", load, begin)
    assert {host.describe()["modelVersion"] for host in hosts} == {"2.0"}

    begin = time.monotonic()
    joining = Host(stack, switch, *JOINING, tmp_path)
    joining.start(tmp_path / "slow.mar")
    proxy.add(*JOINING)
    assert proxy.has(*ADDRESSES, joining.name)
    before = proxy.hosts()
    assert load.goes_on(150)
    given = {name: int(row["stot"]) - int(before[name]["stot"]) for name, row in proxy.hosts().items()}
    assert 0 < given.pop(joining.name) < min(given.values())
    phase("a fourth host, which is slow", load, begin)
