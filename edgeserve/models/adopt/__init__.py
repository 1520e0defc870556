"""Adopting: models of other programs, read in place through links in our folder."""
