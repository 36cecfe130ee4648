import com.pusher.client.Pusher;
import com.pusher.client.PusherOptions;
import com.pusher.client.channel.PresenceChannelEventListener;
import com.pusher.client.channel.PrivateEncryptedChannelEventListener;
import com.pusher.client.channel.PusherEvent;
import com.pusher.client.channel.User;
import com.pusher.client.connection.ConnectionEventListener;
import com.pusher.client.connection.ConnectionState;
import com.pusher.client.connection.ConnectionStateChange;
import com.pusher.client.util.HttpChannelAuthorizer;
import com.pusher.client.util.HttpUserAuthenticator;
import com.pusher.rest.data.Event;
import com.pusher.rest.data.PresenceUser;
import com.pusher.rest.data.Result;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Set;

/**
 * pusher-java-client, the official JVM and Android client, which speaks protocol 5, and pusher-http-java, the official
 * SDK for an app's backend.
 */
public final class Clients {
    private static final String HOST = Harness.setting("SDK_HOST");
    private static final int PORT = Integer.parseInt(Harness.setting("SDK_PORT"));
    private static final String APP_ID = Harness.setting("SDK_APP_ID");
    private static final String KEY = Harness.setting("SDK_KEY");
    private static final String SECRET = Harness.setting("SDK_SECRET");
    private static final String AUTH_URL = Harness.setting("SDK_AUTH_URL");

    private Clients() {}

    /** A client and what its connection reports: a state's name, or `error CODE`. */
    private static final class Client implements ConnectionEventListener {
        final Pusher pusher;
        final Harness.Mailbox<String> reports = new Harness.Mailbox<>();

        Client(String key, String user) {
            String query = "?user=" + user;
            PusherOptions options = new PusherOptions()
                    .setHost(HOST)
                    .setWsPort(PORT)
                    .setUseTLS(false)
                    .setChannelAuthorizer(new HttpChannelAuthorizer(AUTH_URL + "/channel" + query))
                    .setUserAuthenticator(new HttpUserAuthenticator(AUTH_URL + "/user" + query));
            pusher = new Pusher(key, options);
            pusher.connect(this, ConnectionState.ALL);
            Harness.after(pusher::disconnect);
        }

        static Client connected(String user) throws InterruptedException {
            Client client = new Client(KEY, user);
            client.reports.next("the connection", "CONNECTED"::equals);
            return client;
        }

        @Override
        public void onConnectionStateChange(ConnectionStateChange change) {
            reports.put(change.getCurrentState().name());
        }

        @Override
        public void onError(String message, String code, Exception problem) {
            reports.put("error " + code);
        }
    }

    /** Takes what any kind of channel reports: `subscribed`, `joined ID`, `EVENT DATA`, ... */
    private static final class Listener
            implements PresenceChannelEventListener, PrivateEncryptedChannelEventListener {
        final Harness.Mailbox<String> reports = new Harness.Mailbox<>();

        Listener subscribed() throws InterruptedException {
            reports.next("the subscription", "subscribed"::equals);
            return this;
        }

        void expect(String report) throws InterruptedException {
            reports.next(report, report::equals);
        }

        @Override
        public void onSubscriptionSucceeded(String channel) {
            reports.put("subscribed");
        }

        @Override
        public void onEvent(PusherEvent event) {
            String from = event.getUserId() == null ? "" : " from " + event.getUserId();
            reports.put(event.getEventName() + " " + event.getData() + from);
        }

        @Override
        public void onUsersInformationReceived(String channel, Set<User> users) {
            List<String> ids = new ArrayList<>();
            users.forEach(user -> ids.add(user.getId()));
            ids.sort(null);
            reports.put("here " + ids);
        }

        @Override
        public void userSubscribed(String channel, User user) {
            reports.put("joined " + user.getId() + " " + user.getInfo());
        }

        @Override
        public void userUnsubscribed(String channel, User user) {
            reports.put("left " + user.getId());
        }

        @Override
        public void onAuthenticationFailure(String message, Exception problem) {
            reports.put("refused " + message);
        }

        @Override
        public void onDecryptionFailure(String event, String reason) {
            reports.put("undecipherable " + reason);
        }
    }

    private static com.pusher.rest.Pusher api() {
        com.pusher.rest.Pusher api = new com.pusher.rest.Pusher(
                APP_ID, KEY, SECRET, Harness.setting("SDK_MASTER_KEY"));
        api.setHost(HOST + ":" + PORT);
        return api;
    }

