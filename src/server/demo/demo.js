// The demo page: stock pusher-js against the server that served this file, with the demo app of development mode.
//
// NEVER DO THIS IN PRODUCTION: this page knows the app's secret and signs for itself, both its channels and its calls
// of the HTTP API. It can, because the demo app is public and exists only while no apps are configured. In a real app
// the secret stays on your backend: give pusher-js the `endpoint` of your backend instead of the `customHandler` below.
"use strict";

const APP = { id: "1", key: "app-key", secret: "app-secret" };

/** What stands before all paths of the server: this page is at `PREFIX/`. Empty, or like "/ws". */
const PREFIX = location.pathname.replace(/\/[^/]*$/, "");

const element = (id) => document.getElementById(id);

const me = randomPerson();

// ── Signing ──────────────────────────────────────────────────────────────────────────────────────────────────────────

const bytes = (text) => new TextEncoder().encode(text);
const hex = (buffer) => Array.from(new Uint8Array(buffer), (byte) => byte.toString(16).padStart(2, "0")).join("");

/** HMAC-SHA256 with the app's secret, in hex. */
async function sign(text) {
  const algorithm = { name: "HMAC", hash: "SHA-256" };
  const key = await crypto.subtle.importKey("raw", bytes(APP.secret), algorithm, false, ["sign"]);
  return hex(await crypto.subtle.sign("HMAC", key, bytes(text)));
}

/** What a backend's auth endpoint answers for a presence channel. */
async function authorize({ socketId, channelName }) {
  const channel_data = JSON.stringify({ user_id: me.id, user_info: { name: me.name, hue: me.hue } });
  return { auth: `${APP.key}:${await sign(`${socketId}:${channelName}:${channel_data}`)}`, channel_data };
}

/** Publishes `data` as `name` on `channel`, by the HTTP API, as a backend does. The prefix is not signed. */
async function trigger(channel, name, data) {
  const path = `/apps/${APP.id}/events`;
  const body = JSON.stringify({ name, channels: [channel], data: JSON.stringify(data) });
  const query =
    `auth_key=${APP.key}&auth_timestamp=${Math.floor(Date.now() / 1000)}&auth_version=1.0&body_md5=${md5(body)}`;
  const signature = await sign(`POST\n${path}\n${query}`);
  const response = await fetch(`${PREFIX}${path}?${query}&auth_signature=${signature}`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body,
  });
  if (!response.ok) throw new Error(`${response.status}: ${await response.text()}`);
}

/** MD5 in hex (RFC 1321). Browsers have none built in, and the HTTP API asks for the body's. */
function md5(text) {
  const input = bytes(text);
  const blocks = ((input.length + 8) >> 6) + 1;
  const padded = new DataView(new ArrayBuffer(blocks * 64));
  input.forEach((byte, at) => padded.setUint8(at, byte));
  padded.setUint8(input.length, 0x80);
  padded.setUint32(blocks * 64 - 8, input.length * 8, true);
  padded.setUint32(blocks * 64 - 4, Math.floor(input.length / 2 ** 29), true);

  const shifts = [[7, 12, 17, 22], [5, 9, 14, 20], [4, 11, 16, 23], [6, 10, 15, 21]];
  const rounds = [
    (b, c, d) => (b & c) | (~b & d),
    (b, c, d) => (d & b) | (~d & c),
    (b, c, d) => b ^ c ^ d,
    (b, c, d) => c ^ (b | ~d),
  ];
  const word = [(n) => n, (n) => 5 * n + 1, (n) => 3 * n + 5, (n) => 7 * n];
  const state = [0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476];
  for (let block = 0; block < blocks; block += 1) {
    let [a, b, c, d] = state;
    for (let n = 0; n < 64; n += 1) {
      const round = n >> 4;
      const m = padded.getUint32(block * 64 + (word[round](n) % 16) * 4, true);
      const constant = Math.floor(Math.abs(Math.sin(n + 1)) * 2 ** 32);
      const sum = (a + rounds[round](b, c, d) + constant + m) | 0;
      const shift = shifts[round][n % 4];
      [a, d, c, b] = [d, c, b, (b + ((sum << shift) | (sum >>> (32 - shift)))) | 0];
    }
    [a, b, c, d].forEach((value, at) => (state[at] = (state[at] + value) | 0));
  }
  const digest = new DataView(new ArrayBuffer(16));
  state.forEach((value, at) => digest.setUint32(at * 4, value, true));
  return hex(digest.buffer);
}

