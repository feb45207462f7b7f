"""The reference pages of the site, written from what the code declares: settings, commands, stages, tables
and docstrings. MkDocs calls `on_files` (a hook, see mkdocs.yml); no page is kept in the repository.
"""

import importlib
import inspect
import json
import re
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from apt_assets.report.markdown import table

# What a program may import; everything else may change without notice.
PUBLIC = {
    "apt_assets.api": (
        "Project",
        "Project.land",
        "Project.plan",
        "Project.run",
        "Project.approve",
        "Project.scores",
        "Project.rows",
        "Project.bad_cases",
        "Project.pairs",
        "Project.explain",
        "Project.results",
        "Project.with_settings",
        "Project.report",
        "Project.export",
        "RunResult",
        "Landed",
        "Landed.files",
        "Landed.quarantined",
        "NothingLanded",
        "UsageError",
    ),
    "apt_assets.engine.display": ("Display", "Lines", "display"),
    "resources.store.tables": ("read_table", "TableError"),
}


def on_files(files: Any, config: Any) -> Any:
    """MkDocs hook: add the generated pages."""
    from mkdocs.structure.files import File

    for path, text in pages().items():
        files.append(File.generated(config, path, content=text))
    return files


def pages() -> dict[str, str]:
    """Path below docs/ -> Markdown, of every generated page."""
    return {
        "reference/settings.md": settings(),
        "reference/commands.md": commands(),
        "reference/stages.md": stages(),
        "reference/tables.md": tables(),
        "reference/python.md": python(),
    }


# -- settings ------------------------------------------------------------------------------------------


def settings() -> str:
    from apt_assets.settings import experiment

    lines = [
        "# Settings",
        "",
        "An experiment file is YAML. Every section may be left out; `name` may not: lower-case letters, digits, "
        "`-` and `_`, at most 40. `owners` is a "
        "list of e-mail addresses or `team:NAME`, shown in Dagster. A key that is not "
        "listed here is an error that names the nearest one that is.",
        "",
        "In brackets stands where a default comes from: *paper* is arXiv 2506.03483 as far as we know it, *IRPO* is "
        "arXiv 2404.19733, *measured* is the [lab log](../lab-log.md), *choice* is ours.",
        "",
    ]
    alone = {
        name: one
        for name, one in experiment.Experiment.model_fields.items()
        if name not in ("name", "owners") and not experiment.is_section(one.annotation)
    }
    lines += [table(["key", "type", "default", "meaning"], rows_of(alone)), ""]
    for name, section in sections(experiment.Experiment):
        lines += [f"## {name}", "", paragraphs(section), ""]
        fields = {key: one for key, one in section.model_fields.items() if not experiment.is_section(one.annotation)}
        lines += [table(["key", "type", "default", "meaning"], rows_of(fields, f"{name}.")), ""]
    return "\n".join(lines)


def rows_of(fields: dict[str, Any], prefix: str = "") -> list[list[str]]:
    """key, type, default, meaning of settings."""
    return [
        [f"`{prefix}{key}`", kind_of(one), f"`{json.dumps(one.default)}`", one.description or ""]
        for key, one in fields.items()
    ]


def sections(model: type, prefix: str = "") -> Iterator[tuple[str, type]]:
    """(dotted name, model) of every section, a section's own right after it."""
    from apt_assets.settings.experiment import is_section

    for name, field in model.model_fields.items():
        if is_section(field.annotation):
            yield prefix + name, field.annotation
            yield from sections(field.annotation, f"{prefix}{name}.")


def kind_of(field: Any) -> str:
    """Type and range of a setting in words, as a user would write it in YAML."""
    bounds = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    limits = [
        f"{words} {getattr(limit, name):g}"
        for limit in field.metadata
        for name, words in bounds.items()
        if hasattr(limit, name)
    ]
    return ", ".join([words_for(field.annotation), *limits])


def words_for(kind: Any) -> str:
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return " or ".join(words_for(one) for one in inner)
    if origin is Literal:
        return " or ".join(f"`{one}`" for one in inner)
    if origin is list:
        return f"list of {words_for(inner[0])}"
    if origin is dict:
        return f"mapping of {words_for(inner[0])} to {words_for(inner[1])}"
    if hasattr(kind, "__metadata__"):
        return words_for(inner[0])
    return {str: "text", int: "whole number", float: "number", bool: "true or false", type(None): "null"}[kind]


# -- command line --------------------------------------------------------------------------------------


