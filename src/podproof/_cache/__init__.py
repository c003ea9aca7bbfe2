"""Caches that expire, calls that are shared, and values that are made anew after a fork."""
