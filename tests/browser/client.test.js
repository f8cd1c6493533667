// The client module, /fantail.js: every transport cut off and back without a message lost, in Chromium and in Node.
import assert from "node:assert/strict";
import { after, afterEach, before, beforeEach, test } from "node:test";
import http from "node:http";
import { createServer, connect as dial } from "node:net";
import { connect } from "../../src/routes/page/fantail.js";
import { between, eventually, launch, serve, visit } from "./support.js";

let browser, server;
before(async () => { browser = await launch(); });
after(async () => { await browser?.close(); });
beforeEach(async () => { server = await serve(0, "--ping-interval", "1s", "--pong-timeout", "1s"); });
afterEach(async () => { await server?.stop(); });

const numbers = (from, end) => Array.from({ length: end - from }, (_, at) => String(from + at));

/** Publishes the numbers from `from` below `end`. */
async function publish(topic, from, end) {
  for (const text of numbers(from, end)) assert.equal((await server.publish(topic, text, "text/plain")).status, 200);
}

/** A connection in this process, with all that it tells. */
function inNode(url, options) {
  const told = { messages: [], gaps: [], presence: [], ends: [] };
  const link = connect(url, {
    ...options, onMessage: (message) => told.messages.push(message), onGap: (gap) => told.gaps.push(gap),
    onPresence: (event) => told.presence.push(event), onEnd: (end) => told.ends.push(end),
  });
  return {
    told: () => ({ ...told, state: link.state, transport: link.transport, cursors: link.cursors, member: link.member }),
    publish: (topic, payload) => link.publish(topic, payload),
    subscribe: (topic, since) => link.subscribe(topic, since),
    unsubscribe: (topic) => link.unsubscribe(topic),
    close: () => link.close(),
  };
}

/** The same in a page of Chromium, which came from `url` itself. */
async function inChromium(url, options) {
  const page = await visit(browser, `${url}chat.html`);
  await page.evaluate(async ([url, options]) => {
    const { connect } = await import("/fantail.js");
    const told = { messages: [], gaps: [], presence: [], ends: [] };
    const link = connect(url, {
      ...options, onMessage: (message) => told.messages.push(message), onGap: (gap) => told.gaps.push(gap),
      onPresence: (event) => told.presence.push(event), onEnd: (end) => told.ends.push(end),
    });
    Object.assign(window, { told, link });
  }, [url, options]);
  return {
    told: () => page.evaluate(() => {
      const { state, transport, cursors, member } = link;
      return { ...told, state, transport, cursors, member };
    }),
    publish: (topic, payload) => page.evaluate(([topic, payload]) => link.publish(topic, payload), [topic, payload]),
    subscribe: (topic, since) => page.evaluate(([topic, since]) => link.subscribe(topic, since), [topic, since]),
    unsubscribe: (topic) => page.evaluate((topic) => link.unsubscribe(topic), topic),
    /** The browser is cut off its network, by the DevTools protocol. */
    offline: (isOffline) => page.context().setOffline(isOffline),
    /** The page is left for another. */
    leave: () => page.goto("about:blank"),
    close: () => page.context().close(),
  };
}

const texts = ({ messages }, topic) => messages.filter((message) => message.topic === topic).map(({ text }) => text);
/** It is open, and its subscriptions are in force; a poll has no word for that. */
const opens = (link, what = "it is open") => eventually(what, async () => {
  const { state, transport, cursors } = await link.told();
  const waits = ([name, at]) => at === "latest" && !name.includes("*") && transport !== "poll";
  return state === "open" && !Object.entries(cursors).some(waits);
});

