"""Pulling models: from the hub, from the web, from a path, into the models folder."""

import os

# Nothing but what was asked for crosses the network.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
