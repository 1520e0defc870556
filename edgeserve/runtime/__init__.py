"""Runtime: processes, tasks, clocks and files, for all packages."""
