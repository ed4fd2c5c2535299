"""The page: its parts, and what they do."""

from __future__ import annotations

import html
from collections.abc import Iterator
from pathlib import Path

import gradio as gr
from PIL import Image, ImageOps

from serve.errors import ServeError
from ui.asking import NEAREST, Asking, NotOffered

PREVIEW, THUMBNAIL = 640, 256  # pixels of the longer edge
LEAST_SHOWN = 0.005  # a probability below it would be shown as 0 %
LOOK_AGAIN = 2  # seconds between two looks for a server where there is none
FONTS = ("system-ui", "sans-serif"), ("ui-monospace", "monospace")  # the reader's own: none is loaded
THEME = gr.themes.Soft(primary_hue="teal", secondary_hue="teal", neutral_hue="slate", font=FONTS[0], font_mono=FONTS[1])
CSS = """
.gradio-container { max-width: 1160px !important; margin: 0 auto !important; }
.note p { margin: 0; padding: 0.6em 0.9em; border: 1px solid var(--error-border-color); border-radius: var(--radius-md);
          background: var(--error-background-fill); color: var(--error-text-color); }
.note p.quiet { border-color: var(--border-color-primary); background: var(--background-fill-secondary); color: inherit; }
#picture img, #heat-map img { width: 100%; height: 100%; object-fit: contain; }  /* small ones are enlarged */
#labels .bar { height: 0.7em; border-radius: 0.35em; }
#nearest .empty { min-height: 8em; }
#nearest .grid-wrap { min-height: 8em; height: auto !important; max-height: none; overflow: hidden; }
#nearest .thumbnail-item { padding-bottom: 2em; }
#nearest .caption-label { inset: auto 0 0 0; max-width: none; font-size: 0.8em; text-align: center; border: 0; }
"""


