"""Templates to self-contained HTML: every value from data is escaped, pictures are embedded, nothing is loaded."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from mpo.cache.artifacts import write_text
from mpo.track.units import duration, memory, number


def write_page(path: Path, template: str, **values: Any) -> Path:
    """Renders a template of this package's ``templates/`` to ``path``."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(duration=duration, memory=memory, number=number, png=_png)
    write_text(path, environment.get_template(template).render(**values))
    return path


def _png(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")
