"""The pictures in a tar, as webdataset has them: their places in it, so that any worker reads any of them."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator

from predict.pictures import SUFFIXES
from predict.sources.item import Item
from predict.sources.places import named_as, opened, reason


def members(tar: str) -> Iterator[Item]:
    """The members whose names end as those of pictures do; last, where the tar is damaged, an item that says so."""
    try:
        with opened(tar) as file, tarfile.open(fileobj=file, mode="r:") as archive:
            while (member := archive.next()) is not None:
                archive.members.clear()  # tarfile keeps all members that it has seen
                hidden = any(part.startswith(".") and part not in (".", "..") for part in member.name.split("/"))
                if member.isreg() and not member.issparse() and not hidden and named_as(member.name, SUFFIXES):
                    yield Item(f"{tar}/{member.name}", tar, member.offset_data, member.size)
    except Exception as error:  # errors of tarfile, the system, or the bucket's package
        yield Item(tar, error=f"BrokenTar: {reason(error)}")
