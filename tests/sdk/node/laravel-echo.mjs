// laravel-echo over pusher-js, as a Laravel front end uses it.

import assert from "node:assert/strict";
import Echo from "laravel-echo";
import { AUTH_URL, HOST, PORT, PusherJs, api } from "./clients.mjs";
import { MAIN } from "./apps.mjs";
import { fresh, next, run, test, within } from "./harness.mjs";

/** An Echo as Laravel's `bootstrap.js` sets it up, connected. */
async function echo(t, { user = "", broadcaster = "reverb" } = {}) {
  const instance = new Echo({
    broadcaster,
    key: MAIN.key,
    Pusher: PusherJs,
    ...(broadcaster === "pusher" ? { cluster: "mt1" } : {}),
    wsHost: HOST,
    wsPort: PORT,
    forceTLS: false,
    enabledTransports: ["ws", "wss"],
    authEndpoint: `${AUTH_URL}/channel?user=${user}`,
    userAuthentication: { endpoint: `${AUTH_URL}/user?user=${user}` },
  });
  t.after(() => instance.disconnect());
  const { connection } = instance.connector.pusher;
  if (connection.state !== "connected") await next(connection, "connected");
  return instance;
}

/** What `register` hands its callback the first time. */
function first(what, register) {
  return within(5000, `waiting for ${what}`, new Promise(register));
}

const ready = (channel) => first("the subscription", (resolve) => channel.subscribed(resolve));

for (const broadcaster of ["pusher", "reverb"]) {
  test(`broadcaster "${broadcaster}": listen to a Laravel event and to one with a name of its own`, async (t) => {
    const instance = await echo(t, { broadcaster });
    assert.equal(instance.connectionStatus(), "connected");
    const name = fresh("orders");
    const channel = instance.channel(name);
    await ready(channel);
    const shipped = first("the event", (resolve) => channel.listen("OrderShipped", resolve));
    const named = first("the named event", (resolve) => channel.listen(".order.paid", resolve));
    await api().trigger(name, "App\\Events\\OrderShipped", { id: 1 });
    await api().trigger(name, "order.paid", { id: 2 });
    assert.deepEqual(await shipped, { id: 1 });
    assert.deepEqual(await named, { id: 2 });
  });
}

test("private channel", async (t) => {
  const name = fresh("orders");
  const channel = (await echo(t)).private(name);
  await ready(channel);
  const event = first("the event", (resolve) => channel.listen(".ev", resolve));
  await api().trigger(`private-${name}`, "ev", { a: 1 });
  assert.deepEqual(await event, { a: 1 });
});

test("encrypted private channel", async (t) => {
  const name = fresh("vault");
  const channel = (await echo(t)).encryptedPrivate(name);
  await ready(channel);
  const event = first("the event", (resolve) => channel.listen(".ev", resolve));
  await api().trigger(`private-encrypted-${name}`, "ev", { a: 1 });
  assert.deepEqual(await event, { a: 1 });
});

test("presence: here, joining, leaving", async (t) => {
  const name = fresh("room");
  const adas = (await echo(t, { user: "ada" })).join(name);
  assert.deepEqual(await first("here", (resolve) => adas.here(resolve)), [{ name: "Ada" }]);

  const joining = first("joining", (resolve) => adas.joining(resolve));
  const bob = await echo(t, { user: "bob" });
  const here = await first("here", (resolve) => bob.join(name).here(resolve));
  assert.deepEqual(here.map((info) => info.name).sort(), ["Ada", "Bob"]);
  assert.deepEqual(await joining, { name: "Bob" });

  const leaving = first("leaving", (resolve) => adas.leaving(resolve));
  bob.leave(name);
  assert.deepEqual(await leaving, { name: "Bob" });
});

test("whisper on presence and private channels", async (t) => {
  const name = fresh("chat");
  const [ada, bob] = [await echo(t, { user: "ada" }), await echo(t, { user: "bob" })];
  for (const join of [(who) => who.join(name), (who) => who.private(name)]) {
    const [speaker, listener] = [join(ada), join(bob)];
    await Promise.all([ready(speaker), ready(listener)]);
    const heard = first("the whisper", (resolve) => listener.listenForWhisper("typing", resolve));
    speaker.whisper("typing", { name: "Ada" });
    assert.deepEqual(await heard, { name: "Ada" });
  }
});

test("toOthers: the socket named by X-Socket-Id is left out", async (t) => {
  const name = fresh("board");
  const [mine, theirs] = [await echo(t), await echo(t)];
  const [channel, other] = [mine.channel(name), theirs.channel(name)];
  await Promise.all([ready(channel), ready(other)]);
  const seen = [];
  channel.listen(".moved", (data) => seen.push(data.n));
  const arrival = first("the event", (resolve) => other.listen(".moved", resolve));
  // What Laravel's broadcaster does with the header that Echo's interceptors add.
  await api().trigger(name, "moved", { n: 1 }, { socket_id: mine.socketId() });
  assert.deepEqual(await arrival, { n: 1 });
  const own = first("an event for all", (resolve) => channel.listen(".moved", resolve));
  await api().trigger(name, "moved", { n: 2 });
  await own;
  assert.deepEqual(seen, [2]);
});

test("error: refused by the app's endpoint, and refused by the server", async (t) => {
  const instance = await echo(t);
  const denied = instance.private(fresh("denied"));
  assert.equal((await first("the error", (resolve) => denied.error(resolve))).status, 403);
  const forged = instance.private(fresh("forged"));
  const error = await first("the error", (resolve) => forged.error(resolve));
  assert.deepEqual({ type: error.type, status: error.status }, { type: "AuthError", status: 401 });
});

test("leaving a name leaves all its kinds", async (t) => {
  const name = fresh("club");
  const instance = await echo(t, { user: "ada" });
  await Promise.all([ready(instance.channel(name)), ready(instance.private(name)), ready(instance.join(name))]);
  instance.leave(name);
  assert.deepEqual(Object.keys(instance.connector.channels), []);
  assert.deepEqual(Object.keys(instance.connector.pusher.channels.channels), []);
});

await run();
