"""The complete configurations of proxies that ask forward auth, as docs/forward-auth.md and the manifests have them."""

from __future__ import annotations

from collections.abc import Mapping
from string import Template
from typing import NamedTuple

PROXIES = ("caddy", "envoy", "nginx")
"""The proxies that forward auth answers."""


class Configuration(NamedTuple):
    """A proxy's configuration: the file's name and text, and the proxy's image and command, less the file's path."""

    file: str
    text: str
    image: str
    command: tuple[str, ...]


def configure_proxy(
    proxy: str,
    *,
    listen: str = "8000",
    forward_auth: int = 8080,
    app: int = 3000,
    directory: str = "/tmp",  # noqa: S108  as in a container
) -> Configuration:
    """Return the configuration of Envoy, nginx or Caddy in front of an app.

    `listen` is its port, `forward_auth` and `app` are those of the others, at 127.0.0.1; `directory` is for its
    temporary files.
    """
    made = _CONFIGURATIONS[proxy]
    values = {"listen": listen, "forward_auth": forward_auth, "app": app, "directory": directory}
    return made._replace(text=_Template(made.text).substitute(values))


class _Template(Template):
    delimiter = "@@"  # nginx has variables with a dollar sign


_NGINX = """\
daemon off;
pid @@directory/nginx.pid;
error_log stderr;
events {}
http {
    access_log off;
    client_body_temp_path @@directory/client_body;
    proxy_temp_path @@directory/proxy;
    fastcgi_temp_path @@directory/fastcgi;
    uwsgi_temp_path @@directory/uwsgi;
    scgi_temp_path @@directory/scgi;
    underscores_in_headers off;  # as by default: X_Podproof_Pod is X-Podproof-Pod for some apps
    large_client_header_buffers 4 16k;  # for tokens of up to 8 KiB
    map $http_upgrade $connection_upgrade {
        "" "";
        default upgrade;
    }
    upstream podproof {
        server 127.0.0.1:@@forward_auth;
        keepalive 16;
    }

    server {
        listen @@listen;

        location / {
            auth_request /podproof;
            auth_request_set $podproof_status $upstream_status;
            auth_request_set $podproof_challenge $upstream_http_www_authenticate;
            auth_request_set $podproof_retry_after $upstream_http_retry_after;
            auth_request_set $podproof_service_account $upstream_http_x_podproof_service_account;
            auth_request_set $podproof_pod $upstream_http_x_podproof_pod;
            auth_request_set $podproof_pod_uid $upstream_http_x_podproof_pod_uid;
            auth_request_set $podproof_audience $upstream_http_x_podproof_audience;
            auth_request_set $podproof_expires_at $upstream_http_x_podproof_expires_at;
            error_page 403 500 = @denied;  # nginx makes 500 of what is neither 401 nor 403

            # In the place of what the caller sends; an empty one is not passed on.
            proxy_set_header X-Podproof-Service-Account $podproof_service_account;
            proxy_set_header X-Podproof-Pod $podproof_pod;
            proxy_set_header X-Podproof-Pod-Uid $podproof_pod_uid;
            proxy_set_header X-Podproof-Audience $podproof_audience;
            proxy_set_header X-Podproof-Expires-At $podproof_expires_at;
            proxy_set_header Authorization "";  # the app does not see the token

            proxy_http_version 1.1;
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
            proxy_pass http://127.0.0.1:@@app;  # without a path: what is judged is what is passed on
        }

        location = /podproof {
            internal;
            proxy_pass_request_headers off;
            proxy_pass_request_body off;
            proxy_set_header Content-Length "";
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Authorization $http_authorization;
            proxy_set_header traceparent $http_traceparent;
            proxy_set_header X-Original-Method $request_method;
            proxy_set_header X-Original-URI $request_uri;
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_pass http://podproof;
        }

        location @denied {
            add_header WWW-Authenticate $podproof_challenge always;
            add_header Retry-After $podproof_retry_after always;
            if ($podproof_status = 400) { return 400; }
            if ($podproof_status = 403) { return 403; }
            if ($podproof_status = 503) { return 503; }
            return 500;
        }
    }
}
"""

_CADDY = """\
{
    admin off
    auto_https off
    persist_config off
    storage file_system @@directory/caddy
}

http://:@@listen {
    route {
        # What the caller sends of these, with underscores too, which some apps take for dashes. Newer versions of
        # Caddy clear those that they copy.
        request_header -X-Podproof-*
        request_header -X-Podproof_*
        request_header -X_Podproof-*
        request_header -X_Podproof_*

        # Caddy would remove the headers that the caller's Connection names, those of podproof too.
        @upgrade header Upgrade *
        request_header -Connection
        request_header @upgrade Connection Upgrade

        forward_auth 127.0.0.1:@@forward_auth {
            uri /
            header_up X-Forwarded-For {remote_host}
            header_up -Forwarded
            header_up -X-Original-*
            header_up -Cookie
            header_up -Connection
            header_up -Upgrade
            copy_headers X-Podproof-Service-Account X-Podproof-Pod X-Podproof-Pod-Uid
            copy_headers X-Podproof-Audience X-Podproof-Expires-At
        }
        reverse_proxy 127.0.0.1:@@app {
            header_up -Authorization  # the app does not see the token
        }
    }
}
"""

_ENVOY = """\
static_resources:
  listeners:
  - address:
      socket_address: {address: 0.0.0.0, port_value: @@listen}
    filter_chains:
    - filters:
      - name: http
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: app
          use_remote_address: true
          upgrade_configs:
          - upgrade_type: websocket
          common_http_protocol_options:
            headers_with_underscores_action: REJECT_REQUEST  # X_Podproof_Pod is X-Podproof-Pod for some apps
          http_filters:
          - name: clear  # what the caller sends of these
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation
              mutations:
                request_mutations:
                - remove: x-podproof-service-account
                - remove: x-podproof-pod
                - remove: x-podproof-pod-uid
                - remove: x-podproof-audience
                - remove: x-podproof-expires-at
          - name: podproof
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz
              failure_mode_allow: false
              status_on_error: {code: ServiceUnavailable}
              allowed_headers:
                patterns:
                - exact: authorization
                - exact: traceparent
              http_service:
                server_uri:  # without path_prefix: podproof is asked about the very path
                  uri: http://127.0.0.1:@@forward_auth
                  cluster: podproof
                  timeout: 6s  # a little more than podproof's own
                authorization_request:
                  headers_to_add:
                  - key: x-forwarded-for
                    value: "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%"
                authorization_response:
                  allowed_upstream_headers:
                    patterns:
                    - prefix: x-podproof-
          - name: router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
          route_config:
            virtual_hosts:
            - name: app
              domains: ["*"]
              request_headers_to_remove: [authorization]  # the app does not see the token
              routes:
              - match: {prefix: /}
                route: {cluster: app}
  clusters:
  - name: app
    type: STATIC
    load_assignment:
      cluster_name: app
      endpoints:
      - lb_endpoints:
        - endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: @@app}}}
  - name: podproof
    type: STATIC
    load_assignment:
      cluster_name: podproof
      endpoints:
      - lb_endpoints:
        - endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: @@forward_auth}}}
"""

_CONFIGURATIONS: Mapping[str, Configuration] = {
    "caddy": Configuration("Caddyfile", _CADDY, "caddy:2", ("caddy", "run", "--config")),
    "envoy": Configuration("envoy.yaml", _ENVOY, "envoyproxy/envoy:v1.36-latest", ("envoy", "-c")),
    "nginx": Configuration("nginx.conf", _NGINX, "nginx:stable", ("nginx", "-c")),
}
