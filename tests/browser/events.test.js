// Event streams: the browser's own EventSource and the official client for Node, cut off and back, without a message lost.
import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";
import { EventSource } from "eventsource";
import { between, eventually, launch, serve, visit } from "./support.js";

let server;
beforeEach(async () => { server = await serve(); });
afterEach(async () => { await server?.stop(); });

/** Publishes the numbers from `first` below `end`. */
async function publish(topic, first, end) {
  for (let number = first; number < end; number += 1) {
    assert.equal((await server.publish(topic, String(number), "text/plain")).status, 200);
  }
}

const numbers = (end) => Array.from({ length: end }, (_, number) => String(number));
const streams = () => server.connections("sse");

test("the official client gets what is published and resumes by itself", async () => {
  const got = [];
  let gaps = 0;
  const source = new EventSource(`${server.url}topics/chat`);
  source.onmessage = (event) => got.push(event.data);
  source.addEventListener("gap", () => { gaps += 1; });
  await eventually("the stream is open", async () => await streams() === 1);
  await publish("chat", 0, 5);
  await eventually("five messages", () => got.length === 5);
  source.close();
  await eventually("the stream is closed", async () => await streams() === 0);
  // What was missed is asked for by where it stood, as a new page would.
  await publish("chat", 5, 10);
  const again = new EventSource(`${server.url}topics/chat?since=earliest`);
  const all = [];
  again.onmessage = (event) => all.push(event.data);
  await eventually("ten messages", () => all.length === 10);
  again.close();
  assert.deepEqual([got, all, gaps], [numbers(5), numbers(10), 0]);
});

test("a browser whose network was down comes back by itself and gets what it missed", async () => {
  const browser = await launch();
  const network = await between(server);
  try {
    const page = await visit(browser, `${network.url}healthz`);
    await page.evaluate(() => {
      window.got = [];
      window.errors = 0;
      window.source = new EventSource("/topics/chat");
      window.source.onmessage = (event) => window.got.push(event.data);
      window.source.onerror = () => { window.errors += 1; };
    });
    await eventually("the stream is open", async () => await streams() === 1);
    await publish("chat", 0, 5);
    await eventually("five messages", () => page.evaluate(() => window.got.length === 5));
    network.down();
    await eventually("the stream is cut", async () => await streams() === 0);
    await publish("chat", 5, 10);
    // It is refused at least once before it gets through.
    await eventually("it has noticed twice", () => page.evaluate(() => window.errors >= 2));
    await network.up();
    await eventually("all ten", () => page.evaluate(() => window.got.length >= 10));
    await publish("chat", 10, 12);
    await eventually("all twelve", () => page.evaluate(() => window.got.length >= 12));
    assert.deepEqual(await page.evaluate(() => window.got), numbers(12));
  } finally {
    await browser.close();
    network.down();
  }
});

test("two topics in one stream: the browser's and the official client come back with one id and miss nothing", async () => {
  const browser = await launch();
  const network = await between(server);
  const path = "topics?topic=chat&topic=news%2Ftoday&envelope";
  let source;
  try {
    const page = await visit(browser, `${network.url}healthz`);
    await page.evaluate((path) => {
      window.got = [];
      window.source = new EventSource(`/${path}`);
      window.source.onmessage = ({ data, lastEventId }) => window.got.push({ ...JSON.parse(data), lastEventId });
    }, path);
    const got = [];
    source = new EventSource(`${network.url}${path}`);
    source.onmessage = ({ data }) => got.push(JSON.parse(data));
    // What comes again behind a cut says so by its cursor.
    const texts = (messages, topic) => [...new Map(messages.filter((message) => message.topic === topic)
      .map(({ cursor, text }) => [cursor, text])).values()];
    const both = async (count) => [await page.evaluate(() => window.got), got]
      .every((messages) => texts(messages, "chat").length === count && texts(messages, "news/today").length === count);
    await eventually("the streams are open", async () => await streams() === 2);
    await publish("chat", 0, 3);
    await publish("news/today", 0, 3);
    await eventually("three of each", () => both(3));
    network.down();
    await eventually("the streams are cut", async () => await streams() === 0);
    await publish("news/today", 3, 5);
    await publish("chat", 3, 5);
    await network.up();
    await eventually("all that was missed", () => both(5));
    const all = await page.evaluate(() => window.got);
    for (const messages of [all, got]) {
      assert.deepEqual([texts(messages, "chat"), texts(messages, "news/today")], [numbers(5), numbers(5)]);
    }
    assert.ok(all.every(({ lastEventId }) => lastEventId.startsWith("~")), "no frame has an id of its own");
  } finally {
    source?.close();
    await browser.close();
    network.down();
  }
});

test("a browser that is turned away for a while comes back by itself", async () => {
  await server.stop();
  server = await serve(0, "--max-topics", "1", "--workers", "1", "--history-size", "0");
  const browser = await launch();
  try {
    const holder = new EventSource(`${server.url}topics/one`);
    await eventually("the only topic is taken", async () => await streams() === 1);
    const page = await visit(browser, `${server.url}healthz`);
    await page.evaluate((url) => {
      window.opened = 0;
      window.source = new EventSource(url);
      window.source.onopen = () => { window.opened += 1; };
    }, `${server.url}topics/two`);
    // Refused with 200 and the end of the stream, which it takes for an interruption.
    await eventually("it was turned away", () => page.evaluate(() => window.opened > 0));
    assert.notEqual(await page.evaluate(() => window.source.readyState), 2, "it has not given up");
    holder.close();
  } finally {
    await browser.close();
  }
});
