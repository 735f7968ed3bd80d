"""`python -m services.docker_filter`."""

from services.runtime.process import start

start("docker-filter", "services.docker_filter.room:serve")
