import com.google.gson.GsonBuilder;
import com.pusher.rest.Pusher;
import com.pusher.rest.data.Validity;
import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.concurrent.Executors;

/**
 * A webhook endpoint made with pusher-http-java, the official Java SDK, which checks signatures and parses nothing; what it
 * prints is told in {@code node/backend.mjs}.
 */
public final class Receiver {
    private static final Pusher SDK =
            new Pusher("1", Harness.setting("HOOKED_KEY"), Harness.setting("HOOKED_SECRET"));

    private Receiver() {}

    public static void main(String[] args) throws IOException {
        HttpServer server = HttpServer.create(new InetSocketAddress("127.0.0.1", 0), 0);
        server.createContext("/", Receiver::receive);
        server.setExecutor(Executors.newCachedThreadPool());
        server.start();
        print(Map.of("port", server.getAddress().getPort()));
    }

    private static void receive(HttpExchange exchange) throws IOException {
        String body = new String(exchange.getRequestBody().readAllBytes(), StandardCharsets.UTF_8);
        Validity validity = SDK.validateWebhookSignature(
                exchange.getRequestHeaders().getFirst("X-Pusher-Key"),
                exchange.getRequestHeaders().getFirst("X-Pusher-Signature"),
                body);
        List<List<String>> headers = new ArrayList<>();
        exchange.getRequestHeaders().forEach((name, values) -> {
            for (String value : values) {
                headers.add(List.of(name.toLowerCase(Locale.ROOT), value));
            }
        });
        Map<String, Object> report = new HashMap<>();
        report.put("path", exchange.getRequestURI().getPath());
        report.put("headers", headers);
        report.put("body", body);
        report.put("problem", validity == Validity.VALID ? null : validity.toString());
        report.put("seen", null);
        print(report);
        exchange.sendResponseHeaders(validity == Validity.VALID ? 200 : 401, -1);
        exchange.close();
    }

    private static synchronized void print(Map<String, Object> report) {
        System.out.println(new GsonBuilder().serializeNulls().create().toJson(report));
    }
}
