"""The formats of the output: each writes the rows of a part, and joins all parts to one file."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import BinaryIO

from predict.rows import EMBEDDING, LABEL, LABELS, SCORE, SCORES, columns
from predict.sources.tables import parquet_package

BLOCK = 1 << 20  # bytes that are copied at once
# Bytes of parts that become one row group of a Parquet: a reader takes one at a time, and a file of thousands is slow to open.
ROW_GROUP = 32 << 20


class JsonLines:
    """A line of JSON for each row."""

    def __init__(self, tasks: Sequence[str]):
        self._columns = columns(tasks)

    def encode(self, rows: list[dict]) -> bytes:
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()

    def merge(self, parts: Iterable[Path], file: BinaryIO) -> None:
        file.write(self._head())
        for part in parts:
            with part.open("rb") as opened:
                shutil.copyfileobj(opened, file, BLOCK)

    def _head(self) -> bytes:
        return b""


class Csv(JsonLines):
    """A header, and a line for each row. Lists are JSON."""

    def encode(self, rows: list[dict]) -> bytes:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        for row in rows:
            writer.writerow([json.dumps(cell, ensure_ascii=False) if isinstance(cell, list) else cell for cell in row.values()])
        return text.getvalue().encode()

    def _head(self) -> bytes:
        return (",".join(self._columns) + "\n").encode()


class Parquet:
    """A table in which numbers are float32, as the model returns them."""

    def __init__(self, tasks: Sequence[str]):
        self._parquet = parquet_package()
        import pyarrow

        self._arrow, text, number = pyarrow, pyarrow.string(), pyarrow.float32()
        kinds = {"id": pyarrow.int64(), "path": text, "error": text, LABEL: text, SCORE: number}
        kinds |= {LABELS: pyarrow.list_(text), SCORES: pyarrow.list_(number), EMBEDDING: pyarrow.list_(number)}
        self._schema = pyarrow.schema([(name, kinds[name]) for name in columns(tasks)])

    def encode(self, rows: list[dict]) -> bytes:
        file = io.BytesIO()
        self._parquet.write_table(self._arrow.Table.from_pylist(rows, self._schema), file)
        return file.getvalue()

    def merge(self, parts: Iterable[Path], file: BinaryIO) -> None:
        waiting, size = [], 0
        with self._parquet.ParquetWriter(file, self._schema) as whole:
            for part in parts:
                waiting.append(self._parquet.read_table(part))
                size += waiting[-1].nbytes
                if size >= ROW_GROUP:
                    whole.write_table(self._arrow.concat_tables(waiting))
                    waiting, size = [], 0
            if waiting:
                whole.write_table(self._arrow.concat_tables(waiting))


FORMATS = {".parquet": Parquet, ".csv": Csv, ".jsonl": JsonLines}
