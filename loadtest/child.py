"""A process of the bench that is told and heard by lines: words to its stdin, JSON objects from its stdout."""

from __future__ import annotations

import json
import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from streams.errors import WeirError

_LOOK_S = 0.2


class Child:
    """`python -m module` with `arguments`, from entry to exit; what it says on stderr goes to `log`."""

    def __init__(self, module: str, arguments: dict[str, object], log: Path) -> None:
        self._module, self._log = module, log
        self._command = [sys.executable, "-m", module]
        for name, value in arguments.items():
            self._command += [f"--{name}", str(value)]

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, bufsize=0
            )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def tell(self, word: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{word}\n".encode())

    def hear(self, within_s: float, check: Callable[[], None] = lambda: None) -> dict[str, Any]:
        """The next object it says. `check` is called a few times a second meanwhile, and may raise.

        Raises WeirError if nothing comes `within_s`, or if the process ends.
        """
        assert self._process.stdout is not None
        deadline = time.monotonic() + within_s
        while not select.select([self._process.stdout], [], [], _LOOK_S)[0]:
            check()
            if time.monotonic() > deadline:
                raise WeirError(f"{self._module} has said nothing for {within_s:.0f} s")
        line = self._process.stdout.readline()
        if not line:
            said = self._log.read_text(errors="replace").strip().splitlines()[-3:]
            raise WeirError(f"{self._module} ended: {' | '.join(said)}")
        found: dict[str, Any] = json.loads(line)
        return found


def say(**facts: Any) -> None:
    """In the child: one object to who started it."""
    print(json.dumps(facts), flush=True)
