"""The audit log of a party: append-only, hash-chained, sealed with the party's own key; and how logs are held together.

    entry      one line of a log, and its place in the chain                     pure
    kinds      what may be written, by kind: a closed vocabulary                 pure
    seal       a signature over the chain so far                                 pure
    chain      checks lines one by one: any cut, edit, reorder or gap is found   pure
    trail      a party's log held against what others say: omissions show        ``reconcile``, pure
    log        the files: one writer at a time, fsync, days, retention
    reading    logs and result files from disk
    commands   what the three parties' ``audit`` commands share

Controls E1 to E11 of ``docs/threat-model.md``. What is not here: what a node or a gateway writes and when, which is
theirs (``insitu_node.audit``, ``insitu_gateway.audit``).
"""
