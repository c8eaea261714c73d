"""The report of a comparison: one self-contained HTML page, Markdown, or JSON.

    comparison = palate.report.read("runs/compare-clicks")
    palate.report.write_html(comparison, "report.html")

A report reads nothing but the comparison: it computes no metric of its own.
"""

from palate.report.files import read, write_html, write_json, write_markdown

__all__ = ["read", "write_html", "write_json", "write_markdown"]
