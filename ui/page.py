"""The page: its layout, and its events."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import gradio as gr

from serve.errors import ServeError
from ui import parts
from ui.asking import Asking, NotOffered

LOOK_AGAIN = 2  # seconds between two looks for a server where there is none
FONTS = ("system-ui", "sans-serif"), ("ui-monospace", "monospace")  # the reader's own: none is loaded
THEME = gr.themes.Soft(primary_hue="teal", secondary_hue="teal", neutral_hue="slate", font=FONTS[0], font_mono=FONTS[1])
CSS = Path(__file__).with_name("page.css").read_text()
FIRST = parts.line("The answer to a picture comes here.")
BUSY_MAP = parts.busy("Making the map")


def build(asking: Asking, samples: list[Path]) -> gr.Blocks:
    """Builds the page. `samples` are pictures to try."""
    with gr.Blocks(title="What does the model see?", analytics_enabled=False, fill_width=True) as page:
        # With a number each choice is a change, also that of the same file or label again.
        chosen = gr.State((0, None, 0))  # number, file that is asked about, the click's number
        target = gr.State((0, 0, None, 0))  # number, number of the file's choice, label that is explained, the click's number
        with gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=240):
                gr.Markdown("# What does the model see?")
                who = gr.HTML(elem_id="who")  # answers, or the reason why there are none
            model = gr.Dropdown(label="Model", visible=False, min_width=240)
        with gr.Row(equal_height=False):
            with gr.Column(min_width=240):
                gr.Markdown("## Picture")
                with gr.Group(elem_id="frame"):
                    picture = gr.HTML(elem_id="picture")
                    # Any file: what is no picture is refused by the server, which says why. gr.Image would decode it here.
                    uploaded = gr.File(show_label=False, label="Picture", elem_id="file")
                tried = gr.HTML(
                    parts.sample_buttons(samples), js_on_load=parts.SELECTS, elem_id="samples", visible=bool(samples)
                )
                about_files = gr.HTML(elem_id="about-files")
            with gr.Column(min_width=240):
                gr.Markdown("## Labels")
                labels = gr.HTML(FIRST, js_on_load=parts.SELECTS, elem_id="labels")
            with gr.Column(min_width=240):
                gr.Markdown("## Where the answer comes from")
                heat_map = gr.HTML(elem_id="heat-map")
        with gr.Column(visible=asking.index is not None):
            gr.Markdown("## Nearest pictures")
            nearest = gr.HTML('<ul class="nearest"></ul>', elem_id="nearest")

        def find(name: str | None) -> tuple[str, gr.Dropdown]:
            """Returns the chosen model if it is still served, else the first one, and the list to choose from."""
            names = asking.models()
            choices = {"choices": names, "visible": len(names) > 1}
            if name in names:  # its value stays as it is: another may have been chosen meanwhile
                return name, gr.Dropdown(**choices)
            return names[0], gr.Dropdown(**choices, value=names[0])

        def open_page(name: str | None) -> dict:
            try:
                name, choices = find(name)
                about = asking.about(name)
                told = {who: parts.line(about.who), about_files: parts.line(about.files)}
                return told | {model: choices, again: gr.Timer(active=False)}
            except ServeError as error:
                return {who: parts.note(error), again: gr.Timer(active=True)}

        def choose(file: str, before: tuple) -> dict:
            return {chosen: (before[0] + 1, file, before[2]), uploaded: None}

        # The requests of two quick clicks can overtake one another: the later click counts.
        def choose_sample(before: tuple, event: gr.EventData) -> tuple:
            return (before[0] + 1, str(samples[int(event.value)]), event.click) if event.click > before[-1] else before

        def choose_label(before: tuple, choice: tuple, event: gr.EventData) -> tuple:
            return (before[0] + 1, choice[0], event.value, event.click) if event.click > before[-1] else before

        def ask(choice: tuple[int, str | None, int], name: str | None) -> Iterator[dict]:
            """Shows each part of the answer as soon as it is there."""
            path = choice[1]
            if path is None:
                yield open_page(name)
                return
            image = parts.picture(parts.small(Path(path), parts.PREVIEW), Path(path).name)
            yield {picture: image, labels: parts.busy("Asking the model"), heat_map: "", nearest: ""}
            try:
                data = _read(path)
                name, choices = find(name)
                about = asking.about(name)
                yield {model: choices, who: parts.line(about.who), about_files: parts.line(about.files)}
                if about.head is None:
                    yield {labels: parts.note(NotOffered(f"There are no labels: {name} was exported to embed."))}
                else:
                    found = asking.labels(name, data)
                    yield {labels: parts.label_list(found, about.head != "none"), heat_map: BUSY_MAP}
            except ServeError as error:
                yield {labels: parts.note(error)}
                return
            yield {heat_map: explained(path, name, None)}
            if asking.index is None:
                return
            try:
                yield {nearest: parts.nearest_list(asking.nearest(name, data), asking.index.folder)}
            except ServeError as error:
                yield {nearest: parts.note(error)}

        def explained(path: str, name: str, label: str | None) -> str:
            try:
                target = "the first label" if label is None else label
                return parts.picture(asking.heat_map(name, _read(path), label), f"Where in the picture {target} comes from")
            except ServeError as error:
                return parts.note(error)

        def explain(choice: tuple[int, str, int], name: str | None, target: tuple[int, int, str, int]) -> Iterator:
            if target[1] != choice[0]:  # another picture was chosen meanwhile: the label belongs to the one before
                yield gr.skip()
                return
            yield BUSY_MAP  # the old map belongs to another label
            yield explained(choice[1], name, target[2])

        again = gr.Timer(LOOK_AGAIN, active=False)
        opened = [who, about_files, model, again]
        answered = [picture, labels, heat_map, nearest, *opened]
        hidden = {"api_visibility": "private", "show_progress": "hidden"}
        page.load(open_page, [model], opened, **hidden)
        again.tick(open_page, [model], opened, **hidden)
        uploaded.upload(choose, [uploaded, chosen], [chosen, uploaded], **hidden)
        # A choice is noted at once. What it leads to runs one after the other, and reads the last choice when it begins, so
        # that what is shown is of one picture and one model; of quick choices the ones between are left out.
        noted = hidden | {"trigger_mode": "multiple"}
        tried.select(choose_sample, [chosen], [chosen], **noted)
        labels.select(choose_label, [target, chosen], [target], **noted)
        in_turn = hidden | {"trigger_mode": "always_last", "concurrency_limit": 1, "concurrency_id": "asking"}
        gr.on([chosen.change, model.input], ask, [chosen, model], answered, **in_turn)
        target.change(explain, [chosen, model, target], [heat_map], **in_turn)
    return page


def _read(path: str) -> bytes:
    """Reads the uploaded file. Raises ServeError if it is empty, or gone: the system also tidies up such folders."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ServeError("The picture is no longer on this machine: choose it again.") from error
    if not data:
        raise ServeError("This file is empty.")
    return data
