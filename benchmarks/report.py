"""What was measured, as Markdown tables, as plots, and as the ratios that one asks for."""

from __future__ import annotations

import math
from pathlib import Path

from benchmarks.names import ALONE, COMPILED, EMPTY, LITSERVE, LITSERVE_TRACE, ONNX, OPENVINO, OURS, STOCK
from benchmarks.stages import REST, STAGES

# Share of the cores: a model whose threads wait for each other loses far more than what others take.
DISTURBED = 0.05
# stage → colour and label of its bars.
STYLES = dict(zip(STAGES, [("#4c9f70", "preprocessing"), ("#2f6db3", "model"), ("#b3542f", "postprocessing")], strict=True))
STYLES[REST] = ("#d0d0d0", "front end, transport, waiting")


def tables(results: dict) -> str:
    """What was served, what ran in process, the stages of a request, the ratios, and what was left out."""
    served, bare, stages, batch = (results[key] for key in ("served", "in_process", "stages_ms_per_image", "batch_size"))
    numbers = [_clients(count) for count in stages]
    lines = _head("served, images/s (p99 ms)", *numbers)
    for name, found in served.items():
        lines.append(
            _row(name, *(f"{three_digits(each['images_per_second'])} ({each['p99_ms']:.0f})" for each in found.values()))
        )
    lines += ["", *_head("in process, images/s", "runs in", "batch 1", f"batch {batch}")]
    for name, found in bare.items():
        lines.append(
            _row(name, _ways(found["runs_in"]), f"{three_digits(found['batch 1'])}", f"{three_digits(found[f'batch {batch}'])}")
        )
    lines += ["", *_head("this project, ms per image", *numbers)]
    lines += [_row(stage, *(f"{three_digits(found[stage])}" for found in stages.values())) for stage in STYLES]
    lines += [_row("images in a batch", *map(str, results["mean_batch_size"].values())), ""]
    lines += [f"- {name}: {three_digits(value)}" for name, value in results["ratios"].items()]
    lines += [f"- {name} left out: {reason}" for name, reason in results["left_out"].items()]
    if STOCK in served and results["stock_handler"] != "image_classifier":
        lines.append(f"- {STOCK}: {results['stock_handler']}")
    if (busy := max(results["machine"]["cores_used_by_others"])) > DISTURBED * results["machine"]["cores"]:
        lines.append(f"- other programs kept {busy:.2f} cores busy in one of the rounds: measure again")
    return "\n".join(lines)


def ratios(served: dict[str, dict], bare: dict[str, dict], batch: int) -> dict[str, float]:
    """What the figures say of this project against the others, and against its own model: those of which both are there."""
    ours, numbers = served[OURS], list(served[OURS])
    few, many, most = numbers[min(1, len(numbers) - 1)], numbers[max(0, len(numbers) - 2)], numbers[-1]
    found = {}
    for peer in (STOCK, LITSERVE, LITSERVE_TRACE):
        if peer in served:
            rate = served[peer][many]["images_per_second"]
            found[f"served at {_clients(many)}, times {peer}"] = ours[many]["images_per_second"] / rate
    if ALONE in bare:
        rate = bare[ALONE][f"batch {batch}"]
        for peer in (OPENVINO, ONNX, COMPILED):
            if peer in bare:
                found[f"{ALONE}, batch {batch}, times {peer}"] = rate / bare[peer][f"batch {batch}"]
        found[f"served at {_clients(most)}, share of {ALONE}"] = ours[most]["images_per_second"] / rate
        if 1 in ours:
            found[f"median latency of 1 client above {ALONE}, ms"] = ours[1]["p50_ms"] - 1e3 / bare[ALONE]["batch 1"]
    if EMPTY in served:
        share = ours[most]["images_per_second"] / served[EMPTY][most]["images_per_second"]
        found[f"served at {_clients(most)}, share of {EMPTY}"] = share
    if few != most:
        share = ours[few]["images_per_second"] / ours[most]["images_per_second"]
        found[f"served at {_clients(few)}, share of {_clients(most)}"] = share
    return {name: round(value, 3) for name, value in found.items()}


def plot(results: dict, path: Path) -> None:
    """Images per second and the 99th percentile of the latency, over the clients."""
    pyplot = _pyplot()
    from matplotlib.ticker import LogLocator

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4))
    shown = {name: found for name, found in results["served"].items() if name != EMPTY}  # it would flatten the others
    for name, found in shown.items():
        clients = list(found)
        left.plot(clients, [each["images_per_second"] for each in found.values()], marker="o", label=name)
        right.plot(clients, [each["p99_ms"] / 1e3 for each in found.values()], marker="o")
    batch = f"batch {results['batch_size']}"
    rate = results["in_process"].get(ALONE, {}).get(batch, math.inf)
    if rate < 2 * left.get_ylim()[1]:  # where pictures cost far more than the model, a line up there would flatten the curves
        left.axhline(rate, linestyle=":", color="grey", label=f"{ALONE}, {batch}")
    left.set(xlabel="clients", ylabel="images per second", ylim=(0, None))
    right.set(xlabel="clients", ylabel="99 % are answered within, s", yscale="log")
    right.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    right.yaxis.set_major_formatter("{x:g}")
    for axes in (left, right):
        axes.set_xscale("log", base=2)
        axes.set_xticks(clients, clients)
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    figure.legend(loc="upper center", ncols=4, frameon=False)
    _save(figure, path)


def plot_stages(results: dict, path: Path) -> None:
    """The milliseconds of the worker's time that an image takes, by stage: a bar for each number of clients."""
    pyplot = _pyplot()
    stages, sizes = results["stages_ms_per_image"], results["mean_batch_size"]
    rows = [f"{_clients(count)}\nbatches of {sizes[count]:g}" for count in stages]
    figure, axes = pyplot.subplots(figsize=(10, 1.4 + 0.6 * len(rows)))
    widest, left = max(sum(found.values()) for found in stages.values()), [0.0] * len(rows)
    for stage, (colour, label) in STYLES.items():
        widths = [found[stage] for found in stages.values()]
        bars = axes.barh(rows, widths, left=left, height=0.62, color=colour, label=label)
        texts = [f"{width:.3g}" if width > 0.05 * widest else "" for width in widths]
        axes.bar_label(bars, texts, label_type="center", color="black" if stage == REST else "white", fontsize=9)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    for row, total in enumerate(left):
        axes.annotate(f"{total:.3g}", (total, row), (4, 0), textcoords="offset points", va="center", weight="bold")
    axes.invert_yaxis()
    axes.set(xlabel="ms of a worker's time for each image", xlim=(0, 1.06 * widest))
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="upper center", ncols=4, frameon=False)
    _save(figure, path)


def _pyplot():
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def _save(figure, path: Path) -> None:
    height = figure.get_size_inches()[1]
    figure.tight_layout(rect=(0, 0, 1, 1 - 0.35 / height))
    figure.savefig(path, dpi=110)


def three_digits(number: float) -> str:
    return f"{number:.3g}" if abs(number) < 1000 else f"{number:.0f}"  # and no exponent


def _clients(count: int) -> str:
    return f"{count} client{'s' * (count > 1)}"


def _ways(runs_in: dict) -> str:
    """{"precision": "bf16", "fused": True} as "bf16, fused"."""
    return ", ".join(key if value is True else str(value) for key, value in runs_in.items() if value is not False)


def _head(*cells: str) -> list[str]:
    return [_row(*cells), _row(*["---"] * len(cells))]


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
