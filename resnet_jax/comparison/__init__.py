"""Configs compared: several seeds of each, one table, one figure. See `compare.compare` and `entries.parse_entry`."""
