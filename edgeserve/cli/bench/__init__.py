"""Benchmark command: how fast an endpoint answers, at several numbers of streams."""
