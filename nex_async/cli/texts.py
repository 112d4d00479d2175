"""Texts that a command is given: as arguments, as files, on standard input."""

from __future__ import annotations

import sys
from pathlib import Path

import click

__all__ = ["standard_input", "text_of_file"]

_LARGEST = 8 << 20


def standard_input(what: str) -> str:
    """Return the text on standard input. Raises `UsageError` where a person would have to type it unasked."""
    if sys.stdin.isatty():
        raise click.UsageError(f"give {what}, or pipe it in")
    try:
        text = sys.stdin.read()
    except UnicodeDecodeError:
        raise click.UsageError("standard input is no text in UTF-8") from None
    if not text.strip():
        raise click.UsageError(f"standard input is empty: give {what}, or pipe it in")
    return text


def text_of_file(path: str) -> str:
    """Return what a file holds. Raises `ValueError` for one that is no text."""
    with Path(path).open("rb") as file:
        content = file.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise ValueError(f"is larger than {_LARGEST >> 20} MiB")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError("is no text in UTF-8") from None
    if "\0" in text:
        raise ValueError("is no text")
    if not text.strip():
        raise ValueError("is empty")
    return text
