"""A pytest plugin: a real broker and a real database for every test session.

Installed, it offers the fixtures `kafka`, `postgres`, `database`, `broker_of_its_own` and `database_of_its_own`; from
here come their types, `eventually`, which polls with a deadline, `ServiceProcess`, which can be killed, and `require_tool`.
"""

from tailrace_testing.broker import Broker, OwnBroker
from tailrace_testing.database import Postgres
from tailrace_testing.polling import eventually
from tailrace_testing.process import ServiceProcess, environment_of
from tailrace_testing.tools import require_tool

__all__ = ["Broker", "OwnBroker", "Postgres", "ServiceProcess", "environment_of", "eventually", "require_tool"]
