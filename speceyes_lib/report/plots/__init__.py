"""One file per group of figures: a frame goes in, a matplotlib `Figure` comes out. `report/figures.py` lists them."""

from ...exports import exports
from ..figures import FIGURES

_drawn_by = [listed.draw.split(".") for listed in FIGURES.values() if isinstance(listed.draw, str)]
__getattr__, __dir__, __all__ = exports(
    __name__, {file: [name for other, name in _drawn_by if other == file] for file, _ in _drawn_by}
)
