package main

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"github.com/gorilla/websocket"
	"github.com/pusher/pusher-http-go/v5"
)

// The same words as `node/harness.mjs`: prints `ok NAME` or `not ok NAME` per test and `done N` at the end.

type test struct {
	name string
	body func(t *scope)
}

func main() {
	failed := 0
	for _, test := range tests() {
		if problem := runOne(test); problem == "" {
			fmt.Println("ok", test.name)
		} else {
			failed++
			fmt.Println("not ok", test.name)
			fmt.Println("    " + strings.ReplaceAll(problem, "\n", "\n    "))
		}
	}
	fmt.Println("done", len(tests()))
	if failed > 0 {
		os.Exit(1)
	}
}

func runOne(test test) (problem string) {
	t := &scope{}
	defer func() {
		if panicked := recover(); panicked != nil {
			problem = fmt.Sprintf("%v\n%s", panicked, debug.Stack())
		}
		for _, socket := range t.sockets {
			socket.conn.Close()
		}
	}()
	test.body(t)
	return ""
}

// scope is one running test.
type scope struct{ sockets []*socket }

func (t *scope) fail(problem string) { panic(problem) }

func (t *scope) check(err error) {
	if err != nil {
		t.fail(err.Error())
	}
}

var names = 0

// fresh is a channel name no other test uses.
func (t *scope) fresh(prefix string) string {
	names++
	return fmt.Sprintf("%sgo-%d-%d", prefix, os.Getpid(), names)
}

func address() string { return os.Getenv("SDK_HOST") + ":" + os.Getenv("SDK_PORT") }

// api is the official client.
func (t *scope) api() *pusher.Client {
	return &pusher.Client{
		AppID:                     os.Getenv("SDK_APP_ID"),
		Key:                       os.Getenv("SDK_KEY"),
		Secret:                    os.Getenv("SDK_SECRET"),
		Host:                      address(),
		EncryptionMasterKeyBase64: os.Getenv("SDK_MASTER_KEY"),
	}
}

type message struct {
	Event   string `json:"event"`
	Channel string `json:"channel,omitempty"`
	Data    any    `json:"data"`
}

type socket struct {
	t    *scope
	conn *websocket.Conn
	id   string
}

// dial connects and reads the handshake.
func (t *scope) dial() *socket {
	address := fmt.Sprintf("ws://%s/app/%s?protocol=7&client=go-test&version=1", address(), os.Getenv("SDK_KEY"))
	conn, _, err := websocket.DefaultDialer.Dial(address, nil)
	t.check(err)
	socket := &socket{t: t, conn: conn}
	t.sockets = append(t.sockets, socket)
	var established struct {
		SocketID string `json:"socket_id"`
	}
	t.check(json.Unmarshal([]byte(socket.next("pusher:connection_established")), &established))
	socket.id = established.SocketID
	return socket
}

func (s *socket) send(event string, data any) {
	s.t.check(s.conn.WriteJSON(message{Event: event, Data: data}))
}

// next reads on until `event` comes and answers its data.
func (s *socket) next(event string) string {
	s.t.check(s.conn.SetReadDeadline(time.Now().Add(5 * time.Second)))
	for {
		var got message
		if err := s.conn.ReadJSON(&got); err != nil {
			s.t.fail(fmt.Sprintf("waiting for %s: %v", event, err))
		}
		if got.Event == event {
			data, isText := got.Data.(string)
			if !isText {
				s.t.fail(fmt.Sprintf("the data of %s is not a string: %#v", event, got.Data))
			}
			return data
		}
	}
}

// subscribe sends what the auth endpoint answered, if anything, and waits for the server's word.
func (t *scope) subscribe(socket *socket, channel string, authAnswer []byte) {
	data := map[string]any{}
	if authAnswer != nil {
		t.check(json.Unmarshal(authAnswer, &data))
		delete(data, "shared_secret")
	}
	data["channel"] = channel
	socket.send("pusher:subscribe", data)
	socket.next("pusher_internal:subscription_succeeded")
}
