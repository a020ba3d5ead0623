"""Where measured screens and gene sets are, on machines that have them."""

from pathlib import Path

REAL_DATA = Path(__file__).parents[3] / "shared" / "data"