def build(asking: Asking) -> gr.Blocks:
    silent = {"show_label": False, "interactive": False, "buttons": []}
    with gr.Blocks(title="What does the model see?", analytics_enabled=False, fill_width=True) as page:
        gr.Markdown("## What does the model see?")
        trouble = gr.HTML(padding=False, elem_classes="note", elem_id="trouble", visible=False)
        with gr.Row():
            with gr.Column(min_width=240):
                gr.Markdown("### Picture")
                # Any file: what is no picture is refused by the server, which says why. gr.Image would decode it here.
                file = gr.File(show_label=False, height=120)
                model = gr.Dropdown(label="Model", visible=False)
                picture = gr.Image(**silent, height=234, elem_id="picture", visible=False)
            with gr.Column(min_width=240):
                gr.Markdown("### Where the answer comes from")
                no_heat_map = gr.HTML(padding=False, elem_classes="note", elem_id="no-heat-map", visible=False)
                heat_map = gr.Image(**silent, height=370, elem_id="heat-map")
            with gr.Column(min_width=240):
                gr.Markdown("### Labels")
                labels = gr.Label(show_label=False, elem_id="labels")
                scores = gr.HTML(elem_id="scores", visible=False)  # gr.Label shows percentages alone
                answers = gr.Markdown(elem_id="answers")  # who gave them
                gr.Markdown("Choose a label to see where in the picture it comes from.", elem_id="hint")
        with gr.Column(visible=asking.index is not None):
            gr.Markdown("### Nearest pictures")
            nearest = gr.Gallery(
                show_label=False, columns=NEAREST, height="auto", object_fit="contain", buttons=[], elem_id="nearest"
            )
            no_nearest = gr.HTML(padding=False, elem_classes="note", elem_id="no-nearest", visible=False)

        def choice(name: str | None) -> tuple[str, gr.Dropdown]:
            """Of the models that are served now the one that was chosen, else the first, and the list to choose from."""
            names = asking.models()
            chosen = name if name in names else names[0]
            return chosen, gr.Dropdown(names, value=chosen, visible=len(names) > 1)

        def open_page(name: str | None) -> dict:
            try:
                chosen, choices = choice(name)
                return {model: choices, answers: asking.about(chosen)[1], trouble: _note(None), again: gr.Timer(active=False)}
            except ServeError as error:
                return {trouble: _note(error), again: gr.Timer(active=True)}

        def ask(path: str | None, name: str | None) -> Iterator[dict]:
            """Shows each part of the answer as soon as it is there."""
            yield {
                labels: gr.Label(None, visible=True),
                scores: gr.HTML(visible=False),
                heat_map: gr.Image(None, visible=True),
                picture: gr.Image(visible=False),
                nearest: None,
                **{note: _note(None) for note in (trouble, no_heat_map, no_nearest)},
            }
            if path is None:
                return
            try:
                image = _read(path)
                name, choices = choice(name)
                head, who = asking.about(name)
                yield {model: choices, answers: who}
                found = asking.labels(name, image) if head else {}
                shown = {label: score for label, score in found.items() if score >= LEAST_SHOWN}
                if head == "none" or (found and not shown):
                    yield {labels: gr.Label(visible=False), scores: _table(found)}
                elif head:
                    yield {labels: shown}
            except ServeError as error:
                yield {trouble: _note(error)}
                return
            yield {picture: gr.Image(_small(Path(path), PREVIEW), visible=True)}
            yield explain(path, name, None)
            if asking.index is None:
                return
            try:
                found = asking.nearest(name, image)
                yield {nearest: _captioned(found, asking.index.folder)}
            except ServeError as error:
                yield {no_nearest: _note(error)}

        def explain(path: str | None, name: str, label: str | None) -> dict:
            if path is None:
                return {heat_map: None}
            try:
                found = asking.heat_map(name, _read(path), label)
                return {heat_map: gr.Image(found, visible=True), no_heat_map: _note(None)}
            except ServeError as error:
                return {heat_map: gr.Image(None, visible=False), no_heat_map: _note(error)}

        def explain_chosen(path: str | None, name: str, chosen: gr.SelectData) -> Iterator[dict]:
            yield {heat_map: gr.Image(None, visible=True), no_heat_map: _note(None)}  # the old map is of another label
            yield explain(path, name, chosen.value)

        again = gr.Timer(LOOK_AGAIN, active=False)
        parts = [trouble, model, picture, heat_map, no_heat_map, labels, scores, answers, nearest, no_nearest]
        hidden = {"api_visibility": "private", "show_progress": "hidden"}
        page.load(open_page, [model], [model, answers, trouble, again], **hidden)
        again.tick(open_page, [model], [model, answers, trouble, again], **hidden)
        file.change(ask, [file, model], parts, **hidden)
        # Of quick choices the last one is followed.
        model.input(ask, [file, model], parts, trigger_mode="always_last", **hidden)
        working = hidden | {"show_progress": "full", "show_progress_on": heat_map}
        labels.select(explain_chosen, [file, model], [heat_map, no_heat_map], trigger_mode="always_last", **working)
    return page


def _read(path: str) -> bytes:
    """The file that was uploaded. Raises ServeError if it is gone: such folders are tidied up, by the system too."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ServeError("The picture is no longer on this machine: choose it again.") from error


def _note(error: ServeError | None) -> gr.HTML:
    """A sentence where something is missing; nothing else."""
    said = str(error)[:1].upper() + str(error)[1:] if error else ""
    quiet = ' class="quiet"' if isinstance(error, NotOffered) else ""
    return gr.HTML(f'<p role="alert"{quiet}>{html.escape(said)}</p>' if error else "", visible=error is not None, padding=False)


def _table(scores: dict[str, float]) -> gr.HTML:
    """Scores that are no probabilities, a row for each label."""
    rows = "".join(f"<tr><td>{html.escape(label)}</td><td>{score:.4g}</td></tr>" for label, score in scores.items())
    return gr.HTML(f"<table>{rows}</table>", visible=True)


def _small(file: Path, edge: int) -> Image.Image | None:
    """The picture, no larger than `edge`, as browsers can show it. None if it is gone or cannot be read here."""
    try:
        image = ImageOps.exif_transpose(Image.open(file)).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    image.thumbnail((edge, edge))
    return image


def _captioned(found: list[tuple[Path, float]], folder: Path) -> list[tuple[Image.Image, str]]:
    small = [(_small(file, THUMBNAIL), f"{file.relative_to(folder)}  {similarity:.3f}") for file, similarity in found]
    return [(image, caption) for image, caption in small if image is not None]
