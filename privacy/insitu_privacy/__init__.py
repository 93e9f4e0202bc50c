"""What is private and why: datasets, plans, mechanisms, accounting, merging.

Pure: no network, no clock, no database.
"""
