"""Service managers: systemd and launchd, described by files and commands."""
