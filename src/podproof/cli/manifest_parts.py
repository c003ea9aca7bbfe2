"""What the manifests of all servers have, and of their callers."""

from __future__ import annotations

ACCOUNT = """\
apiVersion: v1
kind: ServiceAccount
metadata:
  namespace: $namespace
  name: $name
---
"""

SERVICE = """\
apiVersion: v1
kind: Service
metadata:
  namespace: $namespace
  name: $name
spec:
  selector:
    app.kubernetes.io/name: $name
  ports:
    - name: http
      port: 80
      targetPort: http
---
"""

BY_KEYS = """\
            - name: PODPROOF_VERIFY  # tokens are reviewed only if their signing key is not published
              value: keys
"""

DISRUPTION_BUDGET = """\
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  namespace: $namespace
  name: $name
spec:
  minAvailable: 1
  selector:
    matchLabels:
      app.kubernetes.io/name: $name
---
"""
