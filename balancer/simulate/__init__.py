"""The balancer's decisions in virtual time, beside those of other load balancers."""
