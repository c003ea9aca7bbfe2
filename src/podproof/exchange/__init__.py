"""Token exchange: pods trade their projected token for a short-lived one of your own system."""

from __future__ import annotations
