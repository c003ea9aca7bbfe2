"""`podproof manifests --forward-auth`: the YAML for an app in another language, behind a proxy that asks podproof."""

from __future__ import annotations

from string import Template
from textwrap import indent

from podproof.cli.manifest_parts import ACCOUNT, DISRUPTION_BUDGET, SERVICE
from podproof.cli.proxy_configurations import configure_proxy
from podproof.identity import ServiceAccount


def render_forward_auth(
    proxy: str, audience: str, server: ServiceAccount, *, variable: str, value: str, comment: str, verify: str
) -> str:
    """Return the documents of an app behind a proxy, besides its RBAC permissions.

    `variable`, with its value and a comment, says who may call; `verify` is what else is in podproof's environment.
    """
    made = configure_proxy(proxy)
    return _FORWARD_AUTH.substitute(
        namespace=server.namespace,
        name=server.name,
        audience=audience,
        proxy=proxy,
        image=made.image,
        file=made.file,
        command=", ".join([*made.command, f"/etc/proxy/{made.file}"]),
        configuration=indent(made.text, " " * 4),
        variable=variable,
        value=value,
        comment=comment,
        verify=verify,
    )


_CONFIGURATION = """\
# As in docs/forward-auth.md: it clears the identity headers that callers send, and takes the token off.
apiVersion: v1
kind: ConfigMap
metadata:
  namespace: $namespace
  name: $name-proxy
data:
  $file: |
$configuration---
"""

_DEPLOYMENT = """\
apiVersion: apps/v1
kind: Deployment
metadata:
  namespace: $namespace
  name: $name
spec:
  replicas: 2
  selector:
    matchLabels:
      app.kubernetes.io/name: $name
  template:
    metadata:
      labels:
        app.kubernetes.io/name: $name
    spec:
      serviceAccountName: $name
      terminationGracePeriodSeconds: 30
      securityContext:
        runAsNonRoot: true
        runAsUser: 10001
        seccompProfile:
          type: RuntimeDefault
      containers:
        - name: app
          image: $name  # replace: an app that listens on 127.0.0.1:3000, and believes the X-Podproof- headers
          lifecycle:
            preStop:
              exec:
                command: [sleep, "10"]
          securityContext:
            allowPrivilegeEscalation: false
        - name: proxy
          image: $image
          command: [$command]
          ports:
            - name: http
              containerPort: 8000
          readinessProbe:
            tcpSocket:
              port: http
            periodSeconds: 2
          lifecycle:
            preStop:  # callers still come for a while, until all nodes know that this pod ends
              exec:
                command: [sleep, "10"]
          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities:
              drop: [ALL]
          volumeMounts:
            - name: proxy
              mountPath: /etc/proxy
              readOnly: true
            - name: tmp
              mountPath: /tmp
        - name: podproof
          image: $name-podproof  # replace: an image with podproof[forward-auth]
          command: [python, -m, podproof, serve, forward-auth]
          env:
            - name: PODPROOF_FORWARD_AUTH_PROXY
              value: $proxy
            - name: PODPROOF_TRUSTED_PROXIES  # the proxy in this pod; no other address is believed
              value: 127.0.0.1
            - name: PODPROOF_AUDIENCE
              value: "$audience"
            - name: PODPROOF_$variable  # $comment
              value: "$value"
$verify          ports:
            - name: podproof
              containerPort: 8080
          readinessProbe:
            httpGet:
              path: /readyz
              port: podproof
            periodSeconds: 2
          livenessProbe:
            httpGet:
              path: /livez
              port: podproof
          resources:
            requests:
              cpu: 100m
              memory: 96Mi
            limits:
              memory: 256Mi
          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities:
              drop: [ALL]
      volumes:
        - name: proxy
          configMap:
            name: $name-proxy
        - name: tmp
          emptyDir: {}
---
"""

_NETWORK_POLICY = """\
# Pods reach the proxy, never the app behind it; podproof's port has the metrics, and answers no one but the proxy.
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  namespace: $namespace
  name: $name
spec:
  podSelector:
    matchLabels:
      app.kubernetes.io/name: $name
  policyTypes: [Ingress]
  ingress:
    - from:
        - namespaceSelector: {}
      ports:
        - port: http
        - port: podproof
"""

_FORWARD_AUTH = Template(ACCOUNT + _CONFIGURATION + SERVICE + _DEPLOYMENT + DISRUPTION_BUDGET + _NETWORK_POLICY)