for (const [where, enter, transports] of [["Chromium", inChromium, ["websocket", "sse", "poll"]], ["Node", inNode, ["sse", "poll"]]]) {
  for (const transport of transports) {
    test(`${where} by ${transport}: two topics, cut off and back, without loss, disorder or a message twice`, async () => {
      const network = await between(server);
      const link = await enter(network.url, { topics: ["a/b", "c"], transports: [transport] });
      await opens(link);
      // A socket is open before the subscriptions are in force that it asks for by message. The page has one of its own.
      await eventually("both are in force", async () => await server.subscriptions() === (where === "Chromium" ? 3 : 2));
      await publish("a/b", 0, 3);
      await publish("c", 0, 3);
      await eventually("both came", async () => (await link.told()).messages.length === 6);
      network.down();
      await publish("a/b", 3, 6);
      await eventually("the end was told", async () => (await link.told()).ends.length > 0);
      const [end] = (await link.told()).ends;
      assert.equal(end.orderly, false);
      assert.ok(end.retryInMs >= 0 && end.retryInMs <= 20_000, `${end.retryInMs} ms`);
      await network.up();
      await eventually("it is up to date", async () => texts(await link.told(), "a/b").length === 6);
      await publish("c", 3, 5);
      await eventually("and goes on", async () => texts(await link.told(), "c").length === 5);
      const told = await link.told();
      assert.deepEqual([texts(told, "a/b"), texts(told, "c"), told.gaps], [numbers(0, 6), numbers(0, 5), []]);
      assert.equal(told.cursors.c, told.messages.findLast(({ topic }) => topic === "c").cursor);
      await link.close();
      network.down();
    });

    test(`${where} by ${transport}: another life of the topic is a gap, and publishing is answered`, async () => {
      const link = await enter(server.url, { topics: "chat", transports: [transport] });
      await opens(link);
      const { cursor } = await link.publish("chat", "before");
      await eventually("it came back", async () => (await link.told()).messages.length === 1);
      assert.equal((await link.told()).messages[0].cursor, cursor);
      const { port } = server;
      await server.stop();
      server = await serve(port, "--ping-interval", "1s", "--pong-timeout", "1s");
      await eventually("the gap was told", async () => (await link.told()).gaps.length === 1);
      const [gap] = (await link.told()).gaps;
      assert.deepEqual([gap.topic, gap.from], ["chat", cursor]);
      await link.publish("chat", { n: 1 });
      await eventually("it goes on", async () => (await link.told()).messages.at(-1)?.data?.n === 1);
      await link.unsubscribe("chat");
      await link.close();
    });
  }
}

test("patterns: what is behind them once, and after a break a gap that says that something may be missing", async () => {
  for (const [where, enter, transport] of [["Chromium", inChromium, "websocket"], ["Node", inNode, "sse"]]) {
    await publish("news/a", 0, 2);
    await publish("news/deep/b", 0, 2);
    const network = await between(server);
    // Each topic is read once, though two names match it.
    const link = await enter(network.url, { topics: ["news/**", "news/a"], since: "earliest", transports: [transport] });
    await opens(link);
    const has = (topic, count) => async () => texts(await link.told(), topic).length === count;
    await eventually("what is kept came", async () => await has("news/a", 2)() && await has("news/deep/b", 2)());
    await publish("news/a", 2, 3);
    await eventually("and what is published", has("news/a", 3));
    network.down();
    await eventually("the end was told", async () => (await link.told()).ends.length > 0);
    await network.up();
    await eventually("the gap was told", async () => (await link.told()).gaps.length === 1);
    assert.deepEqual((await link.told()).gaps[0], { type: "gap", topic: "news/**", from: null, to: null, reason: "pattern" }, where);
    await publish("news/deep/b", 2, 3);
    await eventually("it goes on", has("news/deep/b", 3));
    const told = await link.told();
    assert.deepEqual([texts(told, "news/a"), texts(told, "news/deep/b")], [numbers(0, 3), numbers(0, 3)], where);
    await link.close();
    network.down();
    await server.stop();
    server = await serve(0, "--ping-interval", "1s", "--pong-timeout", "1s");
  }
});

test("a topic that a pattern brings already begins now, and says so", async () => {
  await publish("news/a", 0, 2);
  const link = await inChromium(server.url, { topics: "news/**", transports: ["websocket"] });
  await opens(link);
  await eventually("the pattern is in force", async () => {
    await publish("news/marker", 0, 1);
    return texts(await link.told(), "news/marker").length > 0;
  });
  await link.subscribe("news/a", "earliest");
  await eventually("the gap was told", async () => (await link.told()).gaps.length === 1);
  assert.deepEqual((await link.told()).gaps[0], { type: "gap", topic: "news/a", from: null, to: null, reason: "pattern" });
  await publish("news/a", 2, 4);
  await eventually("it is there", async () => texts(await link.told(), "news/a").length === 2);
  assert.deepEqual([texts(await link.told(), "news/a"), (await link.told()).ends], [numbers(2, 4), []]);
  await link.close();
});