// ── What is shown ────────────────────────────────────────────────────────────────────────────────────────────────────

function randomPerson() {
  const pick = (words) => words[Math.floor(Math.random() * words.length)];
  const first = pick(["Amber", "Brisk", "Calm", "Dusky", "Early", "Fair", "Gentle", "Hazel", "Jolly", "Keen", "Lucky"]);
  const second = pick(["Badger", "Crane", "Dove", "Elk", "Finch", "Heron", "Ibex", "Lark", "Marten", "Otter", "Wren"]);
  const id = Math.random().toString(36).slice(2, 10) || "0";
  return { id, name: `${first} ${second}`, hue: Math.floor(Math.random() * 360) };
}

/** A name with its colour. Names come from other people: they are set as text, never as markup. */
function person(tag, { name, hue }) {
  const node = document.createElement(tag);
  node.className = "who";
  node.style.setProperty("--hue", String(Number(hue) || 0));
  node.textContent = String(name);
  return node;
}

/** Adds a line to a log and forgets the oldest beyond fifty. */
function log(id, ...parts) {
  const list = element(id);
  const line = document.createElement("li");
  const time = document.createElement("time");
  time.textContent = new Date().toLocaleTimeString([], { hour12: false });
  line.append(time, ...parts.flatMap((part) => [" ", part]));
  list.append(line);
  while (list.children.length > 50) list.firstChild.remove();
  list.scrollTop = list.scrollHeight;
}

function notice(text) {
  element("notice").textContent = text;
  element("notice").hidden = false;
}

function showMembers(members) {
  const lines = [];
  members.each(({ id, info }) => {
    const line = person("li", info);
    line.className = id === me.id ? "me" : "";
    if (id === me.id) line.append(" (you)");
    lines.push(line);
  });
  element("members").replaceChildren(...lines);
}

// ── The connection ───────────────────────────────────────────────────────────────────────────────────────────────────

function connect() {
  const tls = location.protocol === "https:";
  const port = Number(location.port) || (tls ? 443 : 80);
  const pusher = new Pusher(APP.key, {
    wsHost: location.hostname,
    wsPort: port,
    wssPort: port,
    wsPath: PREFIX,
    forceTLS: tls,
    enabledTransports: ["ws", "wss"],
    cluster: "self-hosted", // not used with `wsHost`, but pusher-js insists on one
    channelAuthorization: {
      customHandler: (request, answer) =>
        authorize(request).then((authorized) => answer(null, authorized), (error) => answer(error, null)),
    },
  });
  pusher.connection.bind("state_change", ({ current }) => {
    element("state").textContent = current;
    element("state").dataset.state = current;
    element("socket-id").textContent = pusher.connection.socket_id ?? "none";
    // What was said about the connection before is over.
    if (current === "connected") element("notice").hidden = true;
  });
  pusher.connection.bind("error", (error) => {
    const { code, message } = error.data ?? error.error?.data ?? {};
    if (code === 4001) notice("The demo app is not here: this server has apps of its own configured.");
    else if (message) notice(`The server says: ${message}`);
  });
  return pusher;
}

