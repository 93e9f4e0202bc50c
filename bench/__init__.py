"""The benchmark of insitu: BASELINES.md's data and queries, measured beside the plain database; no part of insitu."""
