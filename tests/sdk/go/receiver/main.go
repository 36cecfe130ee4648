// A webhook endpoint made with pusher-http-go/v5, the official Go SDK; what it prints is told in `node/backend.mjs`.
package main

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"

	"github.com/pusher/pusher-http-go/v5"
)

type report struct {
	Path    string          `json:"path"`
	Headers [][2]string     `json:"headers"`
	Body    string          `json:"body"`
	Problem *string         `json:"problem"`
	Seen    *pusher.Webhook `json:"seen"`
}

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	show(map[string]int{"port": listener.Addr().(*net.TCPAddr).Port})
	panic(http.Serve(listener, http.HandlerFunc(receive)))
}

func receive(response http.ResponseWriter, request *http.Request) {
	client := pusher.Client{
		Key:                       os.Getenv("HOOKED_KEY"),
		Secret:                    os.Getenv("HOOKED_SECRET"),
		EncryptionMasterKeyBase64: os.Getenv("SDK_MASTER_KEY"),
	}
	body, err := io.ReadAll(request.Body)
	if err != nil {
		return
	}
	got := report{Path: request.URL.Path, Body: string(body)}
	for name, values := range request.Header {
		for _, value := range values {
			got.Headers = append(got.Headers, [2]string{strings.ToLower(name), value})
		}
	}
	seen, err := client.Webhook(request.Header, body)
	if err == nil {
		got.Seen = seen
	} else {
		problem := err.Error()
		got.Problem = &problem
	}
	show(got)
	if err != nil {
		response.WriteHeader(http.StatusUnauthorized)
	}
}

var showing sync.Mutex

func show(report any) {
	showing.Lock()
	defer showing.Unlock()
	if err := json.NewEncoder(os.Stdout).Encode(report); err != nil {
		panic(err)
	}
}
