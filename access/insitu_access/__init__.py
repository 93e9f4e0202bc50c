"""Who may ask: keys, certificates, manifest, grants, signed requests and releases; the authority's command."""

__version__ = "0.1.0"
