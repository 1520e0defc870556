"""What stands under a command's `--help`: lines that can be pasted."""

from __future__ import annotations

WIDTH = 76
"""Of a line, so that it fits a terminal of 80 columns with click's margin."""


def examples(*pairs: tuple[str, str]) -> str:
    """Lay out (command, what it does) as an epilog that click leaves as it is."""
    width = max(len(command) for command, _ in pairs)
    beside = max(width + 3 + len(does) for _, does in pairs) <= WIDTH
    lines = list[str]()
    for command, does in pairs:
        if beside:
            lines.append(f"  {command:<{width}}   {does}".rstrip())
        else:
            lines += [f"  {command}", f"      {does}"]
    return "\n".join(("\b", "Examples:", *lines))
