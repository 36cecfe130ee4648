// The clients of the suites, all wired to the server that `run.mjs` started.

import { createRequire } from "node:module";
import { MAIN } from "./apps.mjs";
import { sdkFor } from "./auth.mjs";
import { next } from "./harness.mjs";

const require = createRequire(import.meta.url);
/** pusher-js as Node gets it; it includes encrypted channels. */
export const PusherJs = require("pusher-js");

function setting(name) {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set: start this suite with \`node tests/sdk/run.mjs\``);
  return value;
}

export const HOST = setting("SDK_HOST");
export const PORT = Number(setting("SDK_PORT"));
export const AUTH_URL = setting("SDK_AUTH_URL");

/** Options of pusher-js that every self-hosted set-up needs; `user` and `watch` are for the auth endpoint. */
export function options({ user = "", watch = "", app = MAIN, host = HOST, port = PORT } = {}) {
  const who = `app=${app.key}&user=${user}` + (watch ? `&watch=${watch}` : "");
  return {
    cluster: "self-hosted",
    wsHost: host,
    wsPort: port,
    forceTLS: false,
    enabledTransports: ["ws"],
    channelAuthorization: { endpoint: `${AUTH_URL}/channel?${who}`, transport: "ajax" },
    userAuthentication: { endpoint: `${AUTH_URL}/user?${who}`, transport: "ajax" },
  };
}

/** A pusher-js client that disconnects when test `t` ends. It may not be connected yet. */
export function client(t, who = {}) {
  const pusher = new PusherJs((who.app ?? MAIN).key, options(who));
  t.after(() => pusher.disconnect());
  return pusher;
}

/** A connected pusher-js client. */
export async function connected(t, who) {
  const pusher = client(t, who);
  if (pusher.connection.state !== "connected") await next(pusher.connection, "connected");
  return pusher;
}

/** Subscribes and waits for the server's word. */
export async function subscribed(pusher, name) {
  const channel = pusher.subscribe(name);
  if (!channel.subscribed) await next(channel, "pusher:subscription_succeeded");
  return channel;
}

/** The official HTTP client of the main app, or of another. */
export function api(app = MAIN, where = { host: HOST, port: PORT }) {
  return sdkFor(app, where);
}

/** What the HTTP API answers to a GET. */
export async function get(path, params, app) {
  return (await api(app).get({ path, params })).json();
}

/** The code in an `error` event of a pusher-js connection: a refused handshake wraps it once more. */
export function errorCode({ data, error }) {
  return (data ?? error?.data)?.code;
}
