"""Hooks of the documentation site (mkdocs.yml): the pages of the root folder, the notebooks, and the reference.

Links are written for readers of the repository, so those between ``docs`` and the root folder are changed here.
"""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

import palate

ROOT = Path(__file__).resolve().parents[1]
PROJECT = ("ARCHITECTURE", "CHANGELOG", "CODE_OF_CONDUCT", "CONTRIBUTING", "GLOSSARY", "ROADMAP", "SECURITY")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are not in ``docs``."""
    for name in PROJECT:
        text = (ROOT / f"{name}.md").read_text(encoding="utf-8")
        files.append(File.generated(config, f"{name}.md", content=text))
    files.append(File.generated(config, "reference.md", content=reference()))
    for path in sorted((ROOT / "examples" / "notebooks").glob("*.ipynb")):
        files.append(File.generated(config, f"{path.stem}.md", content=notebook(json.loads(path.read_text("utf-8")))))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Links between the two folders become links within the site; those to other files become their names."""
    markdown = re.sub(r"\]\((?:\.\./|docs/)([\w-]+\.md)", r"](\1", markdown)
    markdown = re.sub(r"\]\((?:\.\./)?examples/notebooks/([\w-]+)\.ipynb\)", r"](\1.md)", markdown)
    markdown = re.sub(r"\[([^\]]+)\]\((?:\.\./)?(?:LICENSE|examples/[^)]*|deploy/[^)]*)\)", r"\1", markdown)
    # The site knows no kinds of blocks such as "console tested".
    return re.sub(r"^```(console|python) [\w ]+$", r"```\1", markdown, flags=re.MULTILINE)


def reference() -> str:
    """A page with the docstring of every public name, in the groups of docs/api.md."""
    groups = dict(runpy.run_path(str(ROOT / "docs" / "make_api.py"))["GROUPS"])
    groups["Recipes"] = [*groups["Recipes"], *(kind.__name__ for kind in palate.RECIPES.values())]
    parts = ["# Reference of public names\n\nEvery name of `import palate`, with all arguments and errors.\n"]
    for title, names in groups.items():
        parts.append(f"## {title}\n")
        parts += [f"::: palate.{palate._MODULE[name]}.{name}\n" for name in names if name in palate._MODULE]
    return "\n".join(parts)


def notebook(content: dict[str, Any]) -> str:
    """A page with the cells of a notebook and the outputs that are stored in it."""
    parts = []
    for cell in content["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source.replace("../../docs/", ""))
            continue
        parts.append(f"```python\n{source}\n```")
        for output in cell["outputs"]:
            data = output.get("data", {"text/plain": output.get("text", "")})
            text = {kind: "".join(value) for kind, value in data.items()}
            if "image/png" in text:
                parts.append(f'<p><img alt="Plot" src="data:image/png;base64,{text["image/png"].strip()}"></p>')
            elif "text/html" in text:
                parts.append(re.sub(r"\n\s*\n", "\n", text["text/html"]))
            else:
                parts.append(f"```text\n{text['text/plain'].rstrip()}\n```")
    return "\n\n".join(parts) + "\n"
