"""Chooses the content type of an answer by the request's Accept header (RFC 9110, 12.5.1)."""

from __future__ import annotations

import re
from collections.abc import Sequence

_QUALITY = re.compile(r";\s*q\s*=\s*(0(\.\d*)?|1(\.0*)?)\s*(;|$)", re.IGNORECASE)


def best(accept: str, offers: Sequence[str]) -> str | None:
    """Returns the offer that the header prefers, the first one if there is no header, or None if the header accepts none.

    Among offers of the same quality, an offer that the header names wins over one that only matches `image/*` or `*/*`. The
    order in the header decides next, and the order of the offers last.
    """
    ranges = {}
    for place, each in enumerate(accept.split(",")):
        name = each.split(";")[0].strip().lower()
        quality = _QUALITY.search(each)
        if name:
            ranges.setdefault(name, (float(quality[1]) if quality else 1.0, place))
    if not ranges:
        return offers[0]
    found = []
    for offer in offers:
        kinds = (offer, f"{offer.split('/')[0]}/*", "*/*")  # the most specific range in the header decides
        specific = next((index for index, kind in enumerate(kinds) if kind in ranges), None)
        if specific is not None:
            quality, place = ranges[kinds[specific]]
            found.append((quality, -specific, -place, offer))
    # `max` takes the first of equal ones: the offer itself is not compared.
    quality, *_, offer = max(found, key=lambda each: each[:3], default=(0, None))
    return offer if quality > 0 else None
