// grpc_calls.cjs MODULES HOST: every kind of call to grpc_echo.py from another implementation of gRPC, and what came of it.
const [, , modules, host] = process.argv;
const grpc = require(modules + "/@grpc/grpc-js");
const bytes = value => value;
const method = (name, requestStream, responseStream) =>
  ({ path: "/test.Echo/" + name, requestStream, responseStream, requestSerialize: bytes, requestDeserialize: bytes, responseSerialize: bytes, responseDeserialize: bytes });
const Client = grpc.makeGenericClientConstructor({
  unary: method("unary", false, false), client_stream: method("client_stream", true, false), server_stream: method("server_stream", false, true),
  both_stream: method("both_stream", true, true), fails: method("fails", false, false), fails_midway: method("fails_midway", false, true),
  never: method("never", false, false),
}, "test.Echo");
const client = new Client(host + ":443", grpc.credentials.createSsl(require("fs").readFileSync(process.env.GRPC_DEFAULT_SSL_ROOTS_FILE_PATH)));
const metadata = new grpc.Metadata();
metadata.set("x-api-key", process.env.ACME_KEY);
// Both ends watch a deadline, each with words of its own.
const failure = error => error.code === grpc.status.DEADLINE_EXCEEDED ? "DEADLINE_EXCEEDED" : `${grpc.status[error.code]} ${error.details}`;
const call = (name, message, options = {}) => new Promise(resolve => {
  const result = { answer: "", initial: [], trailing: [] };
  const started = client[name](message, metadata, options, (error, answer) => { result.answer = error ? failure(error) : answer.toString(); });
  started.on("metadata", initial => { result.initial = initial.get("x-initial"); });
  started.on("status", status => { result.trailing = status.metadata.get("x-trailing").concat(status.metadata.get("x-why")); setImmediate(resolve, result); });
});
const all = stream => new Promise(resolve => {
  const got = [];
  stream.on("data", message => got.push(message.toString()));
  stream.on("error", error => got.push(failure(error)));
  stream.on("status", () => setImmediate(resolve, got));
});

(async () => {
  const say = (name, result) => console.log(name, JSON.stringify(result));
  say("unary", await call("unary", Buffer.from("hello")));
  say("client_stream", await new Promise(resolve => {
    const stream = client.client_stream(metadata, (error, answer) => resolve(error ? failure(error) : answer.toString()));
    for (const text of ["a", "", "c"]) stream.write(Buffer.from(text));
    stream.end();
  }));
  say("server_stream", await all(client.server_stream(Buffer.from("n"), metadata, { deadline: Date.now() + 50000 })));
  const both = client.both_stream(metadata);
  let sent = 0;
  const next = () => sent < 5 ? both.write(Buffer.from("ping " + sent++)) : both.end();
  both.on("data", next);
  next();
  say("both_stream", await all(both));
  say("fails", await call("fails", Buffer.alloc(0)));
  say("fails_midway", await all(client.fails_midway(Buffer.alloc(0), metadata)));
  const late = await call("never", Buffer.alloc(0), { deadline: Date.now() + 500 });
  // Whichever end notices first says it, each in its own spelling.
  late.answer = late.answer.replace("Deadline Exceeded", "Deadline exceeded");
  say("deadline", late);
  client.close();
})();
