"""A file layer that fails or dies at its n-th operation, for every n until none is reached.

Operations are what changes the disk below the home folder: opening a file for writing, a write (half of it is
done), fsync, rename, link, mkdir, unlink. ENOSPC and EIO are raised where they would come up; a death is a
SIGKILL. Then another process looks at what is there, and goes on.
"""

import errno
import io
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apt_assets.loop.gc import collect_garbage
from tests.oracle import Engine
from tests.torture.part import Part
from tests.torture.processes import child, die, ended, last_lines
from tests.torture.small_loop import land, missing, open_loop, wrong

FAULTS = ("ENOSPC", "EIO", "death")
PATIENCE = 120  # seconds
EDIT = {"training": {"beta": 0.2}, "assessor": {"bad_below": 3}}


class Faults:
    """Counts the operations below `home` from `arm` on; at number `at` the fault happens, once."""

    def __init__(self, home: Path, fault: str, at: int):
        self.home, self.fault, self.at, self.count = str(home), fault, at, 0

    def arm(self) -> None:
        real_open = io.open
        for name in ("replace", "rename", "link", "mkdir", "unlink"):
            setattr(os, name, self.counted(getattr(os, name)))
        fsync = os.fsync

        def syncing(descriptor: int) -> None:
            self.operation()
            fsync(descriptor)

        os.fsync = syncing

        def opening(file: Any, mode: str = "r", *given: Any, **more: Any) -> Any:
            ours = not isinstance(file, int) and str(file).startswith(self.home) and set(mode) & set("wax+")
            if not ours:
                return real_open(file, mode, *given, **more)
            self.operation()
            opened = real_open(file, mode, *given, **more)
            return Written(opened, self)

        io.open = opening  # what pathlib calls

    def counted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def calling(path: Any, *given: Any, **more: Any) -> Any:
            if str(path).startswith(self.home):
                self.operation()
            return function(path, *given, **more)

        return calling

    def operation(self, half: Callable[[], None] = lambda: None) -> None:
        self.count += 1
        if self.count == self.at:
            half()
            if self.fault == "death":
                die()
            number = getattr(errno, self.fault)
            raise OSError(number, os.strerror(number))


class Written:
    """A file that was opened for writing."""

    def __init__(self, file: Any, faults: Faults):
        self._file, self._faults = file, faults

    def write(self, content: Any) -> int:
        def half() -> None:
            self._file.write(content[: len(content) // 2])
            self._file.flush()

        self._faults.operation(half)
        return self._file.write(content)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __enter__(self) -> "Written":
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


# -- what is done under faults -------------------------------------------------------------------------


def run_loop(engine: Engine) -> None:
    engine.run()


def collect(engine: Engine) -> None:
    collect_garbage(engine.world, 1, dry_run=False)


# Name -> (settings, what is done).
SCENES: dict[str, tuple[dict[str, Any], Callable[[Engine], None]]] = {
    "cold run": ({}, run_loop),
    "run after edits": (EDIT, run_loop),
    "gc": (EDIT, collect),
}


def prepare(folder: Path) -> None:
    """A home for each scene: nothing computed yet; a loop at its end and a file landed since; at its end again."""
    cold, edited, ended_again = (folder / name for name in SCENES)
    land(cold, "a.jsonl", 0, 12)
    open_loop(cold)
    shutil.copytree(cold, edited)
    open_loop(edited).run()
    land(edited, "b.jsonl", 12, 8)
    shutil.copytree(edited, ended_again)
    open_loop(ended_again, **EDIT).run()


@dataclass(frozen=True)
class Trial:
    """A scene with a fault at an operation, in a copy of its home."""

    folder: Path
    scene: str
    fault: str
    at: int

    @property
    def home(self) -> Path:
        return self.folder / "home"

    def disturb(self) -> None:
        """Do the scene with the fault; how many operations it came to is noted."""
        settings, do = SCENES[self.scene]
        engine = open_loop(self.home, **settings)
        faults = Faults(self.home, self.fault, self.at)
        faults.arm()
        try:
            do(engine)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EIO):
                raise
        os.write(os.open(self.folder / "count", os.O_CREAT | os.O_WRONLY), str(faults.count).encode())

    def look_and_go_on(self, opened: dict[str, list[str]]) -> None:
        """Old or new state after the fault; and the whole result after the next run."""
        engine = open_loop(self.home, **SCENES[self.scene][0])
        found = wrong(engine)
        engine.run()
        found += [f"after the next run: {one}" for one in wrong(engine) + missing(engine)]
        store = engine.world.store
        for key, files in opened.items():
            if (now := store.snapshot("t", key)) != files:
                found.append(f"iteration {key} is on {now} and was on {files}")
        (self.folder / "wrong.json").write_text(json.dumps(found))

    def run(self, ready: Path, log: Path) -> tuple[int, list[str]]:
        """(operations that were come to, `at` if the fault was among them; what went wrong)."""
        shutil.copytree(ready, self.home)
        opened = snapshots_of(self.home)
        try:
            what = f"{self.scene}, {self.fault} at operation {self.at}"
            how = ended(child(self.disturb, log), PATIENCE)
            count = self.folder / "count"
            reached = min(int(count.read_text()), self.at) if count.exists() else self.at
            if how is None or how > 0:
                return self.at, [f"{what}: {'hung' if how is None else last_lines(log)}"]
            then = ended(child(lambda: self.look_and_go_on(opened), log), PATIENCE)
            if then != 0:
                return reached, [f"{what}: the next run ended with {then}: {last_lines(log)}"]
            return reached, [f"{what}: {one}" for one in json.loads((self.folder / "wrong.json").read_text())]
        finally:
            shutil.rmtree(self.folder)


def run(short: bool) -> Part:
    failures: list[str] = []
    tried = dict.fromkeys(FAULTS, 0)
    operations = {}
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None, prefix="faults-") as folder:
        root = Path(folder)
        log = root / "log.txt"
        assert ended(child(lambda: prepare(root / "ready"), log), PATIENCE) == 0, log.read_text()
        for scene in SCENES:
            for fault in FAULTS:
                at = 1
                while True:
                    reached, found = Trial(root / "trial", scene, fault, at).run(root / "ready" / scene, log)
                    failures += found
                    if reached < at:
                        operations[scene] = reached
                        break
                    tried[fault] += 1
                    at += max(1, at // 2) if short else 1
                print(f"{scene}, {fault}: {sum(tried.values())} faults, {len(failures)} failures", flush=True)
    return Part(
        title="Faults of the file system",
        text=(
            "The real planner, store and driver over computations that cost nothing. At the n-th operation on a file, "
            "for every n that a scene reaches, the disk is full (ENOSPC), fails (EIO) or the process dies; a write is "
            "done by half. Then another process looks at the store, which must hold the old or the new state, and "
            "runs: the result must be what a loop from scratch gives, with the same iterations on the same files."
        ),
        figures={
            **{f"operations on files, {scene}": count for scene, count in operations.items()},
            **{f"{fault}, each followed by a look and a run": count for fault, count in tried.items()},
        },
        failures=failures,
    )


def snapshots_of(home: Path) -> dict[str, Any]:
    folder = home / ".apt" / "store" / "snapshots" / "t"
    return {path.stem: json.loads(path.read_text())["files"] for path in folder.glob("*.json")}
