"""The form of issued tokens, which those who issue and those who verify them agree on."""

from __future__ import annotations

TOKEN_TYPE = "at+jwt"  # noqa: S105  RFC 9068 section 2.1

ALGORITHMS = ("ES256", "EdDSA")

POD_CLAIM = "kubernetes.io"
"""The claim that names the pod and its service account, in the form of Kubernetes' own tokens."""

DEFAULT_LIFETIME = 300
MIN_LIFETIME = 30
MAX_LIFETIME = 900
"""Seconds. Services verify tokens without asking anyone, so a short life is what limits a stolen one."""
