"""Configuration: settings, where their values come from, and how they are checked."""
