"""Which pictures are meant by the sources that a user names."""

from __future__ import annotations

from collections.abc import Iterator

from command_line import UserError
from predict.pictures import SUFFIXES
from predict.sources import tables, tars
from predict.sources.item import Item
from predict.sources.places import expand, is_pattern, kind, named_as, reason, walk

TARS, PARQUETS, CSVS, TEXTS = (".tar",), (".parquet", ".pq"), (".csv",), (".txt", ".lst")
CONTAINERS = (*TARS, *PARQUETS, *CSVS, *TEXTS)
PACKED = (".gz", ".tgz", ".bz2", ".xz", ".zst", ".zip")


def places(sources: list[str]) -> list[tuple[str, str]]:
    """What the sources name, as (place, `file` or `folder`), with patterns as what they match. Raises UserError for one that is
    not there."""
    found = []
    for source in sources:
        known = kind(source)
        if known:
            found.append((source, known))
        elif is_pattern(source):
            matches = expand(source)
            if not matches:
                raise UserError(f"nothing matches {source}")
            found += [(match, kind(match) or "file") for match in matches]  # one that is not there is a row with an error
        else:
            raise UserError(f"there is no file or folder {source}")
    for place, _ in found:
        if named_as(place, PACKED):
            raise UserError(f"{place} is compressed, and pictures cannot be read from anywhere in it: unpack it first")
    return found


def listed(found: list[tuple[str, str]]) -> Iterator[Item]:
    """The pictures of `places`, in order, and within a folder sorted. Nothing is read of pictures themselves.

    A place that cannot be listed is one item with its error. Raises UserError for a table whose columns are not clear.
    """
    for place, known in found:
        if known == "folder":
            for path, error in walk(place):
                if error:
                    yield Item(path, error=f"UnreadableFolder: {error}")
                elif named_as(path, SUFFIXES):
                    yield Item(path, path)
        elif named_as(place, CONTAINERS):
            yield from _contained(place)
        else:
            yield Item(place, place)


def _contained(place: str) -> Iterator[Item]:
    if named_as(place, TARS):
        yield from tars.members(place)
        return
    read = tables.of_parquet if named_as(place, PARQUETS) else tables.of_csv if named_as(place, CSVS) else tables.of_text
    try:
        for each in read(place):
            yield each if isinstance(each, Item) else Item(each, each)
    except UserError:
        raise
    except Exception as error:  # errors of pyarrow, csv, the system, or the bucket's package
        yield Item(place, error=f"UnreadableList: {reason(error)}")
