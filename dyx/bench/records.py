"""Records of benchmarks as files: JSON that says what kind of record it is, and by which schema."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from dyx.errors import DyxError, RecordUnreadable

_Record = TypeVar("_Record")
_NOT_WHOLE = (DyxError, KeyError, TypeError, ValueError, AttributeError)


def read_json_record(path: Path, readers: Mapping[tuple[str, int], Callable[[Mapping[str, Any]], _Record]]) -> _Record:
    """What a record holds.

    Args:
        path: Of the file.
        readers: Kind and schema to the function that reads such an entry.

    Raises RecordUnreadable where it is no JSON, of another kind or schema, or not whole.
    """
    try:
        entry: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecordUnreadable(path, f"it is no JSON that can be read ({error})") from error
    kind, schema = (entry.get("kind"), entry.get("schema")) if isinstance(entry, Mapping) else (None, None)
    read = readers.get((str(kind), schema)) if isinstance(schema, int) else None
    if read is None:
        known = " or ".join(f"{kind} schema {schema}" for kind, schema in readers)
        raise RecordUnreadable(
            path, f"it holds {f'{kind} schema {schema}' if kind else 'no kind of record'}, not {known}"
        )
    try:
        return read(entry)
    except _NOT_WHOLE as error:
        raise RecordUnreadable(path, f"its {kind} is not whole ({type(error).__name__}: {error})") from error
