// ws_conformance.cjs MODULES HOST [h2]: the client side of Autobahn's cases, which echoes; with h2 every WebSocket is a stream of HTTP/2 (RFC 8441).
const [, , modules, host, h2] = process.argv;
const WebSocket = require(modules + "/ws");
const http2 = require("http2");
const AT_ONCE = 16;

const headers = { "x-api-key": process.env.ACME_KEY };
const session = h2 && http2.connect("https://" + host);

// The same implementation of frames, on a stream that an extended CONNECT has opened.
async function overHttp2(path) {
  if (!session.remoteSettings?.enableConnectProtocol) await new Promise(resolve => session.once("remoteSettings", resolve));
  const stream = session.request({ ":method": "CONNECT", ":protocol": "websocket", ":path": path, "sec-websocket-version": "13", ...headers }, { endStream: false });
  await new Promise((resolve, reject) => {
    stream.on("response", answer => answer[":status"] === 200 ? resolve() : reject(new Error(answer[":status"])));
    stream.on("error", reject);
  });
  const socket = new WebSocket(null, undefined, { autoPong: true });
  socket._isServer = false;
  socket.setSocket(stream, Buffer.alloc(0), { allowSynchronousEvents: true, maxPayload: 0, skipUTF8Validation: false });
  return socket;
}

const open = async path => h2 ? overHttp2(path) : new WebSocket("wss://" + host + path, { headers, perMessageDeflate: false });

async function run(path, received) {
  const socket = await open(path);
  socket.on("message", (message, binary) => received ? received(message.toString()) : socket.send(message, { binary }));
  socket.on("error", () => {});
  await new Promise(resolve => socket.on("close", resolve));
}

(async () => {
  let count;
  await run("/getCaseCount", text => { count = Number(text); });
  let next = 1;
  const worker = async () => { while (next <= count) await run(`/runCase?case=${next++}&agent=ws`); };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  await run("/updateReports?agent=ws");
  console.log(count);
  session?.close();
})();
