"""What happens when something breaks: processes killed, power cut, disks full, DNS that lies, rooms away.

`python -m tests.faults NAME` runs one of them in full and prints its counts (docs/faults.md keeps them); the short
rounds that scripts/test runs are in tests/scenarios and tests/stack.
"""