    private static String ok(Result result) {
        Harness.equal(result.getStatus() + " " + result.getMessage(), "SUCCESS " + result.getMessage());
        return result.getMessage();
    }

    public static void main(String[] arguments) throws Exception {
        socketTests();
        httpTests();
        Harness.run();
    }

    private static void socketTests() {
        Harness.test("public channel (protocol 5)", () -> {
            String name = Harness.fresh("news");
            Listener listener = new Listener();
            Client.connected("ada").pusher.subscribe(name, listener, "ev");
            listener.subscribed();
            ok(api().trigger(name, "ev", Map.of("text", "grüße")));
            listener.expect("ev {\"text\":\"grüße\"}");
        });
        Harness.test("private channel through an auth endpoint", () -> {
            String name = Harness.fresh("private-orders");
            Listener listener = new Listener();
            Client.connected("ada").pusher.subscribePrivate(name, listener, "ev");
            listener.subscribed();
            ok(api().trigger(name, "ev", Map.of("n", 1)));
            listener.expect("ev {\"n\":1}");
        });
        Harness.test("presence channel: who is here, joining, leaving", () -> {
            String name = Harness.fresh("presence-room");
            Listener adas = new Listener();
            Client.connected("ada").pusher.subscribePresence(name, adas);
            adas.expect("here [ada]");
            Client bob = Client.connected("bob");
            Listener bobs = new Listener();
            bob.pusher.subscribePresence(name, bobs);
            bobs.expect("here [ada, bob]");
            Harness.equal(bob.pusher.getPresenceChannel(name).getMe().getId(), "bob");
            adas.expect("joined bob {\"name\":\"Bob\"}");
            bob.pusher.disconnect();
            adas.expect("left bob");
        });
        Harness.test("encrypted channel", () -> {
            String name = Harness.fresh("private-encrypted-vault");
            Listener listener = new Listener();
            Client.connected("ada").pusher.subscribePrivateEncrypted(name, listener, "ev");
            listener.subscribed();
            ok(api().trigger(name, "ev", Map.of("code", "0000")));
            // The client takes the subscription count for something to decipher too, and complains on its own thread.
            listener.expect("ev {\"code\":\"0000\"}");
        });
        Harness.test("client events", () -> {
            String name = Harness.fresh("presence-chat");
            Client ada = Client.connected("ada");
            Listener adas = new Listener();
            Listener bobs = new Listener();
            ada.pusher.subscribePresence(name, adas, "client-typing");
            Client.connected("bob").pusher.subscribePresence(name, bobs, "client-typing");
            adas.subscribed();
            bobs.subscribed();
            ada.pusher.getPresenceChannel(name).trigger("client-typing", "{\"on\":true}");
            bobs.expect("client-typing {\"on\":true} from ada");
        });
        Harness.test("cache channel: a miss, then the last event", () -> {
            String name = Harness.fresh("cache-price");
            Listener early = new Listener();
            Listener late = new Listener();
            Client.connected("ada").pusher.subscribe(name, early, "pusher:cache_miss");
            early.expect("pusher:cache_miss {}");
            ok(api().trigger(name, "price", Map.of("p", 1)));
            Client.connected("bob").pusher.subscribe(name, late, "price");
            late.expect("price {\"p\":1}");
        });
        Harness.test("subscription count", () -> {
            String name = Harness.fresh("counted");
            Listener listener = new Listener();
            Client.connected("ada").pusher.subscribe(name, listener, "pusher:subscription_count");
            listener.expect("pusher:subscription_count {\"subscription_count\":1}");
            Client.connected("bob").pusher.subscribe(name);
            listener.expect("pusher:subscription_count {\"subscription_count\":2}");
        });
        Harness.test("sign-in, an event to the user, and terminate (error, then close 4009)", () -> {
            String user = Harness.fresh("user");
            Client client = Client.connected(user);
            Listener listener = new Listener();
            client.pusher.user().bind("ev", listener);
            client.pusher.signin();
            // The client reports no success of a sign-in; its user id shows it.
            for (int tries = 0; client.pusher.user().userId() == null; tries++) {
                Harness.equal(tries < 400, true);
                Thread.sleep(20);
            }
            // The SDK knows no such channels: its `trigger` refuses the `#`.
            ok(api().post("/events", "{\"name\":\"ev\",\"data\":\"{\\\"n\\\":1}\",\"channel\":\"#server-to-user-" + user + "\"}"));
            listener.expect("ev {\"n\":1}");
            ok(api().post("/users/" + user + "/terminate_connections", "{}"));
            client.reports.next("the error", "error 4009"::equals);
            client.reports.next("the end", "DISCONNECTED"::equals);
        });
        Harness.test("a refused subscription is an error, and the connection goes on", () -> {
            Client client = Client.connected("ada");
            client.pusher.subscribePrivate(Harness.fresh("private-forged"));
            client.reports.next("the error", "error 4009"::equals);
            String name = Harness.fresh("private-fine");
            Listener listener = new Listener();
            client.pusher.subscribePrivate(name, listener, "ev");
            listener.subscribed();
            ok(api().trigger(name, "ev", Map.of("n", 1)));
            listener.expect("ev {\"n\":1}");
            Harness.equal(client.pusher.getConnection().getState(), ConnectionState.CONNECTED);
        });
        Harness.test("an unknown key is refused with 4001", () -> {
            Client client = new Client("nobody-has-this-key", "ada");
            client.reports.next("the error", "error 4001"::equals);
            client.reports.next("the end", "DISCONNECTED"::equals);
        });
    }