function joinLobby(pusher) {
  const lobby = pusher.subscribe("presence-lobby");
  const nameOf = (userId) => lobby.members.get(userId)?.info ?? { name: "Somebody", hue: 0 };
  const refresh = () => showMembers(lobby.members);
  lobby.bind("pusher:subscription_succeeded", refresh);
  lobby.bind("pusher:subscription_error", ({ error }) => notice(`presence-lobby was refused: ${error}`));
  lobby.bind("pusher:member_added", ({ info }) => {
    refresh();
    log("chat-log", person("span", info), "came");
  });
  lobby.bind("pusher:member_removed", ({ info }) => {
    refresh();
    log("chat-log", person("span", info), "left");
  });

  let quiet;
  lobby.bind("client-typing", (_, { user_id }) => {
    element("typing").textContent = `${nameOf(user_id).name} is typing`;
    clearTimeout(quiet);
    quiet = setTimeout(() => (element("typing").textContent = ""), 2000);
  });
  lobby.bind("client-message", ({ text }, { user_id }) => {
    element("typing").textContent = "";
    log("chat-log", person("span", nameOf(user_id)), String(text));
  });

  let typed = 0;
  element("message").addEventListener("input", () => {
    // At most one a second: the server refuses more than ten client events a second.
    if (Date.now() - typed < 1000) return;
    typed = Date.now();
    lobby.trigger("client-typing", {});
  });
  element("chat").addEventListener("submit", (event) => {
    event.preventDefault();
    const text = element("message").value.trim();
    if (!text || !lobby.trigger("client-message", { text })) return;
    // The sender is not sent its own client events.
    log("chat-log", person("span", me), text);
    element("message").value = "";
  });
}

function listenToDemo(pusher) {
  const channel = pusher.subscribe("demo");
  channel.bind_global((event, data) => {
    if (!event.startsWith("pusher:")) log("public-log", `${event} ${JSON.stringify(data)}`);
  });
  const button = element("trigger");
  button.addEventListener("click", async () => {
    button.disabled = true;
    const started = performance.now();
    try {
      await trigger("demo", "hello", { from: me.name });
      element("trigger-result").textContent = `Accepted in ${Math.round(performance.now() - started)} ms.`;
    } catch (error) {
      element("trigger-result").textContent = `Refused: ${error.message}`;
    }
    button.disabled = false;
  });
}

// ── To take away ─────────────────────────────────────────────────────────────────────────────────────────────────────

function showSnippets() {
  const tls = location.protocol === "https:";
  const port = Number(location.port) || (tls ? 443 : 80);
  element("snippet-js").textContent = `const pusher = new Pusher("${APP.key}", {
  wsHost: "${location.hostname}",
  wsPort: ${port},
  wssPort: ${port},${PREFIX && `\n  wsPath: "${PREFIX}",`}
  forceTLS: ${tls},
  enabledTransports: ["ws", "wss"],
  cluster: "self-hosted",
});
pusher.subscribe("demo").bind("hello", (data) => console.log(data));`;
  element("snippet-curl").textContent = `body='{"name":"hello","channels":["demo"],"data":"{\\"from\\":\\"curl\\"}"}'
md5=$(printf '%s' "$body" | openssl md5 | sed 's/^.* //')
query="auth_key=${APP.key}&auth_timestamp=$(date +%s)&auth_version=1.0&body_md5=$md5"
signature=$(printf 'POST\\n/apps/${APP.id}/events\\n%s' "$query" | openssl sha256 -hmac '${APP.secret}' | sed 's/^.* //')
curl -H 'Content-Type: application/json' -d "$body" \\
  "${location.origin}${PREFIX}/apps/${APP.id}/events?$query&auth_signature=$signature"`;
  for (const button of document.querySelectorAll("[data-copy]")) {
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(element(button.dataset.copy).textContent);
      button.textContent = "Copied";
      setTimeout(() => (button.textContent = "Copy"), 1500);
    });
  }
}

showSnippets();
if (globalThis.crypto?.subtle) {
  const pusher = connect();
  joinLobby(pusher);
  listenToDemo(pusher);
} else {
  notice("Browsers sign only on https and on localhost: please open this page as http://localhost or by https.");
}
