// How long may a server let a client wait that it refuses with 4100? Not a test: it asks the real pusher-js, unmodified,
// in Chromium, and prints what came of it: `node tests/sdk/node/refusal-delay.mjs [SECONDS]`. docs/sizing.md tells the
// answer, and `server.refusal_delay_ms_max` heeds it.
//
// The server here is no Fanwire: it answers each connection as the app's key says, `late` (101 and 4100 together, after
// the delay) or `split` (101 at once, 4100 after the delay), and `known` if the first connection of a page is to be
// greeted, so that pusher-js remembers how long that took. What counts is who hangs up before it was told.

import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdtempSync, readFileSync } from "node:fs";
import { createServer } from "node:http";
import { createServer as createTlsServer } from "node:https";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import path from "node:path";
import { chromium } from "playwright-core";

const SECONDS = Number(process.argv[2] ?? 15);
const DELAYS_MS = [500, 900, 1000, 1100, 1500, 1900, 2100, 3000, 5500];
const PAGES_AT_ONCE = 8;
const GREETED_MS = 300;

const script = readFileSync(createRequire(import.meta.url).resolve("pusher-js/dist/web/pusher.js"));
const seen = new Map(); // key → what happened, in order

function note(key, what) {
  if (!seen.has(key)) seen.set(key, []);
  seen.get(key).push({ at: Date.now(), what });
}

function frame(first, payload) {
  const bytes = Buffer.from(payload);
  const length = bytes.length < 126 ? [bytes.length] : [126, bytes.length >> 8, bytes.length & 0xff];
  return Buffer.concat([Buffer.from([first, ...length]), bytes]);
}

const message = (event, data) => frame(0x81, JSON.stringify({ event, data }));

function refusal() {
  const close = Buffer.concat([Buffer.from([4100 >> 8, 4100 & 0xff]), Buffer.from("Over capacity")]);
  return Buffer.concat([message("pusher:error", { code: 4100, message: "Over capacity" }), frame(0x88, close)]);
}

function onUpgrade(request, socket) {
  const key = request.url.split(/[/?]/)[2];
  const [style, delay] = key.split("-");
  const proof = createHash("sha1").update(`${request.headers["sec-websocket-key"]}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`);
  const answer = Buffer.from(
    `HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: ${proof.digest("base64")}\r\n\r\n`,
  );
  let isTold = false;
  // Anything that comes before it was told is a goodbye: it has nothing to say otherwise.
  const gone = () => {
    if (!isTold) note(key, "gave up");
    isTold = true;
    socket.destroy();
  };
  socket.on("error", gone).on("end", gone).on("close", gone).on("data", gone);
  if (key.includes("-known-") && !seen.has(key)) {
    note(key, "greeted");
    const greeting = message("pusher:connection_established", JSON.stringify({ socket_id: "1.2", activity_timeout: 120 }));
    socket.write(Buffer.concat([answer, greeting]));
    isTold = true;
    setTimeout(() => socket.write(refusal()), GREETED_MS);
    return;
  }
  note(key, "came");
  if (style === "split") socket.write(answer);
  setTimeout(() => {
    if (isTold) return;
    isTold = true;
    note(key, "told");
    socket.end(style === "split" ? refusal() : Buffer.concat([answer, refusal()]));
  }, Number(delay));
}

function onRequest(request, response) {
  if (request.url === "/pusher.js") return response.end(script);
  if (request.url === "/") {
    response.setHeader("Content-Type", "text/html");
    return response.end('<!doctype html><script src="/pusher.js"></script>');
  }
  // Another transport of pusher-js: /pusher/app/KEY/….
  const key = request.url.match(/\/app\/([^/]+)\//)?.[1];
  if (key) note(key, "tried HTTP");
  response.statusCode = 404;
  response.end();
}

function certificate() {
  const folder = mkdtempSync(path.join(tmpdir(), "refusal-delay-"));
  const [key, cert] = ["key.pem", "cert.pem"].map((name) => path.join(folder, name));
  execFileSync("openssl", ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1",
    "-subj", "/CN=localhost", "-keyout", key, "-out", cert], { stdio: "ignore" });
  return { key: readFileSync(key), cert: readFileSync(cert) };
}

