"""Tables of docs/cli.md, from the commands: usage, arguments and options with their defaults and help.

    python docs/make_cli.py

Each part of the page between `<!-- options: palate train -->` and `<!-- end -->` is made again; the text around them
stays. Options that several commands share are described once, in the sections at the end.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import typer.main

from palate.cli import app

PAGE = Path(__file__).with_name("cli.md")
BLOCK = re.compile(r"(<!-- options: ([a-z ,-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
GROUP = typer.main.get_command(app)
# A section of the page with shared options: a command that has them, the first and the last of them.
SHARED = {
    "Options for reading": ("check", "--user", "--items"),
    "Options of a request": ("explain", "--history", "--at"),
    "Common options": ("quickstart", "--k", "--json"),
}


def page(text: str) -> str:
    """The page with every block made from the commands."""
    return BLOCK.sub(lambda match: f"{match[1]}\n{block(match[2])}\n\n{match[3]}", text)


def block(title: str) -> str:
    """Usage and options of a command, of all commands of a group, or of a section of shared options."""
    if title == "before the command":
        return table(GROUP.params)
    for section in SHARED:
        if title == section.lower():
            return table(shared(section))
    command = GROUP.commands[title.removeprefix("palate ")]
    members = {f"{title} {name}": one for name, one in getattr(command, "commands", {}).items()} or {title: command}
    usage = "\n".join(f"    {' '.join([name, *filter(None, map(place, one.params))])}" for name, one in members.items())
    own: dict[tuple[str, ...], Any] = {}
    sections: dict[str, list[str]] = {}
    for parameter in (parameter for one in members.values() for parameter in one.params):
        section = next((name for name in SHARED if described(parameter) in map(described, shared(name))), None)
        if section is None and flags(parameter) != "`DATA`":  # it stands above the options for reading
            own[described(parameter)] = parameter
        elif section is not None and flags(parameter) not in sections.setdefault(section, []):
            sections[section].append(flags(parameter))
    links = []
    for section, names in sections.items():
        link = f"[{section[0].lower()}{section[1:]}](#{section.lower().replace(' ', '-')})"
        missing = [flags(one) for one in shared(section) if flags(one) not in names]
        few = len(missing) < len(names)
        without = f" without {', '.join(missing)}" if missing else ""
        links.append(f"the {link}{without}" if few else f"{', '.join(names)} of the {link}")
    tail = f"{'Also' if own else 'Takes'} {', and '.join(links)}." if links else ""
    return "\n\n".join(filter(None, [usage, table(own.values()), tail]))


def shared(section: str) -> list[Any]:
    """The parameters of a section of shared options."""
    command, first, last = SHARED[section]
    parameters = GROUP.commands[command].params
    names = [one.opts[-1] for one in parameters]
    return parameters[names.index(first) : names.index(last) + 1]


def described(parameter: Any) -> tuple[str, ...]:
    """Names and help: two parameters with the same are the same to a reader."""
    return (flags(parameter), parameter.help or "")


def place(parameter: Any) -> str:
    """An argument, or a required option, in the line of usage."""
    if parameter.param_type_name == "option":
        return f"{parameter.opts[0]} {parameter.name.upper()}" if parameter.required else ""
    name = parameter.metavar or parameter.name.upper() + (" ..." if parameter.nargs == -1 else "")
    return name if parameter.required or parameter.metavar else f"[{name}]"


def flags(parameter: Any) -> str:
    """The names of a parameter, as code."""
    if parameter.param_type_name == "argument":
        return f"`{parameter.metavar or parameter.name.upper()}`"
    return ", ".join(f"`{name}`" for name in [*parameter.opts, *parameter.secondary_opts])


def table(parameters: Any) -> str:
    """A table with a line for each parameter that has a help text."""
    rows = [f"| {flags(one)} | {default(one)} | {meaning(one)} |" for one in parameters if one.help]
    return "\n".join(["| option | default | meaning |", "|---|---|---|", *rows]) if rows else ""


def default(parameter: Any) -> str:
    """The default, empty where there is none."""
    value = parameter.default
    if parameter.required and not (parameter.metavar or "").startswith("["):
        return "required"
    if parameter.secondary_opts:
        return "" if value is None else f"`{(parameter.opts if value else parameter.secondary_opts)[0]}`"
    if isinstance(value, bool):
        return "on" if value else "off"
    return (
        "" if value is None or value in ("", [], ()) else f"`{value:g}`" if isinstance(value, float) else f"`{value}`"
    )


def meaning(parameter: Any) -> str:
    """The help text, with choices that it does not name and what a repetition does."""
    text = " ".join(parameter.help.split())
    kind = parameter.type_descriptor.annotation
    choices = [str(one) for one in get_args(kind) if isinstance(one, str)]
    if choices and not all(re.search(rf"(?<!\w){re.escape(one)}(?!\w)", text) for one in choices):
        text += f" One of {', '.join(f'`{one}`' for one in choices)}."
    if parameter.param_type_name == "option" and parameter.multiple and "repeated" not in text:
        text = f"{text.rstrip('.')}. May be repeated."
    value = r"[\w-]+=(?:\[[^]]*\]|[\w=,.:-]*\w)"
    text = re.sub(rf"(?<![\w`-])(--[a-z][a-z-]*(?: {value})?|{value})", r"`\1`", text)
    return text.replace("|", r"\|").replace("<", "&lt;")


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
