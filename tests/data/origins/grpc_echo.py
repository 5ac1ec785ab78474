"""grpc_echo.py CERTIFICATE KEY: every kind of call, with what each saw of the credential on stdout. Messages are plain bytes."""
import sys, threading
from concurrent import futures
import grpc


def tell(context, call):
    key = dict(context.invocation_metadata()).get("x-api-key")
    print(f"{call} {key}", flush=True)


def unary(request, context):
    tell(context, "unary")
    context.send_initial_metadata((("x-initial", "first"),))
    context.set_trailing_metadata((("x-trailing", "last"), ("x-octets-bin", bytes(range(256)))))
    return request[::-1]


def client_stream(requests, context):
    tell(context, "client_stream")
    return b"+".join(requests)


def server_stream(request, context):
    tell(context, "server_stream")
    for n in range(2):
        yield request + b"%d" % n
    yield b"in time" if context.time_remaining() < 1000 else b"no deadline"


def both_stream(requests, context):
    """Answers each message before it takes the next."""
    tell(context, "both_stream")
    for request in requests:
        yield request.upper()


def fails(request, context):
    tell(context, "fails")
    context.set_trailing_metadata((("x-why", "because"),))
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "half-way: 100 % naïve")


def fails_midway(request, context):
    tell(context, "fails_midway")
    yield b"one"
    context.abort(grpc.StatusCode.DATA_LOSS, "midway")


def never(request, context):
    """Ends only with the call."""
    tell(context, "never")
    ended = threading.Event()
    context.add_callback(ended.set)
    ended.wait()
    print("never cancelled", flush=True)
    return b""


def handlers():
    for function, kind in [
        (unary, grpc.unary_unary_rpc_method_handler),
        (client_stream, grpc.stream_unary_rpc_method_handler),
        (server_stream, grpc.unary_stream_rpc_method_handler),
        (both_stream, grpc.stream_stream_rpc_method_handler),
        (fails, grpc.unary_unary_rpc_method_handler),
        (fails_midway, grpc.unary_stream_rpc_method_handler),
        (never, grpc.unary_unary_rpc_method_handler),
    ]:
        yield function.__name__, kind(function)


certificate, key = (open(path, "rb").read() for path in sys.argv[1:])
server = grpc.server(futures.ThreadPoolExecutor(8), options=[("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)])
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", dict(handlers())),))
for address in ("203.0.113.14:443", "[2001:db8:113::14]:443"):
    assert server.add_secure_port(address, grpc.ssl_server_credentials([(key, certificate)]))
server.start()
print("ready", flush=True)
server.wait_for_termination()