def commands() -> str:
    import typer

    from apt_assets.cli import app

    group: Any = typer.main.get_command(app)
    lines = ["# Command line", "", inspect.cleandoc(group.help), ""]
    for name, command in group.commands.items():
        types = get_type_hints(command.callback)
        given = [one for one in command.params if one.name in types]
        rows = [[f"`{usage_of(one, types[one.name])}`", one.help or "", default_of(one)] for one in given]
        arguments = [usage_of(one, None) for one in given if one.param_type_name == "argument"]
        lines += [f"## {name}", "", f"`apt-assets {' '.join([name, *arguments, '[OPTIONS]'])}`", ""]
        lines += [inspect.cleandoc(command.help), "", table(["argument or option", "meaning", "default"], rows), ""]
    return "\n".join(lines)


def usage_of(parameter: Any, kind: Any) -> str:
    """FILE... of an argument, `--iterations N` of an option, both forms of a flag."""
    if parameter.param_type_name == "argument":
        return parameter.metavar or parameter.name.upper()
    names = ", ".join([*parameter.opts, *parameter.secondary_opts])
    values = {int: "N", Path: "PATH", str: "TEXT"}
    return " ".join([names, *(values[one] for one in (kind, *get_args(kind)) if one in values)])


def default_of(parameter: Any) -> str:
    if parameter.required:
        return "required"
    return "" if parameter.default in (None, False) else f"`{parameter.default}`"


# -- stages and tables ---------------------------------------------------------------------------------


def stages() -> str:
    import apt_assets.assets.order  # noqa: F401 - declares the stages
    from apt_assets.engine.stage import SOURCES, STAGES, Source, Stage

    lines = ["# Stages", "", paragraphs(Stage), "", "They follow in the order in which data flows.", ""]
    for name, one in STAGES.items():
        per = "one for each iteration" if one.partitioned else "one for all iterations"
        lines += [f"## {name}", "", one.description, "", f"- {per}, in group *{one.group}*"]
        for what in ("inputs", "settings", "identities", "libraries", "outputs"):
            if values := getattr(one, what):
                lines.append(f"- {what}: {', '.join(f'`{value}`' for value in values)}")
        lines.append("")
    lines += ["## Sources", "", paragraphs(Source), ""]
    for name, source in SOURCES.items():
        per = "for each iteration" if source.partitioned else "for all iterations"
        lines.append(f"- `{name}` ({per}): {source.description}")
    return "\n".join(lines)


def tables() -> str:
    from schemas import tables as schemas

    lines = ["# Tables", "", paragraphs(schemas), ""]
    lines += ["`apt-assets show TABLE ITERATION` prints rows of any of them.", ""]
    for name, schema in schemas.TABLES.items():
        lines += [f"## {name}", "", paragraphs(schema), ""]
        rows = [
            [f"`{column}`", f"{one.dtype}{' or null' if one.nullable else ''}", one.description or ""]
            for column, one in schema.to_schema().columns.items()
        ]
        lines += [table(["column", "type", "meaning"], rows), ""]
    return "\n".join(lines)


# -- Python --------------------------------------------------------------------------------------------


def python() -> str:
    lines = ["# Python", "", "What a program may import. Everything else may change without notice.", ""]
    for module, names in PUBLIC.items():
        lines += [f"## {module}", "", paragraphs(importlib.import_module(module)), ""]
        for name in names:
            found: Any = importlib.import_module(module)
            for part in name.split("."):
                found = getattr(found, part)
            lines += [f"### {name}", "", "```text", declaration_of(name, found), "```", ""]
            lines += [paragraphs(found), ""]
    return "\n".join(lines)


def declaration_of(name: str, found: Any) -> str:
    """How it is called, with types by their own names, without the modules they stand in."""
    if isinstance(found, type):
        return f"class {name}"
    if isinstance(found, property):
        return name
    return name + re.sub(r"(?:\w+\.)+(\w+)", r"\1", str(inspect.signature(found)).replace("'", ""))


# -- Markdown ------------------------------------------------------------------------------------------


def paragraphs(documented: Any) -> str:
    """A docstring as Markdown: `name: text` paragraphs and indented lines become list items."""
    text = inspect.cleandoc(inspect.getdoc(documented) or "")
    text = re.sub(r"(?m)^([a-z_]+(?:, [a-z_]+)*): ", r"- *\1*: ", text)
    # A list needs a blank line before it, and its items may follow each other at once.
    return re.sub(r"(?m)^(?!- |\s|$)(.*)\n(?=- )", r"\1\n\n", text)
