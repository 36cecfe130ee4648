// A webhook endpoint made with pusher, the official Node SDK; what it prints is told in `backend.mjs`.

import { createServer } from "node:http";
import { sdkFor } from "./auth.mjs";

const sdk = sdkFor({ id: "1", key: process.env.HOOKED_KEY, secret: process.env.HOOKED_SECRET });

const server = createServer(async (request, response) => {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  const body = Buffer.concat(chunks).toString();
  const webhook = sdk.webhook({ headers: request.headers, rawBody: body });
  const problem = webhook.isValid() ? null : "isValid() answered false";
  const seen = problem ? null : { time_ms: webhook.getTime().getTime(), events: webhook.getEvents() };
  print({ path: request.url, headers: pairs(request.rawHeaders), body, problem, seen });
  response.writeHead(problem ? 401 : 200).end();
});
server.listen(0, "127.0.0.1", () => print({ port: server.address().port }));

function print(report) {
  process.stdout.write(JSON.stringify(report) + "\n");
}

function pairs(rawHeaders) {
  const odd = rawHeaders.filter((_, index) => index % 2 === 1);
  return odd.map((value, index) => [rawHeaders[2 * index].toLowerCase(), value]);
}
