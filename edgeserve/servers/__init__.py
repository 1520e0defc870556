"""Servers of other programs: recognise them, and know what is particular to each."""
