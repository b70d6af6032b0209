"""Messages in the words of a shell: flags and commands in place of keyword arguments and functions."""

from __future__ import annotations

import functools
import re
import sys

from ._options import FIGURES, FUNCTIONS, flag_of, options_of


def in_flags(text: str) -> str:
    """Return a message with flags for keyword arguments, and commands for functions, as far as there are some."""
    names = _names()
    # The first argument is the file. The key of the fit is the only other one that is passed by position.
    text = re.sub(r"(?<![\w.])s[ch]\.\w+\.(\w+)(?:\(([^()]*)\))?", _command, text)
    any_name = "|".join(sorted(names, key=len, reverse=True))
    # Not in quotes, which hold names from the file, nor as part of a longer name.
    text = re.sub(rf"(?<![\w.\-'\"])({any_name})=(True|False|None|)(?!=)\s*", _flag, text)
    # Without a value, names without '_' are English words, but for one.
    others = "|".join(name for name in names if "_" in name or name == "groupby")
    return re.sub(rf"(?<![\w.\-'\"])({others})(?![\w'\"=(])", lambda found: flag_of(found[1]), text)


@functools.cache
def _names() -> frozenset[str]:
    """Return the keyword arguments that are options of some command."""
    return frozenset(name for function in FUNCTIONS.values() for of in function for name in options_of(of))


def _command(found: re.Match[str]) -> str:
    function, arguments = found[1], found[2] or ""
    commands = {of.partition(".")[2]: command for command, of_command in FUNCTIONS.items() for of in of_command}
    if function not in commands or (found[0].startswith("sc.") and function != "pca"):
        return found[0]
    name = f"plot {function.replace('_', '-')}" if function in FIGURES else commands[function]
    given = [part for part in arguments.split(", ") if part not in ("", "adata", "...")]
    return " ".join(["scot-hycnn", name, *(part if "=" in part else f"key={part}" for part in given)])


def _flag(found: re.Match[str]) -> str:
    flag, value = flag_of(found[1]), found[2]
    no_value = {"True": flag, "False": flag.replace("--", "--no-", 1), "None": f"no {flag}"}
    # What stood behind the value stays behind it.
    space = re.search(r"\s*$", found[0])
    assert space is not None
    return no_value[value] + space[0] if value else f"{flag} "


class Translated:
    """Standard error, on which the log of scanpy is written in the words of a shell."""

    def write(self, text: str) -> int:
        """Write one message."""
        return sys.stderr.write(in_flags(text))

    def flush(self) -> None:
        """Write what is buffered."""
        sys.stderr.flush()
