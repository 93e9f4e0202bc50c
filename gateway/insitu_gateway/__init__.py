"""The operator's side: carries requests to the nodes, collects and stores what they release. Trusted by nobody."""

__version__ = "0.1.0"
