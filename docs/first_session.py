"""Record a first session as docs/first-session.svg: the real commands, in a terminal of their own, drawn by rich.

`python docs/first_session.py FOLDER [MODEL]` runs them in an empty folder, with made-up messages to a bank, and takes
what a run takes: minutes with the embedded model. $APT_HOME says where the downloaded models are, if not in FOLDER.
"""

import csv
import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

WIDTH = 112  # columns
PICTURE = Path(__file__).parent / "first-session.svg"
QUEUES = {"card": "Cards", "transfer": "Payments", "statement": "Online", "joint account": "Accounts"}
SAID = ["Where is my {}?", "I cannot see my {}.", "My {} is wrong.", "Who may change a {}?", "I want a new {}."]
PLACES = ["Leeds", "York", "Hull", "Derby", "Bath", "Truro", "Ely", "Wells", "Ripon", "Oban", "Perth", "Cardiff"]
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
ASKS = re.compile(r"(\]|folder): ?$")


@dataclass(frozen=True)
class Shown:
    """A command. answers: to what it asks. left_out: pairs of regular expressions; the lines from one that the first
    finds to before one that the second finds are not drawn."""

    command: str
    answers: tuple[str, ...] = ()
    left_out: tuple[tuple[str, str], ...] = ()


def session(model: str) -> list[Shown]:
    return [
        Shown("apt-assets init", answers=("messages.csv", "bank", model, "", "")),
        Shown("apt-assets land messages.csv"),
        Shown("apt-assets doctor"),
        Shown("apt-assets plan 1", left_out=((" policy ", " gate "),)),
        Shown(
            "apt-assets run 1",
            left_out=(("heldout_rows of base: computing", "^gate of 0001: computing"), ("^ *seconds ", "computed, ")),
        ),
    ]


def write_rows(file: Path) -> None:
    with file.open("w", encoding="utf-8", newline="") as target:
        writer = csv.writer(target)
        writer.writerow(["question", "answer"])
        for place in PLACES:
            writer.writerows([f"{text.format(thing)} I am in {place}.", queue]
                             for thing, queue in QUEUES.items() for text in SAID)  # fmt: skip


def run(command: str, folder: Path, answers: Sequence[str]) -> list[str]:
    """The lines that a command prints to a terminal; what it says on the side comes without bars."""
    terminal, end = pty.openpty()
    fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 50, WIDTH, 0, 0))
    environment = {
        **os.environ,
        "TERM": "xterm-256color",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    process = subprocess.Popen(
        command, shell=True, cwd=folder, env=environment, stdin=end, stdout=end, stderr=subprocess.PIPE
    )
    os.close(end)
    said: list[bytes] = []
    readers = [threading.Thread(target=read, args=(where, said)) for where in (terminal, process.stderr.fileno())]  # type: ignore[union-attr]
    for reader in readers:
        reader.start()
    for answer in answers:
        while not ASKS.search(b"".join(said).decode()) and process.poll() is None:
            time.sleep(0.05)
        said.append(b"\0")  # the same question is not answered twice
        os.write(terminal, f"{answer}\n".encode())
    process.wait()
    for reader in readers:
        reader.join(5)
    text = re.sub(r": ?\0", ": ", b"".join(said).decode()).replace("\r", "")
    return [line.lstrip() if answers else line for line in text.splitlines()]


def read(where: int, said: list[bytes]) -> None:
    while True:
        try:
            piece = os.read(where, 4096)
        except OSError:  # the terminal's other end was closed
            return
        if not piece:
            return
        said.append(piece)


def cut(lines: list[str], shown: Shown) -> list[str]:
    lines = [line for line in lines if line.strip()]
    plain = [COLOUR.sub("", line) for line in lines]
    for first, last in shown.left_out:
        start = next((n for n, line in enumerate(plain) if re.search(first, line)), len(plain))
        end = next((n for n, line in enumerate(plain) if n > start and re.search(last, line)), start)
        if end > start:
            for either in (lines, plain):
                either[start:end] = [f"  ... {end - start} more lines ..."]
    return lines


def main() -> None:
    from rich.console import Console
    from rich.text import Text

    folder, model = Path(sys.argv[1]).resolve(), (sys.argv[2:] or ["embedded"])[0]
    os.environ.setdefault("APT_HOME", str(folder / "home"))
    write_rows(folder / "messages.csv")
    with Path(os.devnull).open("w") as nowhere:
        console = Console(record=True, width=WIDTH, file=nowhere, force_terminal=True, color_system="truecolor")
        for shown in session(model):
            console.print(Text.assemble(("$ ", "green"), (shown.command, "bold")))
            for line in cut(run(shown.command, folder, shown.answers), shown):
                console.print(Text.from_ansi(line.replace(str(folder), "~/bank")), soft_wrap=False)
            console.print()
    drawn = console.export_svg(title="apt-assets: a first session")
    # rich would load a font from elsewhere; any of one width does.
    PICTURE.write_text(re.sub(r"@font-face \{.*?\}\s*", "", drawn, flags=re.DOTALL), encoding="utf-8")


if __name__ == "__main__":
    main()
