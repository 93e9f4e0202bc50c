"""Databases of the site, behind one interface: ``base`` says what an engine is, ``open`` makes the one configured."""
