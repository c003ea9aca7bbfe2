"""Bob with gRPC: `PODPROOF_AUDIENCE=bob python -m examples.grpc_bob`; PORT is 50051 unless it is set.

Calls are bytes here; a service that protoc has generated is added to the server as always.
"""

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2_grpc

from podproof import current_caller
from podproof.grpc import PodAuthInterceptor


def who_am_i(_request: bytes, _context: grpc.ServicerContext) -> bytes:
    caller = current_caller()
    return str(caller and caller.service_account).encode()


if __name__ == "__main__":
    guard = PodAuthInterceptor(exempt=["/grpc.health.v1.Health/*"])
    server = grpc.server(ThreadPoolExecutor(), interceptors=[guard])
    methods: dict[str, Any] = {"WhoAmI": grpc.unary_unary_rpc_method_handler(who_am_i)}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("bob.Bob", methods)])
    health_pb2_grpc.add_HealthServicer_to_server(health.HealthServicer(), server)
    port = server.add_insecure_port(f"[::]:{os.environ.get('PORT', '50051')}")
    server.start()
    signal.signal(signal.SIGTERM, lambda *_: server.stop(grace=10))
    print(f"listening on {port}", flush=True)
    server.wait_for_termination()