    private static void httpTests() {
        Harness.test("http: several channels, without the socket it names", () -> {
            String one = Harness.fresh("a");
            String two = Harness.fresh("b");
            Client ada = Client.connected("ada");
            Listener adas = new Listener();
            Listener bobs = new Listener();
            ada.pusher.subscribe(one, adas, "ev");
            Client.connected("bob").pusher.subscribe(two, bobs, "ev");
            adas.subscribed();
            bobs.subscribed();
            ok(api().trigger(Arrays.asList(one, two), "ev", 1, ada.pusher.getConnection().getSocketId()));
            bobs.expect("ev 1");
            ok(api().trigger(Arrays.asList(one, two), "ev", 2));
            Harness.equal(adas.reports.next("the second", report -> report.startsWith("ev ")), "ev 2");
        });
        Harness.test("http: batch, in order", () -> {
            String name = Harness.fresh("batch");
            Listener listener = new Listener();
            Client.connected("ada").pusher.subscribe(name, listener, "ev");
            listener.subscribed();
            List<Event> batch = new ArrayList<>();
            for (int n = 0; n < 5; n++) {
                batch.add(new Event(name, "ev", n));
            }
            Harness.equal(ok(api().trigger(batch)), "{}");
            // A subscribe() just after connecting may go out twice, and is then acknowledged twice.
            for (int n = 0; n < 5; n++) {
                Harness.equal(listener.reports.next("an event", report -> report.startsWith("ev ")), "ev " + n);
            }
        });
        Harness.test("http: channels, one channel, its users", () -> {
            String name = Harness.fresh("presence-room");
            Listener listener = new Listener();
            Client.connected("ada").pusher.subscribePresence(name, listener);
            listener.subscribed();
            Map<String, String> query = Map.of("filter_by_prefix", name, "info", "user_count");
            Harness.equal(ok(api().get("/channels", query)), "{\"channels\":{\"" + name + "\":{\"user_count\":1}}}");
            Harness.equal(ok(api().get("/channels/" + name)), "{\"occupied\":true}");
            Harness.equal(ok(api().get("/channels/" + name + "/users")), "{\"users\":[{\"id\":\"ada\"}]}");
        });
        Harness.test("http: a wrong secret is an authentication error", () -> {
            com.pusher.rest.Pusher api = new com.pusher.rest.Pusher(APP_ID, KEY, "wrong");
            api.setHost(HOST + ":" + PORT);
            Harness.equal(api.trigger("x", "ev", "x").getStatus(), Result.Status.AUTHENTICATION_ERROR);
        });
        Harness.test("http: authenticate signs what the server accepts", () -> {
            String name = Harness.fresh("presence-room");
            Listener listener = new Listener();
            PusherOptions options = new PusherOptions().setHost(HOST).setWsPort(PORT).setUseTLS(false)
                    .setChannelAuthorizer((channel, socketId) ->
                            api().authenticate(socketId, channel, new PresenceUser(7, Map.of("name", "Seven"))));
            Pusher pusher = new Pusher(KEY, options);
            Harness.after(pusher::disconnect);
            pusher.connect();
            pusher.subscribePresence(name, listener);
            listener.expect("here [7]");
        });
    }
}
