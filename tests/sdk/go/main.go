// Tests of pusher-http-go/v5, the official Go SDK for an app's backend. There is no official Go client for sockets: a
// plain WebSocket plays one, with the signatures that the SDK makes.
package main

import (
	"encoding/json"
	"fmt"
	"net/url"
	"reflect"
	"sort"

	"github.com/pusher/pusher-http-go/v5"
)

func tests() []test {
	return []test{
		{"trigger reaches a public channel", func(t *scope) {
			name := t.fresh("news")
			socket := t.dial()
			t.subscribe(socket, name, nil)
			t.check(t.api().Trigger(name, "ev", map[string]any{"text": "grüße"}))
			t.equal(socket.next("ev"), `{"text":"grüße"}`)
		}},
		{"trigger on several channels, without the socket it names", func(t *scope) {
			one, two := t.fresh("a"), t.fresh("b")
			socket, other := t.dial(), t.dial()
			t.subscribe(socket, one, nil)
			t.subscribe(other, two, nil)
			socketID := socket.id
			_, err := t.api().TriggerMultiWithParams([]string{one, two}, "ev", "1", pusher.TriggerParams{SocketID: &socketID})
			t.check(err)
			t.equal(other.next("ev"), "1")
			t.check(t.api().TriggerMulti([]string{one, two}, "ev", "2"))
			t.equal(socket.next("ev"), "2")
		}},
		{"private channel, signed by AuthorizePrivateChannel", func(t *scope) {
			name := t.fresh("private-orders")
			socket := t.dial()
			answer, err := t.api().AuthorizePrivateChannel(form(socket.id, name))
			t.check(err)
			t.subscribe(socket, name, answer)
			t.check(t.api().Trigger(name, "ev", "x"))
			t.equal(socket.next("ev"), "x")
		}},
		{"presence channel, signed by AuthorizePresenceChannel; counts and users", func(t *scope) {
			name := t.fresh("presence-room")
			for _, id := range []string{"ada", "bob"} {
				t.join(t.dial(), name, id)
			}
			both := "user_count,subscription_count"
			channel, err := t.api().Channel(name, pusher.ChannelParams{Info: &both})
			t.check(err)
			t.equal(*channel, pusher.Channel{Name: name, Occupied: true, UserCount: 2, SubscriptionCount: 2})
			users, err := t.api().GetChannelUsers(name)
			t.check(err)
			ids := []string{}
			for _, user := range users.List {
				ids = append(ids, user.ID)
			}
			sort.Strings(ids)
			t.equal(ids, []string{"ada", "bob"})
		}},
		{"channels by prefix, and none at all", func(t *scope) {
			name, info := t.fresh("presence-list"), "user_count"
			t.join(t.dial(), name, "ada")
			list, err := t.api().Channels(pusher.ChannelsParams{FilterByPrefix: &name, Info: &info})
			t.check(err)
			t.equal(list.Channels, map[string]pusher.ChannelListItem{name: {UserCount: 1}})
			nothing := "presence-nothing-begins-so"
			list, err = t.api().Channels(pusher.ChannelsParams{FilterByPrefix: &nothing})
			t.check(err)
			t.equal(len(list.Channels), 0)
		}},
		{"trigger and batch with info", func(t *scope) {
			name, info := t.fresh("presence-info"), "user_count,subscription_count"
			t.join(t.dial(), name, "ada")
			list, err := t.api().TriggerWithParams(name, "ev", "x", pusher.TriggerParams{Info: &info})
			t.check(err)
			t.equal([]int{*list.Channels[name].UserCount, *list.Channels[name].SubscriptionCount}, []int{1, 1})
			batch, err := t.api().TriggerBatch([]pusher.Event{
				{Channel: name, Name: "ev", Data: "1", Info: &info},
				{Channel: t.fresh("other"), Name: "ev", Data: "2"},
			})
			t.check(err)
			t.equal(len(batch.Batch), 2)
			t.equal(*batch.Batch[0].UserCount, 1)
			t.equal(batch.Batch[1].UserCount == nil, true)
		}},
		{"encrypted channel", func(t *scope) {
			name := t.fresh("private-encrypted-vault")
			socket := t.dial()
			answer, err := t.api().AuthorizePrivateChannel(form(socket.id, name))
			t.check(err)
			t.subscribe(socket, name, answer)
			t.check(t.api().Trigger(name, "ev", "secret"))
			var sealed map[string]string
			t.check(json.Unmarshal([]byte(socket.next("ev")), &sealed))
			t.equal(len(sealed["nonce"]) > 0 && len(sealed["ciphertext"]) > 0, true)
		}},
		{"sign-in by AuthenticateUser and SendToUser", func(t *scope) {
			user := t.fresh("user")
			socket := t.dial()
			answer, err := t.api().AuthenticateUser(form(socket.id, ""), map[string]interface{}{"id": user})
			t.check(err)
			socket.send("pusher:signin", json.RawMessage(answer))
			socket.next("pusher:signin_success")
			t.check(t.api().SendToUser(user, "ev", "x"))
			t.equal(socket.next("ev"), "x")
		}},
		{"a wrong secret is an error", func(t *scope) {
			client := t.api()
			client.Secret = "wrong"
			err := client.Trigger("x", "ev", "x")
			if err == nil {
				t.fail("accepted")
			}
		}},
	}
}

// join subscribes to a presence channel with a signature of the SDK.
func (t *scope) join(socket *socket, name, id string) {
	member := pusher.MemberData{UserID: id, UserInfo: map[string]string{"name": id}}
	answer, err := t.api().AuthorizePresenceChannel(form(socket.id, name), member)
	t.check(err)
	t.subscribe(socket, name, answer)
}

// form is what a client posts to an auth endpoint.
func form(socketID, channel string) []byte {
	return []byte(url.Values{"socket_id": {socketID}, "channel_name": {channel}}.Encode())
}

func (t *scope) equal(got, wanted any) {
	if !reflect.DeepEqual(got, wanted) {
		t.fail(fmt.Sprintf("got %#v, wanted %#v", got, wanted))
	}
}
