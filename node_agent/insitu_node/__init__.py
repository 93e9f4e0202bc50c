"""The custodian's side of insitu: verifies, plans, reserves, runs, adds noise, and signs. Listens on no port."""

__version__ = "0.1.0"
