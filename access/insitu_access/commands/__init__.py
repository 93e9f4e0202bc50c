"""The access authority's command, one file per command; each imports what it needs when it runs, to start fast."""
