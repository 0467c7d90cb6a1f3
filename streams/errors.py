"""What can go wrong in words for a user. An exception's type says what the command does about it.

WeirError                 the message is the whole story: one line, exit code 1
└── UsageError            wrong use: mend the command, the setting or the file; exit code 2
    └── DeclarationError  a pipeline that cannot be; names the feature and the mend
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class WeirError(Exception):
    """Something failed that the user should hear of in one line."""

    exit_code = 1


class UsageError(WeirError):
    """The command, a setting or a file is wrong; nothing was started."""

    exit_code = 2


class DeclarationError(UsageError):
    """A declaration that cannot be: the message names the feature and the mend."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """ "; did you mean 'amount'?" when `word` is close to a known one, else ""."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
