"""Figures: charts as SVG inside a page, without references to other files and without colors of text and paper.

Altair and vl-convert draw without a network or a browser. Each figure is 340 units wide, so that text stays legible on
a phone and several fit side by side on a desktop.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from xml.etree import ElementTree

import altair as alt
import vl_convert

AnyChart = alt.Chart | alt.LayerChart | alt.FacetChart

WIDTH = 340  # about the width of a phone, so that text keeps its size there
SVG = "http://www.w3.org/2000/svg"
FONT = "sans-serif"
GRAY = "#8a8f98"
AXIS = {
    "labelFontSize": 11, "titleFontSize": 11, "titleFontWeight": "normal", "gridColor": GRAY, "gridOpacity": 0.25,
    "domainColor": GRAY, "tickColor": GRAY, "labelFont": FONT, "titleFont": FONT, "titlePadding": 9,
}  # fmt: skip

ElementTree.register_namespace("", SVG)


@dataclass(frozen=True)
class Figure:
    """A title, and a plot as SVG with its numbers in words as the text alternative."""

    title: str
    svg: str


def diagonal(low: float, high: float, x: str = "x", y: str = "y") -> alt.Chart:
    """The dashed line of equality between two fields."""
    ends = [{x: low, y: low}, {x: high, y: high}]
    line = alt.Chart({"values": ends}).mark_line(stroke=GRAY, strokeDash=[4, 4], strokeWidth=1.5)
    dashed: alt.Chart = line.encode(x=alt.X(f"{x}:Q"), y=alt.Y(f"{y}:Q"))
    return dashed


def figure(title: str, chart: AnyChart, words: str, *, height: int = 250) -> Figure:
    """Draw a chart under a title, ``WIDTH`` by ``height`` units, with its numbers in words as the text alternative."""
    spec = chart.properties(width=WIDTH, height=height).to_dict(validate=False)
    # The width includes the labels, so that plots side by side line up.
    spec["autosize"] = {"type": "fit", "contains": "padding"}
    spec["config"] = {"axis": AXIS, "view": {"stroke": None}, "background": None, "aria": False, "font": FONT}
    root = ElementTree.fromstring(vl_convert.vegalite_to_svg(spec))
    # Ids of clip paths must be unique in a page with many plots, and the same each time it is made.
    prefix = f"clip-{zlib.crc32(json.dumps(spec).encode()):08x}"
    ids = [part.attrib["id"] for part in root.iter() if "id" in part.attrib]
    new = {f"url(#{old})": f"{prefix}-{number}" for number, old in enumerate(ids)}
    for part in root.iter():
        if "id" in part.attrib:
            part.set("id", new[f"url(#{part.attrib['id']})"])
        if part.attrib.get("clip-path") in new:
            part.set("clip-path", f"url(#{new[part.attrib['clip-path']]})")
        # vl-convert labels every mark for screen readers, hundreds in a plot: one label of the whole replaces them.
        for name in [name for name in part.attrib if name == "role" or name.startswith("aria-")]:
            del part.attrib[name]
    # Without a size of its own the plot scales to its box by the viewBox.
    for name in ("width", "height"):
        del root.attrib[name]
    root.attrib |= {"role": "img", "aria-label": f"{title}. {words}."}
    return Figure(title, ElementTree.tostring(root, encoding="unicode"))
