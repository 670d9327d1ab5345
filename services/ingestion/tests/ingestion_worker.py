"""The service as a process, for tests that kill it.

COMMIT_SECONDS puts commits off, so that a kill finds effects without their commit.
"""

import os

from tailrace_ingestion import app
from tailrace_ingestion.main import HTTP_IN, TOPICS_IN
from tailrace_runtime.consumer import ConsumerRole
from tailrace_runtime.service import Service, main


def create() -> Service:
    """The service, from the environment."""
    service = app.create_service(HTTP_IN, TOPICS_IN)
    for role in service._roles.values():
        if isinstance(role, ConsumerRole):
            role.commit_seconds = float(os.environ.get("COMMIT_SECONDS", role.commit_seconds))
    return service


if __name__ == "__main__":
    main(create)
