"""Run the cells of docs/guide/python.ipynb from top to bottom, and keep what they show.

`python docs/notebook.py FOLDER` runs them in a folder with an experiment.yaml, and writes the notebook with what came
of it. Jupyter is not needed: a cell shows what it prints, and then the value of its last line.
"""

import ast
import contextlib
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

NOTEBOOK = Path(__file__).parent / "guide" / "python.ipynb"
LONGEST = 3000  # characters that a cell may show


def code_cells(notebook: dict[str, Any]) -> list[dict[str, Any]]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def run(source: str, names: dict[str, Any]) -> str:
    """What a cell shows; names: of the cells before it, added to."""
    tree = ast.parse(source)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, "cell", "exec"), names)
        value = None if last is None else eval(compile(ast.Expression(last.value), "cell", "eval"), names)
    return printed.getvalue() + ("" if value is None else f"{value!r}\n")


def fill(notebook: dict[str, Any]) -> None:
    """Put what each code cell shows into it."""
    names: dict[str, Any] = {}
    for count, cell in enumerate(code_cells(notebook), start=1):
        shown = run("".join(cell["source"]), names)[:LONGEST]
        cell["execution_count"] = count
        cell["outputs"] = [{"output_type": "stream", "name": "stdout", "text": shown.splitlines(keepends=True)}]


def main() -> None:
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    os.chdir(sys.argv[1])
    fill(notebook)
    NOTEBOOK.write_text(json.dumps(notebook, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