const listen = (server) =>
  new Promise((resolve) => server.on("upgrade", onUpgrade).listen(0, "127.0.0.1", () => resolve(server.address().port)));
const [plainPort, tlsPort] = [await listen(createServer(onRequest)), await listen(createTlsServer(certificate(), onRequest))];
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
});

/** Opens pages that share what a browser shares between its tabs, each with a client of its own; tells how they fared. */
async function visit(keys, { isTls, onlyWebSockets }) {
  const context = await browser.newContext({ ignoreHTTPSErrors: true });
  const states = [];
  for (const key of keys) {
    const page = await context.newPage();
    await page.goto(isTls ? `https://127.0.0.1:${tlsPort}/` : `http://127.0.0.1:${plainPort}/`);
    await page.evaluate(
      ([key, plainPort, tlsPort, isTls, onlyWebSockets]) => {
        window.states = [];
        const options = {
          cluster: "x", wsHost: "127.0.0.1", wsPort: plainPort, wssPort: tlsPort,
          httpHost: "127.0.0.1", httpPort: plainPort, httpsPort: tlsPort, forceTLS: isTls,
        };
        if (onlyWebSockets) options.enabledTransports = ["ws", "wss"];
        const pusher = new window.Pusher(key, options);
        pusher.connection.bind("state_change", ({ current }) => window.states.push(current));
      },
      [key, plainPort, tlsPort, isTls, onlyWebSockets],
    );
    states.push(page);
  }
  await new Promise((resolve) => setTimeout(resolve, SECONDS * 1000));
  // Who hangs up from now on does so because the page is closed.
  const happened = keys.map((key) => [...(seen.get(key) ?? [])]);
  const reached = await Promise.all(states.map((page) => page.evaluate("window.states")));
  await context.close();
  return keys.map((_, index) => {
    const count = (what) => happened[index].filter((event) => event.what === what).length;
    return {
      came: count("came"), told: count("told"), "gave up": count("gave up"), "tried HTTP": count("tried HTTP"),
      unavailable: reached[index].includes("unavailable") ? "yes" : "no",
    };
  });
}

const conditions = [
  ["plain, ws only", { isTls: false, onlyWebSockets: true }],
  ["plain, stock", { isTls: false, onlyWebSockets: false }],
  ["TLS, ws only", { isTls: true, onlyWebSockets: true }],
  ["TLS, stock", { isTls: true, onlyWebSockets: false }],
];
const visits = [];
for (const [name, condition] of conditions) {
  for (const history of ["fresh", "known"]) {
    for (const style of ["split", "late"]) {
      for (const delay of DELAYS_MS) {
        visits.push(async () => {
          const [row] = await visit([`${style}-${delay}-${history}-${visits.length}${Math.random().toString(36).slice(2)}`], condition);
          return { page: name, history, style, "delay ms": delay, ...row };
        });
      }
    }
  }
}
const rows = [];
const work = async () => {
  for (let next = visits.shift(); next; next = visits.shift()) rows.push(await next());
};
await Promise.all(Array.from({ length: PAGES_AT_ONCE }, work));
const order = (row) => [row.page, row.history, row.style, String(row["delay ms"]).padStart(5)].join();
rows.sort((one, other) => order(one).localeCompare(order(other)));
console.table(rows);

console.log("six tabs of one browser, 900 ms");
for (const style of ["split", "late"]) {
  const keys = Array.from({ length: 6 }, (_, tab) => `${style}-900-known-tab${tab}${Math.random().toString(36).slice(2)}`);
  console.table(await visit(keys, { isTls: false, onlyWebSockets: true }).then((all) => all.map((row) => ({ style, ...row }))));
}
await browser.close();
process.exit(0);
