"""Configs compared: several seeds of each, one table, one figure. See `compare_configs` and `entries`."""
