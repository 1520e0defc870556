"""What stands under a command's `--help`: lines that can be pasted."""

from __future__ import annotations


def examples(*pairs: tuple[str, str]) -> str:
    """Lay out (command, what it does) as an epilog that click leaves as it is."""
    width = max(len(command) for command, _ in pairs)
    lines = (f"  {command:<{width}}   {does}".rstrip() for command, does in pairs)
    return "\n".join(("\b", "Examples:", *lines))
