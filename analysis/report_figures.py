"""Figures inside a page: as data of their own, with a size, so that nothing moves as they load."""

from __future__ import annotations

import base64
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from analysis.report_captions import FIGURES, parted
from histpert.errors import InputError

__all__ = ["ReportFigure", "report_figures"]

LARGEST_SVG = 300_000
"""Bytes; of a larger drawing the picture is taken, where there is one."""

_PNG_DPI = 200  # of histpert.plots.save_figure
_CSS_DPI, _POINTS = 96, 72
_SVG_SIZE = re.compile(rb'<svg\b[^>]*?\swidth="([\d.]+)pt"\s+height="([\d.]+)pt"', re.DOTALL)
_KINDS = {".svg": "image/svg+xml", ".png": "image/png"}


@dataclass(frozen=True)
class ReportFigure:
    """A figure of a page: `source` is a data URI, sizes are in CSS pixels."""

    name: str
    source: str
    width: int
    height: int
    alt: str
    caption: str


def report_figures(folder: Path) -> Iterator[ReportFigure]:
    """Figures of `figures/`, each once: as svg where it is not large, else as png.

    Raises:
        InputError: One of them is no figure.
    """
    files: dict[str, dict[str, Path]] = {}
    for path in sorted((folder / "figures").glob("*")):
        if path.suffix in _KINDS:
            files.setdefault(path.stem, {})[path.suffix] = path
    for name in sorted(files, key=_rank):
        path = _preferred(files[name])
        content = _read(path)
        width, height = _size(path, content)
        source = f"data:{_KINDS[path.suffix]};base64,{base64.b64encode(content).decode()}"
        yield ReportFigure(name, source, width, height, *_said(name))


def _rank(name: str) -> tuple[int, str]:
    known, base = list(FIGURES), parted(name)[0]
    return (known.index(base) if base in known else len(known)), name


def _said(name: str) -> tuple[str, str]:
    """What stands for the figure where it is not seen, and what stands below it."""
    base, part = parted(name)
    unknown = f"Figure {base.replace('_', ' ')} of this study"
    alt, caption = FIGURES.get(base, (unknown, f"{unknown}."))
    return alt + part, caption + (f" Shown{part.removeprefix(',')}." if part else "")


def _preferred(kinds: dict[str, Path]) -> Path:
    small = ".svg" in kinds and (".png" not in kinds or kinds[".svg"].stat().st_size <= LARGEST_SVG)
    return kinds[".svg" if small else ".png"]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): draw the study's figures again") from error


def _size(path: Path, content: bytes) -> tuple[int, int]:
    if path.suffix == ".svg" and (found := _SVG_SIZE.search(content[:4096])):
        scale = _CSS_DPI / _POINTS
        return round(float(found[1]) * scale), round(float(found[2]) * scale)
    if path.suffix == ".png" and content[:8] == b"\x89PNG\r\n\x1a\n" and len(content) > 24:
        width, height = struct.unpack(">II", content[16:24])
        return round(width * _CSS_DPI / _PNG_DPI), round(height * _CSS_DPI / _PNG_DPI)
    raise InputError(f"{path} is not a figure of this package: draw the study's figures again, or take it away")
