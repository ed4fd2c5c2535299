"""The bytes of listed pictures, a few pictures ahead of whoever answers them."""

from __future__ import annotations

import collections
import itertools
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from predict.sources.item import Item
from predict.sources.places import is_url, opened, reason
from predict.sources.tables import parquet_package
from vit_core.bounds import check_bytes
from vit_core.errors import InputError
from vit_core.settings import Limits

# Files that are read at once and wait for their turn, 20 MB at most each: a bucket takes some 50 ms to answer, a disk none.
AHEAD, AHEAD_OF_BUCKETS = 8, 32
ROWS = 16  # of a table with pictures in it, that are in memory at once
BUFFER = 1 << 20  # bytes of a table's column that are read at once; else all of a row group's are


class Reader:
    """Reads items in order. Relative paths are meant from `folder`; files beyond the limits are not read."""

    def __init__(self, folder: str, limits: Limits):
        self._folder, self._limits = folder, limits
        self._threads = ThreadPoolExecutor(AHEAD_OF_BUCKETS)
        self._table: _Table | None = None

    def read(self, items: list[Item]) -> Iterator[bytes | InputError]:
        """The bytes of each item, or why there are none."""
        window: collections.deque = collections.deque()
        ahead = AHEAD_OF_BUCKETS if any(is_url(item.file) for item in items) else AHEAD
        for item in items:
            window.append(item if item.column else self._threads.submit(self._outcome, item))
            if len(window) == ahead:
                yield self._taken(window.popleft())
        while window:
            yield self._taken(window.popleft())

    def _taken(self, waiting) -> bytes | InputError:
        return self._row_outcome(waiting) if isinstance(waiting, Item) else waiting.result()

    def _outcome(self, item: Item) -> bytes | InputError:
        if item.error:
            kind, _, message = item.error.partition(": ")
            return InputError(400, kind, message)
        try:
            with opened(self._place(item.file)) as file:
                size = item.size if item.offset >= 0 else file.seek(0, os.SEEK_END)
                check_bytes(size, self._limits)
                file.seek(max(item.offset, 0))
                data = file.read(size)
                return data if len(data) == size else _unreadable("the file is cut off")
        except InputError as error:
            return error.with_traceback(None)
        except Exception as error:  # concerns one picture; raised by the system or by the bucket's package
            return _unreadable(reason(error))

    def _row_outcome(self, item: Item) -> bytes | InputError:
        try:
            data = self._row(item)
        except Exception as error:  # errors of pyarrow; the next row is read from a new reader
            self._table = None
            return _unreadable(reason(error))
        return _unreadable("the row has no bytes") if data is None else data

    def _row(self, item: Item) -> bytes | None:
        """The picture in a row of a Parquet. Rows come in order, mostly with gaps: the file stays open until a row is asked for
        that is before the last one, or in another row group, which is read from its start on."""
        if self._table is None or not self._table.reaches(item):
            self._table = _Table(self._place(item.file), item)
        return self._table.row(item.offset)

    def _place(self, path: str) -> str:
        return path if is_url(path) else os.path.join(self._folder, path)


class _Table:
    """The pictures of one row group of a Parquet, from its start on, those of a few rows in memory at a time."""

    def __init__(self, place: str, item: Item):
        self._key, self._values = (item.file, item.column), self._read(place, item)
        self._next, self._end = next(self._values)

    def reaches(self, item: Item) -> bool:
        return self._key == (item.file, item.column) and self._next <= item.offset < self._end

    def row(self, row: int) -> bytes | None:
        value = next(itertools.islice(self._values, row - self._next, None)).as_py()
        self._next = row + 1
        return value.get("bytes") if isinstance(value, dict) else value

    def _read(self, place: str, item: Item) -> Iterator:
        """The first and the last row of the item's group; then the values of its rows."""
        with opened(place) as file, parquet_package().ParquetFile(file, buffer_size=BUFFER) as table:
            first = 0
            for group in range(table.metadata.num_row_groups):
                end = first + table.metadata.row_group(group).num_rows
                if item.offset < end:
                    break
                first = end
            yield first, end
            for batch in table.iter_batches(ROWS, row_groups=[group], columns=[item.column], use_threads=False):
                yield from batch.column(0)


def _unreadable(reason: str) -> InputError:
    return InputError(400, "UnreadableFile", reason)