for (const transport of ["sse", "poll"]) {
  test(`by ${transport} one request has all topics, and is made anew for others without a message lost or twice`, async () => {
    const link = inNode(server.url, { topics: ["a", "b", "c"], transports: [transport] });
    await eventually("it is open", () => link.told().state === "open");
    const inForce = (count) => eventually(`${count} are in force`, async () => await server.subscriptions() === count);
    await inForce(3);
    await eventually("in one request", async () => await server.connections("sse") === Number(transport === "sse"));
    await Promise.all([publish("a", 0, 20), link.subscribe("d"), link.unsubscribe("c"), link.subscribe("e")]);
    await inForce(4);
    await publish("d", 0, 2);
    await eventually("all came", () => texts(link.told(), "a").length === 20 && texts(link.told(), "d").length === 2);
    const { cursors, ...told } = link.told();
    assert.deepEqual([texts(told, "a"), texts(told, "d"), told.gaps, told.ends], [numbers(0, 20), numbers(0, 2), [], []]);
    assert.deepEqual(Object.keys(cursors), ["a", "b", "d", "e"]);
    assert.equal(cursors.a, told.messages.findLast(({ topic }) => topic === "a").cursor);
    // Of b nothing has come: it stands where all of them together do.
    assert.match(cursors.b, /^~/);
    link.close();
    await inForce(0);
    for (const topic of ["a", "b"]) await publish(topic, 30, 33);
    for (const next of ["websocket", "sse", "poll"]) {
      const again = await inChromium(server.url, { topics: ["a", "b", "d"], since: cursors, transports: [next] });
      await eventually(`${next} goes on`, async () => (await again.told()).messages.length === 6);
      const { gaps, ...told } = await again.told();
      assert.deepEqual([texts(told, "a"), texts(told, "b"), gaps], [numbers(30, 33), numbers(30, 33), []]);
      await again.close();
    }
  });
}

for (const transport of ["websocket", "sse", "poll"]) {
  test(`by ${transport} a browser that was offline comes back at once, with all that was published`, async () => {
    const network = await between(server);
    const link = await inChromium(network.url, { topics: "chat", since: "earliest", transports: [transport] });
    await publish("chat", 0, 2);
    await eventually("it came", async () => texts(await link.told(), "chat").length === 2);
    await link.offline(true);
    network.down();
    await eventually("it cannot come back", async () => (await link.told()).ends.length > 4);
    await publish("chat", 2, 4);
    await network.up();
    const { ends } = await link.told();
    await link.offline(false);
    await eventually("it got what it missed", async () => texts(await link.told(), "chat").length === 4);
    assert.ok((await link.told()).ends.length <= ends.length + 1, "it need not wait for its turn");
    assert.deepEqual([texts(await link.told(), "chat"), (await link.told()).gaps], [numbers(0, 4), []]);
    await link.close();
    network.down();
  });
}

