// pusher-js and the HTTP SDK over TLS, with nothing changed but what every user changes: the host, the port and whom to
// trust. Certificates are made anew by `openssl`.

import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { Agent } from "node:https";
import { tmpdir } from "node:os";
import path from "node:path";
import { connect } from "node:tls";
import { MAIN } from "./apps.mjs";
import { fresh, next, run, test, until } from "./harness.mjs";

const FOLDER = process.env.TLS_FOLDER;
const AUTHORITY = path.join(FOLDER ?? "", "ca.pem");

function openssl(folder, ...args) {
  execFileSync("openssl", args, { cwd: folder, stdio: ["ignore", "ignore", "pipe"] });
}

/** A key and a certificate by the authority, for this machine. */
function certify(folder, name) {
  const key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", `${name}-key.pem`];
  openssl(folder, "req", ...key, "-subj", `/CN=${name}`, "-out", "request.pem");
  writeFileSync(path.join(folder, "names"), "subjectAltName=DNS:localhost,IP:127.0.0.1\n");
  const by = ["-CA", "ca.pem", "-CAkey", "ca-key.pem", "-CAcreateserial"];
  openssl(folder, "x509", "-req", "-in", "request.pem", ...by, "-days", "2", "-extfile", "names", "-out", `${name}.pem`);
}

if (!FOLDER) {
  // Node reads whom to trust when it starts.
  const folder = mkdtempSync(path.join(tmpdir(), "fanwire-tls-"));
  const key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", "ca-key.pem"];
  openssl(folder, "req", "-x509", ...key, "-subj", "/CN=an authority", "-days", "2", "-out", "ca.pem");
  certify(folder, "server");
  certify(folder, "client");
  const env = { ...process.env, TLS_FOLDER: folder, NODE_EXTRA_CA_CERTS: path.join(folder, "ca.pem") };
  const { status } = spawnSync(process.execPath, [import.meta.filename], { stdio: "inherit", env });
  rmSync(folder, { recursive: true });
  process.exit(status ?? 1);
}

const { PusherJs, options } = await import("./clients.mjs");
const { Server } = await import("./server.mjs");
const Pusher = (await import("pusher")).default;

const file = (name) => path.join(FOLDER, name);
const settings = { cert_file: file("server.pem"), key_file: file("server-key.pem") };
const server = await Server.start({ name: "tls", apps: [{ ...MAIN, tls_only: true }], sections: { tls: settings } });
const known = await Server.start({
  name: "tls-clients",
  apps: [MAIN],
  sections: { tls: { ...settings, client_ca_file: AUTHORITY } },
});

function client(t, where) {
  const { wsPort, ...rest } = options({ host: "localhost", port: where.port });
  const pusher = new PusherJs(MAIN.key, { ...rest, wssPort: wsPort, forceTLS: true, enabledTransports: ["ws", "wss"] });
  t.after(() => pusher.disconnect());
  return pusher;
}

async function connected(t, where = server) {
  const pusher = client(t, where);
  await next(pusher.connection, "connected");
  return pusher;
}

function api(where = server, more = {}) {
  const { id, key, secret } = MAIN;
  return new Pusher({ appId: id, key, secret, host: "localhost", port: String(where.port), useTLS: true, ...more });
}

test("pusher-js with forceTLS and the HTTP SDK over https", async (t) => {
  const pusher = await connected(t);
  const name = fresh("private-");
  const channel = pusher.subscribe(name);
  await next(channel, "pusher:subscription_succeeded");
  const heard = next(channel, "news");
  const { status } = await api().trigger(name, "news", { big: "x".repeat(9_000) });
  assert.equal(status, 200);
  assert.equal((await heard).data.big.length, 9_000);
  const { channels } = await (await api().get({ path: "/channels" })).json();
  assert.ok(name in channels);
});

test("a presence channel, a sign-in and client events", async (t) => {
  const anna = client(t, server);
  const name = fresh("presence-");
  const { wsPort, ...rest } = options({ host: "localhost", port: server.port, user: "ben" });
  const ben = new PusherJs(MAIN.key, { ...rest, wssPort: wsPort, forceTLS: true });
  t.after(() => ben.disconnect());
  const other = fresh("private-");
  const channel = ben.subscribe(other);
  await next(channel, "pusher:subscription_succeeded");
  const hers = anna.subscribe(other);
  await next(hers, "pusher:subscription_succeeded");
  const heard = next(hers, "client-hello");
  channel.trigger("client-hello", { from: "ben" });
  assert.deepEqual((await heard).data, { from: "ben" });
  ben.signin();
  await next(ben, "pusher:signin_success").catch(() => until("signed in", () => ben.user.user_data));
  const there = ben.subscribe(name);
  await next(there, "pusher:subscription_succeeded");
  assert.equal(there.members.count, 1);
});

test("a client without TLS is told so, and does not get in", async (t) => {
  const pusher = new PusherJs(MAIN.key, { ...options({ host: "localhost", port: server.port }), activityTimeout: 1000 });
  t.after(() => pusher.disconnect());
  await next(pusher.connection, "connecting").catch(() => {});
  assert.notEqual(pusher.connection.state, "connected");
  const answer = await fetch(`http://localhost:${server.port}/`);
  assert.equal(answer.status, 400);
  assert.match(await answer.text(), /TLS/);
});

test("a renewed certificate reaches who comes next, and nobody is disconnected", async (t) => {
  const pusher = await connected(t);
  const channel = pusher.subscribe(fresh("a-"));
  await next(channel, "pusher:subscription_succeeded");
  const states = [];
  pusher.connection.bind("state_change", ({ current }) => states.push(current));
  const before = await fingerprint();
  certify(FOLDER, "renewed");
  renameSync(file("renewed-key.pem"), file("server-key.pem"));
  renameSync(file("renewed.pem"), file("server.pem"));
  await until("another certificate", async () => (await fingerprint()) !== before, 15_000);
  const heard = next(channel, "news");
  await api().trigger(channel.name, "news", {});
  await heard;
  assert.deepEqual(states, []);
});

function fingerprint() {
  return new Promise((resolve, reject) => {
    const socket = connect({ host: "localhost", port: server.port, servername: "localhost" }, () => {
      resolve(socket.getPeerCertificate().fingerprint256);
      socket.destroy();
    });
    socket.once("error", reject);
  });
}

test("calls show a certificate where that is asked for, and sockets need none", async (t) => {
  const pusher = await connected(t, known);
  const channel = pusher.subscribe(fresh("a-"));
  await next(channel, "pusher:subscription_succeeded");
  const refused = await api(known).trigger(channel.name, "news", {}).catch((error) => error);
  assert.equal(refused.status, 403);
  const heard = next(channel, "news");
  const agent = new Agent({
    cert: readFileSync(file("client.pem")),
    key: readFileSync(file("client-key.pem")),
    ca: readFileSync(AUTHORITY),
  });
  await api(known, { agent }).trigger(channel.name, "news", {});
  await heard;
});

await run(async () => {
  await server.stop();
  await known.stop();
});
