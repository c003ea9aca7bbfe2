"""`podproof manifests --exchange`: the YAML for a token exchange, with keys that are new each time."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from string import Template
from textwrap import indent

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from podproof.cli.manifest_parts import ACCOUNT, BY_KEYS, DISRUPTION_BUDGET, SERVICE
from podproof.identity import ServiceAccount


def render_exchange(
    audience: str, exchange: ServiceAccount, callers: Sequence[ServiceAccount], *, keys: bool = False
) -> str:
    """Return the documents of an exchange besides its RBAC permissions.

    `audience` is that of the callers' projected tokens. With `keys`, it verifies them by the cluster's signing keys.
    """
    return _EXCHANGE.substitute(
        namespace=exchange.namespace,
        name=exchange.name,
        audience=audience,
        key=indent(_new_key(), " " * 4),
        secret=secrets.token_urlsafe(48),
        allow=",".join(map(str, callers)),
        callers=", ".join(f'"{caller}"' for caller in callers),
        verify=BY_KEYS if keys else "",
    )


def _new_key() -> str:
    key = generate_private_key(SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


_SECRETS = """\
# Made just now: keep it out of version control. All replicas share this Secret, and nothing else. To rotate the signing
# key, add a file whose name sorts after the others; remove the old one a day later. The pairwise secret stays.
apiVersion: v1
kind: Secret
metadata:
  namespace: $namespace
  name: $name-keys
stringData:
  1.pem: |
$key  1.pairwise: "$secret"
---
apiVersion: v1
kind: ConfigMap
metadata:
  namespace: $namespace
  name: $name-grants
data:
  grants.yaml: |
    grants:
      - audience: ledger  # replace: a service that accepts the issued tokens
        allow: [$callers]
        scopes: []
        introspect: []  # service accounts, also in PODPROOF_ALLOW, that may ask whether a token is still active
---
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
        fsGroup: 10001
        seccompProfile:
          type: RuntimeDefault
      topologySpreadConstraints:
        - maxSkew: 1
          topologyKey: kubernetes.io/hostname
          whenUnsatisfiable: ScheduleAnyway
          labelSelector:
            matchLabels:
              app.kubernetes.io/name: $name
      containers:
        - name: exchange
          image: $name  # replace: an image with podproof[exchange]
          command: [python, -m, podproof, serve, exchange]
          env:
            - name: PODPROOF_AUDIENCE
              value: "$audience"
            - name: PODPROOF_ALLOW  # who may call: namespace/name with shell globs, separated by commas
              value: "$allow"
            - name: PODPROOF_PODS
              value: watch
$verify            - name: PODPROOF_EXCHANGE_ISSUER
              value: http://$name.$namespace.svc  # replace by https, with --tls-certificate and --tls-key
            - name: PODPROOF_EXCHANGE_KEYS
              value: /etc/podproof/keys
            - name: PODPROOF_EXCHANGE_GRANTS_FILE
              value: /etc/podproof/grants/grants.yaml
          ports:
            - name: http
              containerPort: 8080
          readinessProbe:
            httpGet:
              path: /readyz
              port: http
            periodSeconds: 2
          livenessProbe:
            httpGet:
              path: /livez
              port: http
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
          volumeMounts:
            - name: keys
              mountPath: /etc/podproof/keys  # without subPath, so that changes arrive
              readOnly: true
            - name: grants
              mountPath: /etc/podproof/grants
              readOnly: true
      volumes:
        - name: keys
          secret:
            secretName: $name-keys
            defaultMode: 0440
        - name: grants
          configMap:
            name: $name-grants
---
"""

_NETWORK_POLICY = """\
# Pods of the cluster may call; the exchange itself calls the API server and DNS, and nothing else.
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  namespace: $namespace
  name: $name
spec:
  podSelector:
    matchLabels:
      app.kubernetes.io/name: $name
  policyTypes: [Ingress, Egress]
  ingress:
    - from:
        - namespaceSelector: {}
      ports:
        - port: http
  egress:
    - ports:
        - port: 443
        - port: 6443
        - port: 53
          protocol: UDP
        - port: 53
          protocol: TCP
"""

_EXCHANGE = Template(ACCOUNT + _SECRETS + SERVICE + _DEPLOYMENT + DISRUPTION_BUDGET + _NETWORK_POLICY)
