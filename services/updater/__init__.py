"""The updater room: says whether the containers run what their registries hold. It changes nothing.

Owns `report.json` in its own folder: the last report survives a restart. admin asks it (`GET /v1/report`, `POST
/v1/check`). It reaches Docker through `docker-filter` alone, which lets it look at this stack and nothing else.

A check: `room` knows when → `check`, a short process, because the docker SDK costs 25 MiB that an idle room need not
keep → `docker_host` asks the engine → `plan` compares, pure → the report.
"""
