"""What the monitors refuse."""

from __future__ import annotations


class RecordRefused(Exception):
    """A record of one of the loop's topics cannot be read; the message names the field."""
