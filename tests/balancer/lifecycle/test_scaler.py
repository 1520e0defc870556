"""The autoscaler over a live balancer, in front of nodes that load when told to."""

import asyncio

from edgeserve.desired import LoadEngine, UnloadEngine
from tests.balancer.endpoint import CHAT, chat, eventually
from tests.balancer.lifecycle.test_loading import absent, fleet
from tests.fakes.llama import Behaviour
from tests.fakes.reports import an_engine
