"""The hub of the tests of `edgeserve pull`."""

from tests.edgeserve.models.pull.conftest import hub as hub
from tests.edgeserve.models.pull.conftest import slept as slept
