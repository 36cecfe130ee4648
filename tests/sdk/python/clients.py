"""pusher, the official HTTP SDK, and pysher, the community's socket client (protocol 6)."""

import json

import pusher
from harness import APP, api, auth_endpoint, collect, connected, count, fresh, listen_in, run, subscribed, test, until


@test("pysher: subscribe, receive, unsubscribe")
def _():
    name = fresh("news")
    client = connected()
    arrived = collect(subscribed(client, name), "ev")
    assert api().trigger(name, "ev", {"text": "grüße"}) == {}
    api().trigger([name, fresh("other")], "ev", "plain text")
    until("both have arrived", lambda: len(arrived) == 2)
    assert json.loads(arrived[0]) == {"text": "grüße"} and arrived[1] == "plain text", arrived
    client.unsubscribe(name)
    until("the channel is vacated", lambda: count(name) == 0)


@test("pysher: private channel, signed by itself and by an endpoint made with the SDK")
def _():
    for client in (connected(), connected(auth_endpoint=auth_endpoint())):
        name = fresh("private-orders")
        arrived = collect(subscribed(client, name), "ev")
        api().trigger(name, "ev", {"n": 1})
        until("it has arrived", lambda: arrived)


@test("pysher: presence channel, numeric user id")
def _():
    name = fresh("presence-room")
    ada = connected(user_data={"user_id": 1, "user_info": {"name": "Ada"}})
    added = collect(subscribed(ada, name), "pusher_internal:member_added")
    removed = collect(ada.channel(name), "pusher_internal:member_removed")
    bob = connected(user_data={"user_id": "2"})
    subscribed(bob, name)
    until("bob is announced", lambda: added)
    assert json.loads(added[0]) == {"user_id": "2", "user_info": {}}, added
    assert sorted(user["id"] for user in api().users_info(name)["users"]) == ["1", "2"]
    bob.unsubscribe(name)
    until("bob has left", lambda: removed)
    assert json.loads(removed[0]) == {"user_id": "2"}, removed


@test("pysher: client events")
def _():
    name = fresh("private-chat")
    speaker, listener = connected(), connected()
    mine, theirs = (subscribed(client, name) for client in (speaker, listener))
    heard, echoed = collect(theirs, "client-typing"), collect(mine, "client-typing")
    mine.trigger("client-typing", {"on": True})
    until("the client event", lambda: heard)
    assert json.loads(heard[0]) == {"on": True}, heard
    fence = collect(mine, "fence")
    api().trigger(name, "fence", {})
    until("the fence", lambda: fence)
    assert echoed == []


@test("pysher: a wrong signature is refused, the connection goes on")
def _():
    client = connected()
    heard = listen_in(client)
    client.subscribe(name := fresh("private-forged"), auth=f"{APP['key']}:{'0' * 64}")
    until("both refusals", lambda: {("pusher:subscription_error", name), ("pusher:error", name)} <= set(heard))
    arrived = collect(subscribed(client, news := fresh("news")), "ev")
    api().trigger(news, "ev", {})
    until("it has arrived", lambda: arrived)


@test("pusher: trigger leaves out the socket it names")
def _():
    name = fresh("except")
    client = connected()
    arrived = collect(subscribed(client, name), "ev")
    api().trigger(name, "ev", "1", client.connection.socket_id)
    api().trigger(name, "ev", "2")
    until("the second has arrived", lambda: arrived)
    assert arrived == ["2"]


@test("pusher: batch, in order")
def _():
    name = fresh("batch")
    arrived = collect(subscribed(connected(), name), "ev")
    answer = api().trigger_batch([{"channel": name, "name": "ev", "data": {"n": n}} for n in range(10)])
    assert answer == {}
    until("all have arrived", lambda: len(arrived) == 10)
    assert [json.loads(data)["n"] for data in arrived] == list(range(10))


@test("pusher: channels_info, channel_info, users_info (GET with an MD5 of nothing)")
def _():
    room, news = fresh("presence-room"), fresh("news")
    client = connected(user_data={"user_id": "ada"})
    subscribed(client, room)
    subscribed(client, news)
    assert news in api().channels_info()["channels"]
    assert api().channels_info(room, ["user_count"]) == {"channels": {room: {"user_count": 1}}}
    detail = api().channel_info(room, ["user_count", "subscription_count"])
    assert detail == {"occupied": True, "user_count": 1, "subscription_count": 1}, detail
    assert api().users_info(room) == {"users": [{"id": "ada"}]}


@test("pusher: encrypted channel")
def _():
    name = fresh("private-encrypted-vault")
    arrived = collect(subscribed(connected(), name), "ev")
    api().trigger(name, "ev", {"code": "0000"})
    until("it has arrived", lambda: arrived)
    assert sorted(json.loads(arrived[0])) == ["ciphertext", "nonce"], arrived


@test("pusher: terminate_user_connections (a path without the app) closes who signed in as the user")
def _():
    user = fresh("user")
    client, bystander = connected(), connected()
    for who, identity in ((client, user), (bystander, fresh("other"))):
        done = collect(who.connection, "pusher:signin_success")
        # pysher has no sign-in of its own: what the SDK signs is sent as the protocol says.
        who.connection.send_event("pusher:signin", api().authenticate_user(who.connection.socket_id, {"id": identity}))
        until("signed in", lambda: done)
    assert api().terminate_user_connections(user) == {}
    until("the connection is closed", lambda: client.connection.state != "connected")
    assert bystander.connection.state == "connected"


@test("pusher: errors come as the SDK's own exceptions")
def _():
    for raised, call in (
        (pusher.errors.PusherBadAuth, lambda: api(secret="wrong").trigger("x", "ev", {})),
        (pusher.errors.PusherBadAuth, lambda: api(key="unknown").channels_info()),
        (pusher.errors.PusherBadRequest, lambda: api().users_info("not-a-presence-channel")),
        (pusher.errors.PusherBadStatus, lambda: api(app_id="999").channels_info()),
    ):
        try:
            call()
        except raised:
            continue
        raise AssertionError(f"no {raised.__name__}")


run()
