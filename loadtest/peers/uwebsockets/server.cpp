// A limit rather than a server: uWebSockets and as much of the Pusher protocol as the workloads need, on one thread,
// without checks. It believes every signature, keeps no presence, and takes JSON apart by looking for the keys it
// wants, spelled without spaces. What a real server spends beyond this, it spends on being one.
//
// uWebSockets has no other way to send one message to many than its topics, so these are the channels.

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "App.h"

namespace {

struct Session {};
using Socket = uWS::WebSocket<false, true, Session>;

constexpr unsigned kMessageBytesMax = 2 * 1024 * 1024;
constexpr unsigned kWaitingBytesMax = 1024 * 1024;

// The text of a JSON string that begins at `at`, escapes and all; empty when there is none.
std::string_view string_at(std::string_view json, size_t at) {
    if (at >= json.size() || json[at] != '"') return {};
    size_t end = at + 1;
    while (end < json.size() && json[end] != '"') end += json[end] == '\\' ? 2 : 1;
    return end < json.size() ? json.substr(at + 1, end - at - 1) : std::string_view{};
}

// Where the value of a key begins, as in `"key":value`; behind the end when there is none.
size_t value_of(std::string_view json, std::string_view key) {
    const std::string wanted = '"' + std::string(key) + "\":";
    const size_t at = json.find(wanted);
    return at == std::string_view::npos ? json.size() : at + wanted.size();
}

std::string_view text_of(std::string_view json, std::string_view key) { return string_at(json, value_of(json, key)); }

// The channels of a trigger, `"channel":"a"` or `"channels":["a","b"]`.
std::vector<std::string_view> channels_of(std::string_view json) {
    size_t at = value_of(json, "channels");
    if (at >= json.size() || json[at] != '[') return {text_of(json, "channel")};
    std::vector<std::string_view> channels;
    while (json[at] == '[' || json[at] == ',') {
        const auto channel = string_at(json, at + 1);
        if (channel.empty()) break;
        channels.push_back(channel);
        at += channel.size() + 3;
        if (at >= json.size()) break;
    }
    return channels;
}

std::string message(std::string_view event, std::string_view channel, std::string_view data) {
    std::string text;
    text.reserve(event.size() + channel.size() + data.size() + 40);
    text.append("{\"event\":\"").append(event).append("\",\"channel\":\"").append(channel);
    text.append("\",\"data\":\"").append(data).append("\"}");
    return text;
}

void greet(Socket *socket) {
    static uint64_t sockets = 0;
    const std::string id = std::to_string(++sockets);
    socket->send("{\"event\":\"pusher:connection_established\",\"data\":\"{\\\"socket_id\\\":\\\"1." + id +
                     "\\\",\\\"activity_timeout\\\":120}\"}",
                 uWS::OpCode::TEXT);
}

void hear(Socket *socket, std::string_view text) {
    const auto event = text_of(text, "event");
    const auto channel = text_of(text, "channel");
    if (event == "pusher:ping") {
        socket->send("{\"event\":\"pusher:pong\",\"data\":\"{}\"}", uWS::OpCode::TEXT);
    } else if (event == "pusher:subscribe") {
        socket->subscribe(channel);
        socket->send(message("pusher_internal:subscription_succeeded", channel, "{}"), uWS::OpCode::TEXT);
    } else if (event == "pusher:unsubscribe") {
        socket->unsubscribe(channel);
    } else if (event.starts_with("client-")) {
        socket->publish(channel, text, uWS::OpCode::TEXT);
    }
}

}  // namespace

int main(int count, char **arguments) {
    const int port = count > 1 ? std::atoi(arguments[1]) : 6001;
    uWS::App app;
    auto hear_of = [](auto *socket, std::string_view text, uWS::OpCode) { hear(socket, text); };
    app.ws<Session>("/app/:key", {.compression = uWS::DISABLED,
                                  .maxPayloadLength = kMessageBytesMax,
                                  .idleTimeout = 120,
                                  .maxBackpressure = kWaitingBytesMax,
                                  .closeOnBackpressureLimit = true,
                                  .open = greet,
                                  .message = hear_of});
    app.post("/apps/:id/events", [&app](auto *response, auto *) {
        response->onAborted([] {});
        response->onData([&app, response, body = std::string()](std::string_view part, bool is_last) mutable {
            body.append(part);
            if (!is_last) return;
            for (const auto channel : channels_of(body)) {
                app.publish(channel, message(text_of(body, "name"), channel, text_of(body, "data")), uWS::OpCode::TEXT);
            }
            response->writeHeader("Content-Type", "application/json")->end("{}");
        });
    });
    app.any("/*", [](auto *response, auto *) { response->end("uWebSockets\n"); });
    app.listen("127.0.0.1", port, [port](auto *listener) {
        if (!listener) {
            std::fprintf(stderr, "cannot listen on port %d\n", port);
            std::exit(1);
        }
    });
    app.run();
}
