// The auth endpoint of the tests: what an app's own backend does, with the official SDK's own functions.
//
//   POST /channel?user=ada      form: socket_id, channel_name   (private, presence and encrypted channels)
//   POST /user?user=ada&watch=bob,eve    form: socket_id        (sign-in)
//   GET  /blank                 an empty page, for scripts in a browser
//
// Channels named `private-denied…` are refused here; for `private-forged…` the signature is made with a wrong secret,
// so that it is the server that refuses.

import { createServer } from "node:http";
import Pusher from "pusher";
import { appOf, ENCRYPTION_MASTER_KEY, MAIN } from "./apps.mjs";

/** The official HTTP client for one app. Nothing is sent before a call is made. */
export function sdkFor(app, { host = "127.0.0.1", port = 1 } = {}) {
  return new Pusher({
    appId: app.id,
    key: app.key,
    secret: app.secret,
    host,
    port: String(port),
    useTLS: false,
    encryptionMasterKeyBase64: ENCRYPTION_MASTER_KEY,
  });
}

export async function startAuthEndpoint() {
  const server = createServer(async (request, response) => {
    const url = new URL(request.url, "http://localhost");
    response.setHeader("Access-Control-Allow-Origin", "*");
    response.setHeader("Access-Control-Allow-Headers", "*");
    if (request.method === "OPTIONS") return response.end();
    if (request.method === "GET") {
      response.setHeader("Content-Type", "text/html; charset=utf-8");
      return response.end("<!doctype html><title>blank</title>");
    }
    let body = "";
    for await (const chunk of request) body += chunk;
    try {
      response.setHeader("Content-Type", "application/json");
      response.end(JSON.stringify(answer(url, new URLSearchParams(body))));
    } catch (error) {
      response.statusCode = 403;
      response.end(JSON.stringify({ error: error.message }));
    }
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { url: `http://127.0.0.1:${server.address().port}`, close: () => server.close() };
}

function answer(url, form) {
  const user = url.searchParams.get("user");
  const app = appOf(url.searchParams.get("app")) ?? MAIN;
  const socketId = form.get("socket_id");
  if (url.pathname === "/user") {
    const watchlist = url.searchParams.get("watch")?.split(",");
    return sdkFor(app).authenticateUser(socketId, { id: user, user_info: person(user), watchlist });
  }
  const channel = form.get("channel_name");
  if (channel.startsWith("private-denied")) throw new Error("denied by the app");
  if (channel.startsWith("private-forged")) {
    return sdkFor({ ...app, secret: "not the secret" }).authorizeChannel(socketId, channel);
  }
  const member = channel.startsWith("presence-") && user ? { user_id: user, user_info: person(user) } : undefined;
  return sdkFor(app).authorizeChannel(socketId, channel, member);
}

function person(user) {
  return { name: user[0].toUpperCase() + user.slice(1) };
}
