"""The updater room: says whether the containers run what their registries hold, and replaces them behind a gate.

Owns in its own folder `report.json` (the last look), `journal.jsonl` (the run that is under way) and `history.json`.
admin asks it (`room`); it asks admin to hold mail and to send letters through the house (`admin_calls`), and reaches
Docker through `docker-filter` alone. It has no way to the internet and mounts no mail: the engine asks the registries.

`watch` knows when to look and what was wished for. Whatever needs the engine happens in a short process (`task`),
because the docker SDK costs 25 MiB that an idle room need not keep: a look (`survey` asks, `plan` compares), or a whole
run: `transaction` drives the table in `steps` forth, and back when a step fails, `work` has what each step does, the
`journal` has it before it is done. A run's process may be killed at any moment: the next start ends it.
"""
