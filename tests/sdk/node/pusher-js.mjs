// pusher-js, the official browser client (protocol 7), in its Node build.

import assert from "node:assert/strict";
import { AUTHORIZED, BRISK, DISABLED, MAIN, PLAIN, SMALL } from "./apps.mjs";
import { AUTH_URL, api, client, connected, errorCode, get, options, PusherJs, subscribed } from "./clients.mjs";
import { collect, fresh, next, run, test, until } from "./harness.mjs";
import { Server } from "./server.mjs";

test("connects and is given a socket id", async (t) => {
  const pusher = await connected(t);
  assert.match(pusher.connection.socket_id, /^\d+\.\d+$/);
});

test("public channel: objects, strings and other JSON arrive as they were sent", async (t) => {
  const pusher = await connected(t);
  const name = fresh("news");
  const channel = await subscribed(pusher, name);
  const sent = [{ a: 1, deep: { "ü": "✓" } }, "plain text", 7, [1, 2], true, null, ""];
  const arrived = collect(channel, "ev");
  for (const data of sent) await api().trigger(name, "ev", data);
  await until("all have arrived", () => arrived.length === sent.length);
  assert.deepEqual(arrived, sent);
});

test("unsubscribe: nothing more arrives, and the channel is vacated", async (t) => {
  const pusher = await connected(t);
  const [left, kept] = [fresh("left"), fresh("kept")];
  const stray = collect(await subscribed(pusher, left), "ev");
  const channel = await subscribed(pusher, kept);
  pusher.unsubscribe(left);
  await until("the channel is vacated", async () => !(await get(`/channels/${left}`)).occupied);
  const arrival = next(channel, "ev");
  await api().trigger([left, kept], "ev", {});
  await arrival;
  assert.deepEqual(stray, []);
});

test("private channel through an auth endpoint", async (t) => {
  const pusher = await connected(t);
  const name = fresh("private-orders");
  const channel = await subscribed(pusher, name);
  const arrival = next(channel, "shipped");
  await api().trigger(name, "shipped", { id: 1 });
  assert.deepEqual((await arrival).data, { id: 1 });
});

test("presence channel: members, me, joining and leaving", async (t) => {
  const name = fresh("presence-room");
  const ada = await connected(t, { user: "ada" });
  const room = await subscribed(ada, name);
  assert.equal(room.members.count, 1);
  assert.deepEqual(room.members.me, { id: "ada", info: { name: "Ada" } });

  const bob = await connected(t, { user: "bob" });
  const added = next(room, "pusher:member_added");
  const bobsRoom = await subscribed(bob, name);
  assert.deepEqual((await added).data, { id: "bob", info: { name: "Bob" } });
  assert.deepEqual(Object.keys(bobsRoom.members.members).sort(), ["ada", "bob"]);
  assert.equal(room.members.count, 2);

  const removed = next(room, "pusher:member_removed");
  bob.disconnect();
  assert.deepEqual((await removed).data, { id: "bob", info: { name: "Bob" } });
  assert.equal(room.members.count, 1);
});

test("presence channel: one user in two tabs is one member", async (t) => {
  const name = fresh("presence-tabs");
  const room = await subscribed(await connected(t, { user: "ada" }), name);
  const seen = ["pusher:member_added", "pusher:member_removed"].map((event) => collect(room, event));
  const first = await connected(t, { user: "bob" });
  await subscribed(first, name);
  const second = await connected(t, { user: "bob" });
  await subscribed(second, name);
  first.disconnect();
  await until("one of the tabs is gone", async () => {
    const detail = await get(`/channels/${name}`, { info: "subscription_count,user_count" });
    return detail.subscription_count === 2 && detail.user_count === 2;
  });
  const removed = next(room, "pusher:member_removed");
  second.disconnect();
  await removed;
  assert.deepEqual(seen.map((events) => events.map((member) => member.id)), [["bob"], ["bob"]]);
});

test("presence channel without channel data: the signed-in user is the member", async (t) => {
  const name = fresh("presence-signed-in");
  const pusher = new PusherJs(MAIN.key, {
    ...options({ user: "ada" }),
    channelAuthorization: { endpoint: `${AUTH_URL}/channel?app=${MAIN.key}`, transport: "ajax" },
  });
  t.after(() => pusher.disconnect());
  pusher.signin();
  const room = await subscribed(pusher, name);
  assert.deepEqual(room.members.me, { id: "ada", info: { name: "Ada" } });
});

test("client events reach the others, with the sender's user id, and not the sender", async (t) => {
  const name = fresh("presence-chat");
  const [ada, bob] = [await connected(t, { user: "ada" }), await connected(t, { user: "bob" })];
  const [adas, bobs] = [await subscribed(ada, name), await subscribed(bob, name)];
  const echoed = collect(adas, "client-typing");
  const heard = next(bobs, "client-typing");
  adas.trigger("client-typing", { on: true });
  assert.deepEqual(await heard, { data: { on: true }, metadata: { user_id: "ada" } });
  const answer = next(adas, "client-answer");
  bobs.trigger("client-answer", "text stays text");
  assert.equal((await answer).data, "text stays text");
  assert.deepEqual(echoed, []);
});

