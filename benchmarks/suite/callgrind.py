"""Reads what callgrind writes: how many instructions functions have executed themselves."""

from __future__ import annotations

import re
from collections.abc import Sequence

_NAME = re.compile(r"\((\d+)\)(?: (.*))?")


def instructions_of(output: str, program: str, *, without: Sequence[str] = ()) -> int:
    """What all functions of the program have executed, without what they call in libraries.

    output: of callgrind, its first event being Ir. without: beginnings of the names of functions left out.
    """
    names: dict[tuple[str, str], str] = {}

    def name(kind: str, text: str) -> str:
        """Names are written once, with a number that stands for them afterwards."""
        found = _NAME.fullmatch(text)
        if found is None:
            return text
        number, full = found.groups()
        if full is not None:
            names[kind, number] = full
        return names[kind, number]

    total = 0
    is_ours = is_wanted = is_call = False
    for line in output.splitlines():
        key, equals, value = line.partition("=")
        if equals and key in ("ob", "cob"):
            library = name("ob", value)
            is_ours = library.rpartition("/")[2] == program if key == "ob" else is_ours
        elif equals and key in ("fn", "cfn"):
            function = name("fn", value)
            is_wanted = not function.startswith(tuple(without)) if key == "fn" else is_wanted
        elif key == "calls":
            is_call = True  # the next line is what was called, with all below it
        elif line[:1] and line[0] in "+-*0123456789":
            if is_ours and is_wanted and not is_call:
                total += int(line.split()[1])
            is_call = False
    return total
