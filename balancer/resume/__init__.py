"""Continue a broken stream on another engine, as one clean stream. Pure."""

from balancer.resume.frames import whole_events
from balancer.resume.plan import Finish, Refuse, Resume, resume
from balancer.resume.splice import Splice

__all__ = ["Finish", "Refuse", "Resume", "Splice", "resume", "whole_events"]
