"""Files that are whole or not there."""

from __future__ import annotations

import uuid
from pathlib import Path


def write_whole(path: Path, content: str | bytes) -> None:
    """Write under another name and rename, so that no reader meets half of a file and no failure leaves any.

    The other name is this call's own: several threads and processes may write one file. Halves of surrogate pairs, as
    in names of files that are not UTF-8, are written escaped.

    Raises:
        OSError: It cannot be written; the error names `path`.
    """
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        temporary.write_bytes(content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content)
        temporary.replace(path)
    except OSError as error:
        if error.errno is not None:  # else it has a sentence of its own
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)
