"""What the benchmarks compute from what they measure, and that they pause what they do not measure."""

import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psutil
import pytest

from benchmarks import report, stages, subject, ways
from benchmarks.load import per_second, percentile, post
from benchmarks.names import ALONE, LITSERVE, OPENVINO, OURS, STOCK
from benchmarks.turns import paused
from vit_core.archive import SECTION

METRICS = """# TYPE PreprocessSeconds histogram
PreprocessSeconds_bucket{{ModelName="xray",Level="Model",Hostname="h",le="0.005",}} 1.0
PreprocessSeconds_sum{{ModelName="xray",Level="Model",Hostname="h",}} {0}
InferenceSeconds_sum{{ModelName="xray",Level="Model",Hostname="h",}} {1}
PostprocessSeconds_sum{{ModelName="xray",Level="Model",Hostname="h",}} {2}
InferenceSeconds_sum{{ModelName="xray-2",Level="Model",Hostname="h",}} 99.0
BatchSize_count{{ModelName="xray",Level="Model",Hostname="h",}} {3}
BatchSize_sum{{ModelName="xray",Level="Model",Hostname="h",}} {4}
ts_queue_latency_microseconds{{model_name="xray",model_version="default",hostname="h",}} {5}
ts_inference_requests_total{{model_name="xray",model_version="default",hostname="h",}} {4}
"""


def test_the_rate_of_answers_that_come_in_batches():
    times = [second + millisecond / 1e3 for second in range(1, 8) for millisecond in range(8)]
    assert per_second(times, 1.5, 5.9) == pytest.approx(8)
    assert per_second(times, 1.5, 6.1) == pytest.approx(8)


def test_percentiles():
    assert percentile([3, 1, 2], 0.5) == 2
    assert percentile(list(range(1, 101)), 0.99) == 99
    assert percentile([5], 0.99) == 5


def test_a_load_counts_what_is_not_answered():
    class Answers(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200 if body == b"good" else 503)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/"
        good = post(url, {}, [b"good"], clients=4, seconds=0.2, warm_up=0.1)
        mixed = post(url, {}, [b"good", b"bad"], clients=2, seconds=0.2, warm_up=0.1)
        server.shutdown()
    assert good.errors == 0 and good.per_second > 10 and good.span > 0.3
    assert 0 < max(good.latencies) < 1
    assert mixed.errors > 0


def test_where_the_time_goes():
    before = stages.parse(METRICS.format(1, 10, 0.1, 5, 20, 1_000), "xray")
    after = stages.parse(METRICS.format(2, 14, 0.2, 10, 60, 81_000), "xray")
    counted = stages.gained(before, after)
    found = stages.milliseconds_per_image(counted, worker_seconds=6)
    assert found == {"preprocessing": 25, "model": 100, "postprocessing": 2.5, "rest": 22.5}
    assert stages.mean_batch_size(counted) == 8
    assert stages.queue_milliseconds(counted) == 2


def served(*rates: float) -> dict:
    figures = [{"images_per_second": rate, "p50_ms": 200.0, "p99_ms": 300.0} for rate in rates]
    return dict(zip((1, 8, 16, 32), figures, strict=True))


def test_ratios_of_what_is_there():
    bare = {ALONE: {"batch 1": 8.0, "batch 8": 10.0}, OPENVINO: {"batch 1": 8.0, "batch 8": 12.5}}
    found = report.ratios({OURS: served(6, 8, 9, 9.6), STOCK: served(3, 4, 4, 4)}, bare, 8)
    assert found == {
        "served at 16 clients, times TorchServe image_classifier": 2.25,
        "its model alone, batch 8, times OpenVINO": 0.8,
        "served at 32 clients, share of its model alone": 0.96,
        "median latency of 1 client above its model alone, ms": 75,
        "served at 8 clients, share of 32 clients": 0.833,
    }