test("client events over the rate are refused and the connection stays", async (t) => {
  const name = fresh("private-flood");
  const pusher = await connected(t);
  const channel = await subscribed(pusher, name);
  const refused = next(pusher.connection, "error", { where: (error) => errorCode(error) === 4301 });
  for (let n = 0; n < 30; n += 1) channel.trigger("client-n", { n });
  await refused;
  const arrival = next(channel, "ev");
  await api().trigger(name, "ev", {});
  await arrival;
});

test("client events where the app has them switched off are refused, not relayed", async (t) => {
  const name = fresh("private-quiet");
  const [one, two] = [await connected(t, { app: PLAIN }), await connected(t, { app: PLAIN })];
  const [sender, listener] = [await subscribed(one, name), await subscribed(two, name)];
  const stray = collect(listener, "client-ev");
  const refused = next(one.connection, "error");
  sender.trigger("client-ev", {});
  assert.equal(errorCode((await refused).data), 4301);
  const arrival = next(listener, "ev");
  await api(PLAIN).trigger(name, "ev", {});
  await arrival;
  assert.deepEqual(stray, []);
});

test("encrypted channel: deciphered by the client, never readable on the wire", async (t) => {
  const name = fresh("private-encrypted-vault");
  const pusher = await connected(t);
  const channel = await subscribed(pusher, name);
  const wire = next(pusher.connection, "message", { where: (message) => message.event === "secret" });
  const arrival = next(channel, "secret");
  await api().trigger(name, "secret", { code: "0000" });
  assert.deepEqual((await arrival).data, { code: "0000" });
  assert.deepEqual(Object.keys((await wire).data.data).sort(), ["ciphertext", "nonce"]);
});

for (const prefix of ["cache-", "private-cache-", "presence-cache-"]) {
  test(`${prefix}: a miss, then the last event for who comes later`, async (t) => {
    const name = fresh(`${prefix}price`);
    const early = await connected(t, { user: "ada" });
    const channel = early.subscribe(name);
    await next(channel, "pusher:cache_miss");
    await api().trigger(name, "price", { p: 1 });
    await api().trigger(name, "price", { p: 2 });
    const late = (await connected(t, { user: "bob" })).subscribe(name);
    const missed = collect(late, "pusher:cache_miss");
    assert.deepEqual((await next(late, "price")).data, { p: 2 });
    assert.deepEqual(missed, []);
  });
}

test("private-encrypted-cache-: the cached event is deciphered", async (t) => {
  const name = fresh("private-encrypted-cache-vault");
  await api().trigger(name, "secret", { code: "1234" });
  const channel = (await connected(t)).subscribe(name);
  assert.deepEqual((await next(channel, "secret")).data, { code: "1234" });
});

test("sign-in, and events sent to the user on all of their connections", async (t) => {
  const user = fresh("user");
  const tabs = [await connected(t, { user }), await connected(t, { user })];
  for (const tab of tabs) tab.signin();
  for (const tab of tabs) {
    await tab.user.signinDonePromise;
    assert.equal(tab.user.user_data.id, user);
  }
  const arrivals = tabs.map((tab) => next(tab.user, "greeting"));
  await api().sendToUser(user, "greeting", { text: "hello" });
  for (const { data } of await Promise.all(arrivals)) assert.deepEqual(data, { text: "hello" });
});

test("watchlist: who is online at sign-in, and who comes and goes later", async (t) => {
  const [watcher, friend] = [fresh("watcher"), fresh("friend")];
  const present = await connected(t, { user: friend });
  present.signin();
  await present.user.signinDonePromise;

  const pusher = await connected(t, { user: watcher, watch: friend });
  const first = next(pusher.user.watchlist, "online");
  pusher.signin();
  assert.deepEqual((await first).data.user_ids, [friend]);

  const gone = next(pusher.user.watchlist, "offline", { ms: 10_000 });
  present.disconnect();
  assert.deepEqual((await gone).data.user_ids, [friend]);

  const back = next(pusher.user.watchlist, "online");
  const again = await connected(t, { user: friend });
  again.signin();
  assert.deepEqual((await back).data.user_ids, [friend]);
});

test("subscription count follows who comes and goes", async (t) => {
  const name = fresh("counted");
  const channel = await subscribed(await connected(t), name);
  await until("one", () => channel.subscriptionCount === 1);
  const other = await connected(t);
  await subscribed(other, name);
  await until("two", () => channel.subscriptionCount === 2);
  other.disconnect();
  await until("one again", () => channel.subscriptionCount === 1);
});

test("a refused subscription is told, and the rest of the connection works on", async (t) => {
  const pusher = await connected(t);
  const forged = pusher.subscribe(fresh("private-forged"));
  const general = next(pusher.connection, "error");
  const { data } = await next(forged, "pusher:subscription_error");
  assert.equal(data.type, "AuthError");
  assert.equal(data.status, 401);
  assert.equal(errorCode((await general).data), 4009);
  assert.equal(forged.subscribed, false);

  const denied = pusher.subscribe(fresh("private-denied"));
  assert.equal((await next(denied, "pusher:subscription_error")).data.status, 403);

  const name = fresh("private-fine");
  const channel = await subscribed(pusher, name);
  const arrival = next(channel, "ev");
  await api().trigger(name, "ev", {});
  await arrival;
  assert.equal(pusher.connection.state, "connected");
});

