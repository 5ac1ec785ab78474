import https from "node:https";

https.get(process.argv[2], (answer) => answer.pipe(process.stdout));
