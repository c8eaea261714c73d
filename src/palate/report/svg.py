"""A chart as SVG that can stand inside a page: no outside references, no colors of its own for text and paper."""

from __future__ import annotations

import json
import zlib
from xml.etree import ElementTree

import altair as alt
import vl_convert

__all__ = ["WIDTH", "AnyChart", "draw"]

AnyChart = alt.Chart | alt.LayerChart | alt.FacetChart

WIDTH = 340  # about what a phone shows, so that text keeps its size there
SVG = "http://www.w3.org/2000/svg"
FONT = "sans-serif"
GRAY = "#8a8f98"
AXIS = {
    "labelFontSize": 11, "titleFontSize": 11, "titleFontWeight": "normal", "gridColor": GRAY, "gridOpacity": 0.25,
    "domainColor": GRAY, "tickColor": GRAY, "labelFont": FONT, "titleFont": FONT, "titlePadding": 9,
}  # fmt: skip

ElementTree.register_namespace("", SVG)


def draw(chart: AnyChart, height: int, words: str) -> str:
    """The chart as an ``<svg>`` element, ``WIDTH`` by ``height`` units, that scales to the box it stands in.

    Args:
        chart: an Altair chart.
        height: in the units of ``WIDTH``.
        words: the text alternative.
    """
    spec = chart.properties(width=WIDTH, height=height).to_dict(validate=False)
    spec["autosize"] = {"type": "fit", "contains": "padding"}
    spec["config"] = {"axis": AXIS, "view": {"stroke": None}, "background": None, "aria": False, "font": FONT}
    root = ElementTree.fromstring(vl_convert.vegalite_to_svg(spec))
    _make_unique(root, f"clip-{zlib.crc32(json.dumps(spec).encode()):08x}")
    for part in root.iter():
        for name in [name for name in part.attrib if name == "role" or name.startswith("aria-")]:
            del part.attrib[name]
    for name in ("width", "height"):
        del root.attrib[name]
    root.attrib |= {"role": "img", "aria-label": words}
    return ElementTree.tostring(root, encoding="unicode")


def _make_unique(root: ElementTree.Element, prefix: str) -> None:
    """Rename the clip paths: ids must be unique in a page with many plots, and the same each time it is made."""
    ids = [part.attrib["id"] for part in root.iter() if "id" in part.attrib]
    new = {f"url(#{old})": f"{prefix}-{number}" for number, old in enumerate(ids)}
    for part in root.iter():
        if "id" in part.attrib:
            part.set("id", new[f"url(#{part.attrib['id']})"])
        if part.attrib.get("clip-path") in new:
            part.set("clip-path", f"url(#{new[part.attrib['clip-path']]})")
