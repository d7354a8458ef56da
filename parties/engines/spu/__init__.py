"""SecretFlow-SPU 0.9.5 as an engine: its protocols and its own links, in a worker process beside each party.

Read in this order: `protocols` (who computes, and whom to trust), `engine` (the operations), `values` (local work is
deferred and compiled into the next operation), `sharing` (how secrets enter), `process` (the worker, seen from the
party), `worker` (the process itself, in an environment of its own, which `environment` finds).
"""
