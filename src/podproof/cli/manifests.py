"""`podproof manifests`: the YAML for a server and its callers, with the least permissions that the server needs."""

from __future__ import annotations

from collections.abc import Sequence
from string import Template
from typing import Literal

from podproof.cli.errors import CommandError
from podproof.cli.forward_auth_manifests import render_forward_auth
from podproof.cli.manifest_parts import ACCOUNT, BY_KEYS, SERVICE
from podproof.identity import ServiceAccount

Part = Literal["rbac", "server", "caller"]


def render_manifests(
    audience: str | None,
    server: ServiceAccount | None,
    callers: Sequence[ServiceAccount],
    *,
    rbac: bool = False,
    keys: bool = False,
    namespace_labels: bool = False,
    exchange: bool = False,
    forward_auth: str | None = None,
    only: Part | None = None,
) -> str:
    """Return the YAML documents for a server and its callers, for `kubectl apply`: all of them, or `only` one part.

    With `rbac`, the cluster's RBAC decides who may call which path. With `keys`, the server verifies tokens by the
    cluster's signing keys, and watches pods. With `namespace_labels`, it may read the namespaces that its rules ask
    for. With `exchange`, the server is a token exchange, with `forward_auth` an app in another language behind that
    proxy.

    Raises CommandError if the server, the caller or the audience is missing.
    """
    _check(audience, server, callers, rbac=rbac, exchange=exchange, forward_auth=forward_auth, only=only)
    documents = []
    if server is not None and only != "caller":
        names = {"namespace": server.namespace, "name": server.name, "audience": audience}
        if only != "server":
            more = _ACCESS_REVIEWS * rbac + _NAMESPACES * namespace_labels + _SIGNING_KEYS * keys
            documents.append(_RBAC.substitute(names, pods="get, list, watch" if keys or exchange else "get", more=more))
        if only != "rbac" and exchange:
            from podproof.cli.exchange_manifests import render_exchange  # noqa: PLC0415  it makes keys

            documents.append(render_exchange(str(audience), server, callers, keys=keys))
        elif only != "rbac":
            allow = "rbac" if rbac else ",".join(map(str, callers)) or f"{server.namespace}/*"
            variable, comment = ("POLICY", _BY_RBAC) if rbac else ("ALLOW", _BY_LIST)
            verify = BY_KEYS if keys else ""
            if forward_auth is None:
                documents.append(
                    _SERVER.substitute(names, variable=variable, allow=allow, comment=comment, verify=verify)
                )
            else:
                documents.append(
                    render_forward_auth(
                        forward_auth,
                        str(audience),
                        server,
                        variable=variable,
                        value=allow,
                        comment=comment,
                        verify=verify,
                    )
                )
    for caller in callers if only in (None, "caller") else ():
        names = {"namespace": caller.namespace, "name": caller.name, "audience": audience}
        # Where TokenClient looks for it: under the audience of the server, or of an exchange in one place.
        client, folder = f'TokenClient(audience="{audience}")', f"/{audience}"
        if exchange:
            host = "EXCHANGE" if server is None else f"{server.name}.{server.namespace}.svc"
            client, folder = f'TokenClient("ledger", exchange="http://{host}/token")', ""
        documents.append(_CALLER.substitute(names, client=client, folder=folder))
        if rbac and server is not None:
            # Forward auth asks for both: routers of other languages often take them for one.
            paths = '"/whoami"' if forward_auth is None else '"/whoami", "/whoami/"'
            documents.append(_GRANT.substitute(names, server=server.name, paths=paths))
    return "---\n".join(documents)


def _check(
    audience: str | None,
    server: ServiceAccount | None,
    callers: Sequence[ServiceAccount],
    *,
    rbac: bool,
    exchange: bool,
    forward_auth: str | None,
    only: Part | None,
) -> None:
    if server is None and (only in ("rbac", "server") or not callers):
        raise CommandError("--server NAMESPACE/NAME is required")
    if only == "caller" and not callers:
        raise CommandError("--caller NAMESPACE/NAME is required")
    if exchange and (rbac or not callers) and only != "rbac":
        raise CommandError("--exchange needs --caller NAMESPACE/NAME, and cannot be combined with --policy rbac")
    if exchange and forward_auth is not None:
        raise CommandError("--exchange cannot be combined with --forward-auth")
    if audience is None and only != "rbac":
        raise CommandError("--audience is required: the audience of the callers' tokens, such as --audience bob")


_RBAC = Template("""\
# The calls that podproof makes: it reviews tokens, and reads the pods that they are bound to. TokenReviews have no
# namespace and callers can be in any, so this needs a ClusterRoleBinding: a RoleBinding does not grant it.
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
    verbs: [$pods]
$more---
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

_NAMESPACES = """\
  - apiGroups: [""]
    resources: [namespaces]
    verbs: [get]
"""

_SIGNING_KEYS = """\
  - nonResourceURLs: [/openid/v1/jwks, /.well-known/openid-configuration]
    verbs: [get]
"""

_BY_LIST = "allowed callers: namespace/name with shell globs, separated by commas"
_BY_RBAC = "ClusterRoles with nonResourceURLs decide who may call which path"

_SERVER = Template(
    ACCOUNT
    + SERVICE
    + """\
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
          image: $name  # replace: an app with podproof's PodAuthMiddleware that listens on port 8080
          env:
            - name: PODPROOF_AUDIENCE
              value: "$audience"
            - name: PODPROOF_$variable  # $comment
              value: "$allow"
$verify          ports:
            - name: http
              containerPort: 8080
          securityContext:
            allowPrivilegeEscalation: false
"""
)

_CALLER = Template(
    ACCOUNT
    + """\
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
      automountServiceAccountToken: false  # the caller does not need the API server
      containers:
        - name: app
          image: $name  # replace: an app that calls with podproof's $client
          volumeMounts:
            - name: podproof
              mountPath: "/var/run/secrets/podproof$folder"  # without subPath, so that it is renewed
              readOnly: true
          securityContext:
            allowPrivilegeEscalation: false
      volumes:
        - name: podproof
          projected:
            sources:
              - serviceAccountToken:
                  audience: "$audience"
                  expirationSeconds: 3600  # the kubelet renews the token after 80 % of this time
                  path: token
"""
)

_GRANT = Template("""\
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata:
  name: $server-$namespace-$name
rules:
  - nonResourceURLs: [$paths]  # paths of the app; the same paths on the API server are granted too
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
