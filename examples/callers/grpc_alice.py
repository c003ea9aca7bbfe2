"""Alice with gRPC: `BOB=bob:443 BOB_CA=ca.pem python examples/callers/grpc_alice.py`.

Without BOB_CA the connection is not encrypted, as to examples/grpc_bob.py.
"""

import os
from pathlib import Path
from typing import Any

import grpc

from podproof import TokenClient
from podproof.grpc import TokenInterceptor, call_credentials

alice = TokenClient("bob")


def whoami(target: str, ca: bytes | None) -> str:
    if ca is None:
        direct = [("grpc.enable_http_proxy", 0)]  # a proxy would see the token
        channel: Any = grpc.intercept_channel(grpc.insecure_channel(target, direct), TokenInterceptor(alice))
    else:
        tls = grpc.ssl_channel_credentials(ca)
        channel = grpc.secure_channel(target, grpc.composite_channel_credentials(tls, call_credentials(alice)))
    with channel:
        response: bytes = channel.unary_unary("/bob.Bob/WhoAmI")(b"", timeout=10)
    return response.decode()


if __name__ == "__main__":
    ca = os.environ.get("BOB_CA")
    print(whoami(os.environ["BOB"], Path(ca).read_bytes() if ca else None))
