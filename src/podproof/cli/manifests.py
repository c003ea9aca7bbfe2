"""`podproof manifests`: the YAML for both sides, with the smallest permissions that do."""

from __future__ import annotations

from collections.abc import Sequence
from string import Template
from typing import Literal

from podproof.cli.errors import CommandError
from podproof.identity import ServiceAccount

Part = Literal["rbac", "server", "caller"]


def manifests(
    audience: str | None,
    server: ServiceAccount | None,
    callers: Sequence[ServiceAccount],
    *,
    rbac: bool = False,
    only: Part | None = None,
) -> str:
    """Return the documents for a server and its callers, ready for `kubectl apply`: all of them, or `only` a part.

    With `rbac`, the server leaves it to the cluster's RBAC who may call what.

    Raises CommandError where somebody is not named whom the documents are about.
    """
    if server is None and (only in ("rbac", "server") or not callers):
        raise CommandError("name the server: --server NAMESPACE/NAME")
    if only == "caller" and not callers:
        raise CommandError("name the caller: --caller NAMESPACE/NAME")
    if audience is None and only != "rbac":
        raise CommandError("name the audience that callers have tokens issued for: --audience bob")
    documents = []
    if server is not None and only != "caller":
        names = {"namespace": server.namespace, "name": server.name, "audience": audience}
        if only != "server":
            documents.append(_RBAC.substitute(names, policy=_ACCESS_REVIEWS if rbac else ""))
        if only != "rbac":
            allow = "rbac" if rbac else ",".join(map(str, callers)) or f"{server.namespace}/*"
            variable, remark = ("POLICY", _BY_RBAC) if rbac else ("ALLOW", _BY_LIST)
            documents.append(_SERVER.substitute(names, variable=variable, allow=allow, remark=remark))
    for caller in callers if only in (None, "caller") else ():
        names = {"namespace": caller.namespace, "name": caller.name, "audience": audience}
        documents.append(_CALLER.substitute(names))
        if rbac and server is not None:
            documents.append(_GRANT.substitute(names, server=server.name))
    return "---\n".join(documents)


_RBAC = Template("""\
# What podproof asks the API server, and no more: is a token good, and where is its pod. A token belongs to no namespace
# and callers may live in any: a ClusterRoleBinding it must be, and no RoleBinding.
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata:
  name: podproof-$namespace-$name
rules:
  - apiGroups: [authentication.k8s.io]
    resources: [tokenreviews]
    verbs: [create]
  - apiGroups: [""]
    resources: [pods]
    verbs: [get]
$policy---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata:
  name: podproof-$namespace-$name
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: ClusterRole
  name: podproof-$namespace-$name
subjects:
  - kind: ServiceAccount
    namespace: $namespace
    name: $name
""")

_ACCESS_REVIEWS = """\
  - apiGroups: [authorization.k8s.io]
    resources: [subjectaccessreviews]
    verbs: [create]
"""

_BY_LIST = "who may call: namespace/name with shell globs, separated by commas"
_BY_RBAC = "who may call what, ClusterRoles with nonResourceURLs say"

_SERVER = Template("""\
apiVersion: v1
kind: ServiceAccount
metadata:
  namespace: $namespace
  name: $name
---
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
apiVersion: apps/v1
kind: Deployment
metadata:
  namespace: $namespace
  name: $name
spec:
  selector:
    matchLabels:
      app.kubernetes.io/name: $name
  template:
    metadata:
      labels:
        app.kubernetes.io/name: $name
    spec:
      serviceAccountName: $name
      containers:
        - name: app
          image: $name  # yours: it listens on port 8080, and wraps itself in podproof's PodAuthMiddleware
          env:
            - name: PODPROOF_AUDIENCE
              value: "$audience"
            - name: PODPROOF_$variable  # $remark
              value: "$allow"
          ports:
            - name: http
              containerPort: 8080
          securityContext:
            allowPrivilegeEscalation: false
""")

_CALLER = Template("""\
apiVersion: v1
kind: ServiceAccount
metadata:
  namespace: $namespace
  name: $name
---
apiVersion: apps/v1
kind: Deployment
metadata:
  namespace: $namespace
  name: $name
spec:
  selector:
    matchLabels:
      app.kubernetes.io/name: $name
  template:
    metadata:
      labels:
        app.kubernetes.io/name: $name
    spec:
      serviceAccountName: $name
      automountServiceAccountToken: false  # for calling apps, and not the API server
      containers:
        - name: app
          image: $name  # yours: it calls with podproof's TokenClient(audience="$audience")
          volumeMounts:
            - name: podproof
              mountPath: "/var/run/secrets/podproof/$audience"  # the folder, no subPath: the token is renewed
              readOnly: true
          securityContext:
            allowPrivilegeEscalation: false
      volumes:
        - name: podproof
          projected:
            sources:
              - serviceAccountToken:
                  audience: "$audience"
                  expirationSeconds: 3600  # the kubelet renews it when four fifths of that have gone by
                  path: token
""")

_GRANT = Template("""\
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata:
  name: $server-$namespace-$name
rules:
  - nonResourceURLs: ["/whoami"]  # the app's paths; the API server's own of the same names are granted with them
    verbs: [get]  # HTTP methods in lower case
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata:
  name: $server-$namespace-$name
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: ClusterRole
  name: $server-$namespace-$name
subjects:
  - kind: ServiceAccount
    namespace: $namespace
    name: $name
""")
