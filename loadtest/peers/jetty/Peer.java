// Echo and fan-out with Jetty 9.4.
//
//     java -cp ... Peer PORT
//
// Nothing blocks: messages are sent with a callback (RemoteEndpoint.sendString(String, WriteCallback)). A fan-out runs in a task of
// its topic, so the messages that one read of the publisher brings leave a subscriber with one write: all but the last are batched
// (BatchMode.ON), the last takes them along (BatchMode.OFF). Both are described in the documentation of
// https://javadoc.jetty.org/jetty-9/org/eclipse/jetty/websocket/api/RemoteEndpoint.html. permessage-deflate is there only for
// clients that offer it, which the load test doesn't. One acceptor and one selector, as one CPU is measured; a short accept queue
// would refuse what the load test opens at once (https://eclipse.dev/jetty/documentation/jetty-9/index.html#high-load).
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.ConcurrentHashMap;
import org.eclipse.jetty.server.HttpConfiguration;
import org.eclipse.jetty.server.HttpConnectionFactory;
import org.eclipse.jetty.server.Server;
import org.eclipse.jetty.server.ServerConnector;
import org.eclipse.jetty.util.thread.QueuedThreadPool;
import org.eclipse.jetty.websocket.api.BatchMode;
import org.eclipse.jetty.websocket.api.RemoteEndpoint;
import org.eclipse.jetty.websocket.api.Session;
import org.eclipse.jetty.websocket.api.WebSocketAdapter;
import org.eclipse.jetty.websocket.api.WriteCallback;
import org.eclipse.jetty.websocket.server.WebSocketHandler;
import org.eclipse.jetty.websocket.servlet.WebSocketServletFactory;

public final class Peer {
    private static final int ACCEPTORS = 1;
    private static final int SELECTORS = 1;
    private static final int BACKLOG = 4096;
    private static final int THREADS_MAX = 16;

    /** A write that fails ends its connection, and Jetty tells it by onWebSocketClose. */
    private static final WriteCallback IGNORE = new WriteCallback() {
        @Override
        public void writeFailed(Throwable cause) {}

        @Override
        public void writeSuccess() {}
    };

    public static void main(String[] args) throws Exception {
        QueuedThreadPool threads = new QueuedThreadPool(THREADS_MAX);
        Server server = new Server(threads);
        HttpConfiguration http = new HttpConfiguration();
        http.setSendServerVersion(false);
        http.setSendDateHeader(false);
        ServerConnector connector =
                new ServerConnector(server, null, null, null, ACCEPTORS, SELECTORS, new HttpConnectionFactory(http));
        connector.setHost("127.0.0.1");
        connector.setPort(Integer.parseInt(args[0]));
        connector.setAcceptQueueSize(BACKLOG);
        server.addConnector(connector);
        ConcurrentHashMap<String, Topic> topics = new ConcurrentHashMap<>();
        server.setHandler(new WebSocketHandler() {
            @Override
            public void configure(WebSocketServletFactory factory) {
                factory.setCreator((request, response) -> {
                    String path = request.getRequestURI().getPath();
                    return path.equals("/echo")
                            ? new Echo()
                            : new Subscriber(topics.computeIfAbsent(path, name -> new Topic(threads)));
                });
            }
        });
        server.setStopAtShutdown(true);
        server.start();
        server.join();
    }

    private static final class Echo extends WebSocketAdapter {
        @Override
        public void onWebSocketText(String message) {
            getRemote().sendString(message, IGNORE);
        }
    }

    private static final class Subscriber extends WebSocketAdapter {
        private final Topic topic;

        Subscriber(Topic topic) {
            this.topic = topic;
        }

        @Override
        public void onWebSocketConnect(Session session) {
            super.onWebSocketConnect(session);
            topic.subscribers.add(session.getRemote());
        }

        @Override
        public void onWebSocketText(String message) {
            topic.publish(message);
        }

        @Override
        public void onWebSocketClose(int code, String reason) {
            topic.subscribers.remove(getRemote());
            super.onWebSocketClose(code, reason);
        }
    }

    /** All that are connected to one path. */
    private static final class Topic implements Runnable {
        final ConcurrentHashMap.KeySetView<RemoteEndpoint, Boolean> subscribers = ConcurrentHashMap.newKeySet();
        private final QueuedThreadPool threads;
        private List<String> queued = new ArrayList<>();
        private boolean isRunning;

        Topic(QueuedThreadPool threads) {
            this.threads = threads;
        }

        void publish(String message) {
            synchronized (this) {
                queued.add(message);
                if (isRunning) {
                    return;
                }
                isRunning = true;
            }
            threads.execute(this);
        }

        /** Sends all that is queued, until nothing is; one task at a time, so the order stays. */
        @Override
        public void run() {
            for (List<String> batch = take(); !batch.isEmpty(); batch = take()) {
                for (RemoteEndpoint subscriber : subscribers) {
                    send(subscriber, batch);
                }
            }
        }

        private synchronized List<String> take() {
            List<String> batch = queued;
            queued = new ArrayList<>();
            isRunning = !batch.isEmpty();
            return batch;
        }

        private static void send(RemoteEndpoint subscriber, List<String> batch) {
            int last = batch.size() - 1;
            subscriber.setBatchMode(last > 0 ? BatchMode.ON : BatchMode.OFF);
            for (String message : batch.subList(0, last)) {
                subscriber.sendString(message, IGNORE);
            }
            subscriber.setBatchMode(BatchMode.OFF);
            subscriber.sendString(batch.get(last), IGNORE);
        }
    }
}
