"""The audit log of a party: append-only, hash-chained, sealed with the party's own key; and how logs are held together.

Pure:
    entry          one line of a log, and its place in the chain
    kinds          what may be written, by kind: a closed vocabulary
    seal           a signature over the chain so far
    chain          checks lines one by one: any cut, edit, reorder or gap is found
    trail          what a verified log says, ordered for comparison
    reconcile      logs and receipts held against each other: an omission shows
At the edge:
    log            one writer at a time, fsync, days, retention
    files          the files that a log is in, and copies of it
    settings       the ``[audit]`` table of a party's configuration
    acts           acts of administration, as every party records them
    of_authority   what the access authority writes
    parties, receipts, reconciling    what is handed in to be reconciled
    commands, options                 what the three parties' ``audit`` commands share

Controls E1 to E12 of ``docs/threat-model.md``. What is not here: what a node or a gateway writes and when, which is
theirs (``insitu_node.audit``, ``insitu_gateway.audit``).
"""
