"""Dashboard: the page at `/`, what it shows live, and its key on this machine."""