def test_the_tables_say_what_is_left_out_and_who_disturbed():
    stage = {"preprocessing": 2.0, "model": 100.0, "postprocessing": 0.01, "rest": 3.0}
    results = {
        "served": {OURS: served(6, 8, 9, 9.6)},
        "in_process": {ALONE: {"runs_in": {"precision": "bf16", "fused": True}, "batch 1": 8.0, "batch 8": 10.0}},
        "stages_ms_per_image": dict.fromkeys((1, 8, 16, 32), stage),
        "mean_batch_size": dict.fromkeys((1, 8, 16, 32), 7.5),
        "ratios": {"served at 8 clients, share of 32 clients": 0.833},
        "left_out": {LITSERVE: "runs the eager model"},
        "stock_handler": "image_classifier",
        "batch_size": 8,
        "machine": {"cores": 2, "cores_used_by_others": [0.01, 0.9]},
    }
    text = report.tables(results)
    assert "| this project | 6 (300) | 8 (300) | 9 (300) | 9.6 (300) |" in text
    assert "| its model alone | bf16, fused | 8 | 10 |" in text
    assert "- LitServe left out: runs the eager model" in text
    assert "0.90 cores" in text


def test_the_way_of_the_rule_beside_the_fastest():
    runs = [("fp32", False, 2, 9.0), ("fp32", True, 2, None), ("bf16", False, 2, 4.0), ("bf16", False, 1, 6.0)]
    found = {
        "gflop_per_image": 0.4,
        "rule": {"precision": "bf16", "fused": False, "threads": 1, "rule": "bf16; one thread"},
        "ways": [
            {"precision": precision, "fused": fused, "threads": threads}
            | ({"ms": {"1": ms / 4, "8": ms}} if ms else {"fails": "oneDNN does not take this model"})
            for precision, fused, threads, ms in runs
        ],
    }
    judged = ways.judged(found)
    assert judged["rule"] == {"way": "bf16, 1 thread", "why": "bf16; one thread", "ms": 6.0}
    assert judged["fastest"] == {"way": "bf16, 2 threads", "ms": 4.0}
    assert judged["ratio"] == 1.5
    assert ways.table({"digits": judged}).splitlines() == [
        "| ms at batch 8 | fp32 | fp32, fused | bf16 | rule, times the fastest |",
        "| --- | --- | --- | --- | --- |",
        "| digits, 2 threads | 9 | fails | 4 |  |",
        "| digits, 1 thread |  |  | **6** | 1.50 |",
    ]


def test_an_archive_with_other_settings_and_what_is_served_beside_it(digits_store, tmp_path):
    model = subject.from_archive(digits_store / "digits.mar", None, 2, tmp_path)
    assert (model.serving.min_workers, model.serving.max_workers, model.serving.batch_size) == (2, 2, 4)
    assert (model.name, model.served_as, model.classes, model.embeds) == ("digits", "digits", 10, False)
    assert subject.stock_handler(model) == (
        "image_classifier with a transform to 3 x 48 x 48 and a share of the cores for each worker"
    )
    assert SECTION not in subject.serving_config(model)
    assert sorted(file.name for file in tmp_path.glob("*.mar")) == [
        "digits.mar",
        f"{subject.EMPTY_NAME}.mar",
        f"{subject.STOCK_NAME}.mar",
    ]


def test_what_is_no_archive_is_said_in_one_line(tmp_path):
    (tmp_path / "broken.mar").write_text("text")
    with pytest.raises(SystemExit, match=r"^bench: .*broken\.mar is no archive of this project"):
        subject.from_archive(tmp_path / "broken.mar", None, None, tmp_path)


def test_a_tree_of_processes_runs_in_its_turn_alone():
    child = "import time; time.sleep(60)"
    parent = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {child!r}]).wait()"
    process = subprocess.Popen([sys.executable, "-c", parent])
    try:
        while not (children := psutil.Process(process.pid).children()):
            time.sleep(0.01)
        both = [psutil.Process(process.pid), *children]

        def stopped() -> list[bool]:
            return [each.status() == psutil.STATUS_STOPPED for each in both]

        with paused(process.pid) as turn:
            assert stopped() == [True, True]
            with turn:
                assert stopped() == [False, False]
            assert stopped() == [True, True]
        assert stopped() == [False, False]
    finally:
        for each in (*children, process):
            each.kill()
        process.wait()