for (const transport of ["websocket", "sse"]) {
  test(`by ${transport} it is told who is there, who comes and who goes, and is the same member when it comes back`, async () => {
    await server.stop();
    server = await serve(0, "--topic-class", "rooms/*;presence=list;presence-names=on", "--presence-grace", "10s",
      "--presence-interval", "50ms");
    const network = await between(server);
    const options = { topics: ["chat", "rooms/1"], presence: "rooms/1", transports: [transport] };
    const watcher = await inChromium(server.url, { ...options, member: "Ann" });
    const events = async (name) => (await watcher.told()).presence.filter(({ event }) => event === name);
    await eventually("it stands in the list itself", async () => {
      const { presence, member } = await watcher.told();
      return presence.some(({ event, members, ...one }) => (event === "list" ? members : [one]).some(({ client }) => client === member));
    });
    const other = await inChromium(network.url, options);
    await eventually("another came", async () => (await events("join")).some(({ member }) => member.startsWith("@")));
    const { member } = await other.told();
    assert.deepEqual((await events("join")).at(-1), { type: "presence", topic: "rooms/1", event: "join", member });
    const [known, joined] = [(await watcher.told()).presence.length, (await other.told()).presence.length];
    network.down();
    await eventually("it was cut off", async () => (await other.told()).ends.length > 0);
    await network.up();
    await eventually("it is back, and knows who is there", async () => (await other.told()).presence.length > joined);
    const [list] = (await other.told()).presence.slice(joined);
    assert.deepEqual([list.event, list.count], ["list", 2]);
    // Under another name it would have come at once.
    await new Promise((resolve) => setTimeout(resolve, 500));
    assert.equal((await watcher.told()).presence.length, known, "who comes back in time never left");
    await other.leave();
    await eventually("it left", async () => (await events("leave")).length === 1);
    const left = { type: "presence", topic: "rooms/1", event: "leave", member, cause: "left_page", orderly: true };
    assert.deepEqual(await events("leave"), [left]);
    const third = inNode(server.url, { topics: "rooms/1", presence: true, transports: ["sse"], member: "Bob" });
    await eventually("a third came", async () => (await events("join")).some(({ member }) => member === "Bob"));
    third.close();
    await eventually("and said goodbye", async () => (await events("leave")).some(({ member, orderly }) => member === "Bob" && orderly));
    await watcher.close();
    await other.close();
    network.down();
  });
}

for (const [what, count, length] of [["names", 70, 5], ["letters", 30, 240]]) {
  test(`too many ${what} for one request are in two`, async () => {
    const topics = Array.from({ length: count }, (_, at) => String(at).padStart(length, "t"));
    // The pattern stands in one of the requests, and brings nothing of what the others name.
    const link = inNode(server.url, { topics: [...topics, "**"], transports: ["sse"] });
    await eventually("all are in force", async () => await server.subscriptions() === count + 1);
    await eventually("two streams are open", async () => await server.connections("sse") === 2);
    for (const topic of topics) await publish(topic, 0, 1);
    await eventually("all came", () => topics.every((topic) => texts(link.told(), topic).length > 0));
    await publish("last", 0, 1);
    await eventually("and the last", () => texts(link.told(), "last").length === 1);
    assert.ok(topics.every((topic) => texts(link.told(), topic).length === 1), "once");
    link.close();
  });
}

test("what the server says of an end is told: a stop with its delay, and who may not come in is told so once", async () => {
  const link = await inChromium(server.url, { topics: "chat", transports: ["websocket"] });
  await opens(link);
  await server.stop("SIGTERM");
  await eventually("the stop was told", async () => (await link.told()).ends.length > 0);
  const [stop] = (await link.told()).ends;
  assert.deepEqual([stop.cause, stop.orderly, stop.code], ["drain", true, 1001]);
  assert.ok(stop.retryAfterMs >= 0 && stop.retryInMs === stop.retryAfterMs, JSON.stringify(stop));
  await link.close();
  server = await serve(0, "--allow-anonymous", "publish");
  const refused = inNode(server.url, { topics: "chat" });
  await eventually("it has ended", async () => refused.told().state === "ended");
  const { ends } = refused.told();
  assert.deepEqual([ends.length, ends[0].problem.status, ends[0].retryInMs], [1, 403, undefined]);
});

test("a server without room is asked again when it said, and not by all at once", async () => {
  const problem = JSON.stringify({ type: "urn:fantail:problem:too-many-connections", title: "No room", status: 503 });
  const headers = { "Content-Type": "application/problem+json", "Retry-After": "1" };
  const full = http.createServer((_, answer) => answer.writeHead(503, headers).end(problem));
  await new Promise((resolve) => full.listen(0, "127.0.0.1", resolve));
  const links = Array.from({ length: 5 }, () => inNode(`http://127.0.0.1:${full.address().port}/`, { topics: "chat", transports: ["poll"] }));
  await eventually("all were refused twice", () => links.every((link) => link.told().ends.length >= 2));
  const waits = [0, 1].map((time) => links.map((link) => link.told().ends[time].retryInMs));
  links.forEach((link) => link.close());
  full.close();
  for (const [time, ms] of waits.entries()) {
    assert.ok(ms.every((wait) => wait >= 1000 && wait <= 1000 + 500 * 2 ** time), `${ms}`);
    assert.ok(new Set(ms).size > 1, `${ms}`);
  }
});

