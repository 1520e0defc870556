"""Simulator: the balancer's decisions in virtual time, beside other load balancers."""
