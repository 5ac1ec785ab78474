"""grpc_calls.py HOST: every kind of call to grpc_echo.py, and what came of it."""
import hashlib, os, queue, sys
import grpc

channel = grpc.secure_channel(
    f"{sys.argv[1]}:443",
    grpc.ssl_channel_credentials(),
    [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)],
)
METADATA = (("x-api-key", os.environ["ACME_KEY"]),)


def failure(error):
    trailing = {key: value for key, value in error.trailing_metadata() if key.startswith("x-")}
    return f"{error.code().name} {error.details()!r} {trailing}"


def unary():
    answer, call = channel.unary_unary("/test.Echo/unary").with_call(b"hello", metadata=METADATA, timeout=50)
    initial = dict(call.initial_metadata())["x-initial"]
    trailing = dict(call.trailing_metadata())
    return answer, initial, trailing["x-trailing"], trailing["x-octets-bin"] == bytes(range(256)), call.code().name


def large():
    message = os.urandom(8 << 20)
    answer = channel.unary_unary("/test.Echo/unary")(message, metadata=METADATA)
    return hashlib.sha256(answer).digest() == hashlib.sha256(message[::-1]).digest()


def client_stream():
    return channel.stream_unary("/test.Echo/client_stream")(iter([b"a", b"", b"c"]), metadata=METADATA)


def server_stream():
    stream = channel.unary_stream("/test.Echo/server_stream")
    return list(stream(b"n", metadata=METADATA)), list(stream(b"d", metadata=METADATA, timeout=50))


def both_stream():
    """Sends each message only when the answer to the one before has come."""
    answers = []
    outgoing = queue.Queue()
    call = channel.stream_stream("/test.Echo/both_stream")(iter(outgoing.get, None), metadata=METADATA)
    for n in range(5):
        outgoing.put(b"ping %d" % n)
        answers.append(next(call))
    outgoing.put(None)
    return answers, list(call), call.code().name


def fails():
    try:
        channel.unary_unary("/test.Echo/fails")(b"", metadata=METADATA)
    except grpc.RpcError as error:
        return failure(error)


def fails_midway():
    call, got = channel.unary_stream("/test.Echo/fails_midway")(b"", metadata=METADATA), []
    try:
        got.extend(iter(lambda: next(call), None))
    except grpc.RpcError as error:
        return got, failure(error)


def unknown():
    try:
        channel.unary_unary("/test.Echo/nothing")(b"", metadata=METADATA)
    except grpc.RpcError as error:
        return failure(error)


def deadline():
    try:
        channel.unary_unary("/test.Echo/never")(b"", metadata=METADATA, timeout=0.5)
    except grpc.RpcError as error:
        return error.code().name


for call in (unary, large, client_stream, server_stream, both_stream, fails, fails_midway, unknown, deadline):
    print(call.__name__, call(), flush=True)
