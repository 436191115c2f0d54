"""Compiled programs and the host: callbacks, conditions, reports, and the store of factors."""
