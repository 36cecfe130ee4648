import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.List;
import java.util.Objects;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.function.Predicate;

/** The same words as {@code node/harness.mjs}: prints `ok NAME` or `not ok NAME` per test and `done N` at the end. */
final class Harness {
    /** What a test does; it fails by throwing. */
    interface Body {
        void run() throws Exception;
    }

    private static final class Test {
        final String name;
        final Body body;

        Test(String name, Body body) {
            this.name = name;
            this.body = body;
        }
    }

    private static final List<Test> TESTS = new ArrayList<>();
    private static final Deque<Body> UNDO = new ArrayDeque<>();
    private static int names = 0;

    private Harness() {}

    static void test(String name, Body body) {
        TESTS.add(new Test(name, body));
    }

    /** Registers what is to be undone when the running test ends. */
    static void after(Body undo) {
        UNDO.push(undo);
    }

    static void run() throws Exception {
        int failed = 0;
        for (Test test : TESTS) {
            try {
                test.body.run();
                System.out.println("ok " + test.name);
            } catch (Throwable problem) {
                failed++;
                System.out.println("not ok " + test.name);
                System.out.println("    " + problem);
                for (StackTraceElement frame : problem.getStackTrace()) {
                    System.out.println("        at " + frame);
                }
            }
            while (!UNDO.isEmpty()) {
                UNDO.pop().run();
            }
        }
        System.out.println("done " + TESTS.size());
        System.exit(failed == 0 ? 0 : 1);
    }

    static void equal(Object got, Object wanted) {
        if (!Objects.equals(got, wanted)) {
            throw new AssertionError("got " + got + ", wanted " + wanted);
        }
    }

    /** A channel name no other test uses. */
    static String fresh(String prefix) {
        names++;
        return prefix + "java-" + ProcessHandle.current().pid() + "-" + names;
    }

    static String setting(String name) {
        return Objects.requireNonNull(System.getenv(name), name + " is not set: start by tests/sdk/run.mjs");
    }

    /** What callbacks bring, kept until somebody waits for it. */
    static final class Mailbox<T> {
        private final BlockingQueue<T> letters = new LinkedBlockingQueue<>();

        void put(T letter) {
            letters.add(letter);
        }

        /** The next letter for which `wanted` holds; others are thrown away. */
        T next(String what, Predicate<T> wanted) throws InterruptedException {
            long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(8);
            while (true) {
                T letter = letters.poll(end - System.nanoTime(), TimeUnit.NANOSECONDS);
                if (letter == null) {
                    throw new AssertionError("not within 8 s: " + what);
                }
                if (wanted.test(letter)) {
                    return letter;
                }
            }
        }

        boolean isEmpty() {
            return letters.isEmpty();
        }
    }
}