for (const [what, app, code] of [
  ["an unknown key", { key: "nobody-has-this-key" }, 4001],
  ["a disabled app", DISABLED, 4003],
]) {
  test(`${what} is refused with ${code}, and the client stays away`, async (t) => {
    const pusher = client(t, { app });
    const refused = next(pusher.connection, "error");
    const settled = next(pusher.connection, "disconnected");
    assert.equal(errorCode((await refused).data), code);
    await settled;
  });
}

test("one connection too many is refused with 4004; the others stay", async (t) => {
  const room = [await connected(t, { app: SMALL }), await connected(t, { app: SMALL })];
  const third = client(t, { app: SMALL });
  assert.equal(errorCode((await next(third.connection, "error")).data), 4004);
  for (const pusher of room) assert.equal(pusher.connection.state, "connected");
});

test("terminate: 4009 to whoever is signed in as the user, and nobody else", async (t) => {
  const [user, other] = [fresh("user"), fresh("other")];
  const tabs = [await connected(t, { user }), await connected(t, { user })];
  const bystander = await connected(t, { user: other });
  for (const pusher of [...tabs, bystander]) {
    pusher.signin();
    await pusher.user.signinDonePromise;
  }
  const errors = tabs.map((tab) => next(tab.connection, "error"));
  const gone = tabs.map((tab) => next(tab.connection, "disconnected"));
  await api().terminateUserConnections(user);
  for (const { data } of await Promise.all(errors)) assert.equal(errorCode(data), 4009);
  await Promise.all(gone);
  assert.equal(bystander.connection.state, "connected");
});

test("an app of authorized connections closes whoever stays a stranger, and keeps the others", async (t) => {
  const stranger = await connected(t, { app: AUTHORIZED });
  const known = await connected(t, { app: AUTHORIZED });
  await subscribed(known, fresh("private-known"));
  const closed = next(stranger.connection, "disconnected", { ms: 8000 });
  assert.equal(errorCode((await next(stranger.connection, "error", { ms: 8000 })).data), 4009);
  await closed;
  assert.equal(known.connection.state, "connected");
});

test("a silent connection is kept alive by the client's pings", async (t) => {
  const pusher = await connected(t, { app: BRISK });
  const before = pusher.connection.socket_id;
  for (let n = 0; n < 2; n += 1) {
    await next(pusher.connection, "message", { where: (message) => message.event === "pusher:pong", ms: 8000 });
  }
  assert.equal(pusher.connection.socket_id, before);
});

test("a subscribe, unsubscribe, subscribe burst ends subscribed", async (t) => {
  const pusher = await connected(t);
  const name = fresh("burst");
  pusher.subscribe(name);
  pusher.unsubscribe(name);
  const channel = await subscribed(pusher, name);
  const arrival = next(channel, "ev");
  await until("occupied", async () => (await get(`/channels/${name}`)).occupied);
  await api().trigger(name, "ev", {});
  await arrival;
});

test("200 channels at once: each acknowledged, each delivering", async (t) => {
  const pusher = await connected(t);
  const names = Array.from({ length: 200 }, () => fresh("private-many"));
  const channels = await Promise.all(names.map((name) => subscribed(pusher, name)));
  const arrivals = channels.map((channel) => next(channel, "ev"));
  for (let n = 0; n < names.length; n += 100) await api().trigger(names.slice(n, n + 100), "ev", {});
  await Promise.all(arrivals);
});

// pusher-js tries again one second after a crash, and if that meets a closed port, only some fifteen seconds later.
const BACK_MS = 40_000;
for (const [how, signal] of [
  ["a restart (drained)", "stop"],
  ["a crash (killed)", "kill"],
]) {
  const name = `after ${how} the client is back by itself, with all its channels`;
  const body = async (t) => {
    const server = await Server.start({ name: `restart-${signal}` });
    t.after(() => server.kill());
    const pusher = await connected(t, { user: "ada", port: server.port });
    const names = [fresh("news"), fresh("private-orders"), fresh("presence-room")];
    const channels = [];
    for (const name of names) channels.push(await subscribed(pusher, name));
    const before = pusher.connection.socket_id;

    await server[signal]();
    await server.spawn();
    await until(
      "the new process has all three channels",
      async () => {
        const there = (await (await api(MAIN, server).get({ path: "/channels" })).json()).channels;
        return names.every((name) => name in there) && channels.every((channel) => channel.subscribed);
      },
      BACK_MS,
    );
    assert.notEqual(pusher.connection.socket_id, before);
    const arrivals = channels.map((channel) => next(channel, "ev"));
    await api(MAIN, server).trigger(names, "ev", {});
    await Promise.all(arrivals);
  };
  test(name, body, { ms: 2 * BACK_MS });
}

await run();
