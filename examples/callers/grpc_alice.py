"""Alice with gRPC: `BOB=bob:443 BOB_CA=ca.pem python examples/callers/grpc_alice.py`.

gRPC calls `put_token` for each call, since the token rotates, and sends call credentials over TLS only.
"""

import os
from pathlib import Path

import grpc

from podproof import TokenClient

alice = TokenClient("bob")


def put_token(_: grpc.AuthMetadataContext, callback: grpc.AuthMetadataPluginCallback) -> None:
    callback(tuple((name.lower(), value) for name, value in alice.headers().items()), None)


def whoami(target: str, ca: bytes) -> str:
    credentials = grpc.composite_channel_credentials(
        grpc.ssl_channel_credentials(ca), grpc.metadata_call_credentials(put_token)
    )
    with grpc.secure_channel(target, credentials) as channel:
        response: bytes = channel.unary_unary("/bob.Bob/WhoAmI")(b"", timeout=10)
    return response.decode()


if __name__ == "__main__":
    print(whoami(os.environ["BOB"], Path(os.environ["BOB_CA"]).read_bytes()))