test("text of every kind comes by an event stream", async () => {
  const text = "a\u2028b\u2029c\u0085d\n\r e";
  const link = inNode(server.url, { topics: ["chat"], transports: ["sse"] });
  await opens(link);
  assert.equal((await server.publish("chat", text, "text/plain")).status, 200);
  await eventually("it came", () => link.told().messages.length === 1);
  assert.equal(link.told().messages[0].text, text);
  link.close();
});

test("where only polls are left a pattern is told to be blocked, and topics go on when it is left", async () => {
  const link = inNode(server.url, { topics: ["chat", "news/*"], transports: ["poll"] });
  await eventually("it was told", () => link.told().ends.length > 0);
  const [{ cause, problem, retryInMs }] = link.told().ends;
  assert.deepEqual([cause, problem, retryInMs >= 0], ["blocked", { title: "long-polls have no patterns" }, true]);
  link.unsubscribe("news/*");
  await eventually("it is open", () => link.told().state === "open");
  await publish("chat", 0, 1);
  await eventually("it came", () => texts(link.told(), "chat").length === 1);
  link.close();
});

test("a quiet poll is not taken for a server that is gone", async () => {
  const link = inNode(server.url, { topics: ["chat"], transports: ["poll"] });
  await eventually("it is open", () => link.told().state === "open");
  // Longer than the interval and the time-out of this server's pings.
  await new Promise((resolve) => setTimeout(resolve, 5000));
  assert.deepEqual(link.told().ends, []);
  link.close();
});

test("a server that falls silent is noticed", async () => {
  const link = await inChromium(server.url, { topics: "chat", transports: ["websocket"] });
  await opens(link);
  server.freeze();
  await eventually("silence was noticed", async () => (await link.told()).ends.some(({ cause }) => cause === "silence"));
  assert.equal((await link.told()).ends[0].orderly, false);
  server.thaw();
  await opens(link, "it is open again");
  await link.close();
});

/** A network on which something stands that `allows` a request by its head, or answers it with `answer`. */
async function guarded(allows, answer) {
  const guard = createServer((near) => {
    const far = dial(server.port, "127.0.0.1");
    // Every request is looked at: a browser sends several on one connection.
    near.on("error", () => {}).on("close", () => far.destroy()).on("data", (bytes) => {
      if (allows(bytes.toString("latin1"))) far.write(bytes); else near.end(answer);
    });
    far.on("error", () => {}).on("close", () => near.end()).on("data", (bytes) => { if (near.writable) near.write(bytes); });
  });
  await new Promise((done) => { guard.listen(0, "127.0.0.1", done); });
  return { url: `http://127.0.0.1:${guard.address().port}/`, close: () => guard.close() };
}

for (const [what, allows, expected] of [
  ["WebSockets", (head) => !/^upgrade:/im.test(head), "sse"],
  ["WebSockets and event streams", (head) => !/^upgrade:|as=sse/im.test(head), "poll"],
]) {
  test(`where a proxy lets no ${what} through it goes on by ${expected}`, async () => {
    const network = await guarded(allows, "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno");
    const link = await inChromium(network.url, { topics: "chat" });
    await eventually("it is open", async () => {
      const { state, transport } = await link.told();
      return state === "open" && transport === expected;
    });
    await publish("chat", 0, 2);
    await eventually("both came", async () => (await link.told()).messages.length === 2);
    const { ends } = await link.told();
    assert.ok(ends.length > 0 && ends.every(({ cause }) => cause === "blocked"), JSON.stringify(ends));
    await link.close();
    network.close();
  });
}
