"""`edgeserve up`: node and balancer in one command, on this machine or the LAN."""
