// Prints what the server of URL says before its answer and lets it answer then.
import https from "node:https";

const [url] = process.argv.slice(2);
let hints = 0;
const request = https.get(`${url}/hints`, { headers: { "x-api-key": process.env.ACME_KEY } }, (answer) => answer.pipe(process.stdout));
request.on("information", ({ statusCode, headers }) => {
  console.log(statusCode, headers.link, headers["x-echo"]);
  if (++hints === 2) https.get(`${url}/go`, (answer) => answer.resume());
});
