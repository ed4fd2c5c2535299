"""The parts of the page as HTML: labels, pictures and notes. They escape names and sentences that come from elsewhere."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable
from pathlib import Path

from PIL import Image, ImageOps

from serve.errors import ServeError
from ui.asking import NotOffered

PREVIEW, THUMBNAIL = 640, 256  # pixels of the longer edge
LEAST_SHOWN = 0.0005  # a probability below it would be shown as 0.0 %

# A click on a button says which: `select`, with what its data-value holds, and how many clicks there have been.
SELECTS = """
element.addEventListener('click', event => {
    const button = event.target.closest('button[data-value]');
    if (!button) return;
    element.querySelectorAll('[aria-pressed]').forEach(each => each.setAttribute('aria-pressed', each === button));
    trigger('select', {value: button.dataset.value, click: window.clicks = (window.clicks ?? 0) + 1});
});
"""


def note(error: ServeError) -> str:
    """Says in its place what is missing and why. It is grey if the archive does not offer it, since nothing has failed."""
    said = str(error)[:1].upper() + str(error)[1:]
    quiet = " quiet" if isinstance(error, NotOffered) else ""
    return f'<p role="alert" class="note{quiet}">{html.escape(said)}</p>'


def busy(sentence: str) -> str:
    """Says what the page is waiting for."""
    return f'<p role="status" class="note quiet busy">{html.escape(sentence)}</p>'


def line(text: str) -> str:
    return f"<p>{html.escape(text)}</p>"


def label_list(scores: dict[str, float], probabilities: bool) -> str:
    """Makes a button for each label, which shows where the label's score comes from; the first label's map is shown at once.

    It leaves out probabilities that would read 0.0 %, except for the first one.
    """
    if not scores:
        return '<p class="note quiet">No label reaches its threshold.</p>'
    shown = {label: score for label, score in scores.items() if not probabilities or score >= LEAST_SHOWN}
    rows = [
        _label(label, score, probabilities, first=not index)
        for index, (label, score) in enumerate((shown or dict([next(iter(scores.items()))])).items())
    ]
    hint = "Choose a label to see where in the picture it comes from."
    return f'<ol class="labels">{"".join(rows)}</ol><p class="hint">{hint}</p>'


def _label(label: str, score: float, probabilities: bool, first: bool) -> str:
    if probabilities:
        said = f"{score:.1%}" if score >= LEAST_SHOWN else "under 0.1%"
        bar = f'<span class="share" style="width: {score:.1%}"></span>'
    else:
        said, bar = f"{score:.4g}", ""
    name = html.escape(label)
    pressed = "true" if first else "false"
    return (
        f'<li><button data-value="{name}" aria-pressed="{pressed}">{bar}<span>{name}</span>'
        f'<span class="score">{said}</span></button></li>'
    )


def picture(image: Image.Image | None, alt: str) -> str:
    """Returns a picture with a description for screen readers; nothing if it cannot be shown."""
    return f"<figure>{_image(image, alt)}</figure>" if image is not None else ""


def sample_buttons(files: Iterable[Path]) -> str:
    """Makes a button for each sample picture, numbered in order."""
    shown = [_image(small(file, THUMBNAIL // 2), f"Sample {file.name}") or html.escape(file.name) for file in files]
    buttons = [f'<button data-value="{place}">{each}</button>' for place, each in enumerate(shown)]
    group = f'<div class="samples" role="group" aria-label="Sample pictures">{"".join(buttons)}</div>'
    return f'<p class="hint">Or try one of these:</p>{group}'


def nearest_list(found: list[tuple[Path, float]], folder: Path) -> str:
    """Lists pictures of the index with their similarities, without those that cannot be read any more."""
    items = []
    for file, similarity in found:
        name = str(file.relative_to(folder))
        if (image := small(file, THUMBNAIL)) is not None:
            caption = f"<figcaption>{html.escape(name)} {similarity:.3f}</figcaption>"
            items.append(f"<li><figure>{_image(image, name)}{caption}</figure></li>")
    return f'<ul class="nearest">{"".join(items)}</ul>'


def small(file: Path, edge: int) -> Image.Image | None:
    """Returns the picture with edges of at most `edge`, in a format for browsers. None if it is gone or cannot be read."""
    try:
        image = ImageOps.exif_transpose(Image.open(file)).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    image.thumbnail((edge, edge))
    return image


def _image(image: Image.Image | None, alt: str) -> str:
    if image is None:
        return ""
    data = io.BytesIO()
    image.save(data, "PNG")
    return f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}">'
