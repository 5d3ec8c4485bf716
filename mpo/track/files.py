"""Small files that readers may open at any moment."""

from __future__ import annotations

import os
from pathlib import Path


def replace_text(path: Path, text: str) -> None:
    """Writes ``text`` to ``path`` so that a reader sees the old content or the new one, never a part.

    The parent folder is created where it is missing. For one writer a path: the temporary name is fixed by process.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
