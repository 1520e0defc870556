"""`edgeserve service`: node and balancer as services of systemd or launchd."""
