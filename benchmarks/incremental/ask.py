"""Several `apt-assets` commands in one process: starting one for each takes longer than a scenario.

Standard input: a JSON list of argument lists. Standard output: a JSON list of what each command
printed, null for one that did not exit with 0.
"""

import json
import sys

from typer.testing import CliRunner

from apt_assets.cli import app

if __name__ == "__main__":
    results = [CliRunner().invoke(app, arguments) for arguments in json.load(sys.stdin)]
    print(json.dumps([result.stdout if result.exit_code == 0 else None for result in results]))
