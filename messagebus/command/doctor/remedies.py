"""The lines to change in the configuration of each proxy and server, by what is wrong."""

from __future__ import annotations

from .findings import Lines

LOOSE_SECONDS = 75
"""Above ``long_polling_interval`` and ``heartbeat_interval``."""

_APACHE_PASS = "ProxyPass / http://127.0.0.1:8000/ upgrade=websocket timeout=75 flushpackets=on"
"""The same for everything: of two lines for one path, Apache takes the first alone."""

UPGRADE: Lines = {
    "nginx": (
        "map $http_upgrade $connection_upgrade { default upgrade; '' ''; }  # in http {}",
        "proxy_http_version 1.1;",
        "proxy_set_header Upgrade $http_upgrade;",
        "proxy_set_header Connection $connection_upgrade;",
    ),
    "Apache": (
        "# Apache 2.4.47 or newer, with mod_proxy_http",
        _APACHE_PASS,
    ),
    "Caddy": ("reverse_proxy 127.0.0.1:8000  # passes upgrades on; remove header_up lines for Upgrade and Connection",),
    "Traefik": ("# It passes upgrades on; remove middlewares that set the headers Upgrade and Connection.",),
    "HAProxy": ("timeout tunnel 75s", "# and remove 'option httpclose', and http-request lines that delete Upgrade"),
    "gunicorn": ("# Without certfile and keyfile: end TLS in the proxy. worker_class: sync, gthread or gevent",),
}
BUFFERING: Lines = {
    "nginx": (
        "proxy_http_version 1.1;",
        "proxy_buffering off;",
        "gzip off;  # in the location /message-bus/",
        "# and remove 'proxy_ignore_headers X-Accel-Buffering;'",
    ),
    "Apache": ('SetEnvIf Request_URI "/message-bus/" no-gzip', _APACHE_PASS),
    "Caddy": (
        "@app not path /message-bus/*",
        "encode @app gzip",
        "reverse_proxy 127.0.0.1:8000 {",
        "    flush_interval -1",
        "}",
    ),
    "Traefik": ("# Leave the middlewares 'compress' and 'buffering' out of the router of /message-bus/.",),
    "HAProxy": ("option http-no-delay", "# and remove 'option http-buffer-request' and 'compression'"),
    "gunicorn": ("# It does not buffer; a middleware of the app may.",),
}
TIMEOUT: Lines = {
    "nginx": ("proxy_read_timeout 75s;", "proxy_send_timeout 75s;"),
    "Apache": ("ProxyTimeout 75", _APACHE_PASS),
    "Caddy": (
        "reverse_proxy 127.0.0.1:8000 {",
        "    transport http {",
        "        read_timeout 75s",
        "        response_header_timeout 75s",
        "    }",
        "}",
    ),
    "Traefik": (
        "serversTransports.bus.forwardingTimeouts.responseHeaderTimeout: 75s",
        "serversTransports.bus.forwardingTimeouts.idleConnTimeout: 90s",
    ),
    "HAProxy": ("timeout client 75s", "timeout server 75s", "timeout tunnel 75s"),
    "gunicorn": ("# Its timeout does not count for connections that the bus holds.",),
}
HOST: Lines = {
    "nginx": ("proxy_set_header Host $http_host;",),
    "Apache": ("ProxyPreserveHost On",),
    "Caddy": ("# It passes Host on; remove 'header_up Host ...'.",),
    "Traefik": ("http.services.app.loadBalancer.passHostHeader: true",),
    "HAProxy": ("# It passes Host on; remove 'http-request set-header Host ...'.",),
    "gunicorn": ("# Nothing: the app sees what the proxy sends.",),
}
ORIGIN: Lines = {
    "nginx": ("# Remove 'proxy_set_header Origin ...;'.",),
    "Apache": ("# Remove 'RequestHeader unset Origin' and 'RequestHeader set Origin ...'.",),
    "Caddy": ("# Remove 'header_up Origin ...' and 'header_up -Origin'.",),
    "Traefik": ("# Remove Origin from customRequestHeaders of the headers middleware.",),
    "HAProxy": ("# Remove 'http-request set-header Origin ...' and 'http-request del-header Origin'.",),
}


def prefix(path: str) -> Lines:
    """For an app that browsers reach below ``path``, such as ``/shop``."""
    return {
        "nginx": (
            f"location {path}/ {{",
            "    proxy_pass http://app/;  # the slash at the end takes the prefix off",
            f"    proxy_set_header X-Forwarded-Prefix {path};",
            "}",
        ),
        "Apache": (
            "# above the ProxyPass of /",
            _APACHE_PASS.replace(" / ", f" {path}/ ", 1),
            f"<Location {path}/>",
            f'    RequestHeader set X-Forwarded-Prefix "{path}"',
            "</Location>",
        ),
        "Caddy": (
            f"handle_path {path}/* {{",
            "    reverse_proxy 127.0.0.1:8000 {",
            f"        header_up X-Forwarded-Prefix {path}",
            "    }",
            "}",
        ),
        "Traefik": (f"http.middlewares.bus.stripPrefix.prefixes: [{path}]  # it sends X-Forwarded-Prefix by itself",),
        "HAProxy": (
            f"http-request set-header X-Forwarded-Prefix {path} if {{ path_beg {path}/ }}",
            rf"http-request replace-path {path}/(.*) /\1",
        ),
        "app": ("app.wsgi_app = ProxyFix(app.wsgi_app, x_for=1, x_proto=1, x_prefix=1)",),
    }
