// Two people, two pages, one topic: what one says, the other reads.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { chats, enter, eventually, launch, send, serve, shows, visit } from "./support.js";

let browser, server;
// The server first: where it can't start, no browser is left behind that would keep the run from ending.
before(async () => { server = await serve(); browser = await launch(); });
after(async () => { await browser?.close(); await server?.stop(); });

for (const [one, other] of [["/", "/"], ["/chat.html", "/chat.html"], ["/", "/chat.html"]]) {
  test(`${one} and ${other} chat with one another`, async () => {
    const [ann, ben] = await Promise.all([enter(browser, server, one), enter(browser, server, other)]);
    await send(ann, "Good morning, Ben");
    await Promise.all([ann, ben].map((page) => shows(page, "Good morning, Ben")));
    await send(ben, "And to you — schön, 早安");
    await Promise.all([ann, ben].map((page) => shows(page, "And to you — schön, 早安")));
    for (const page of [ann, ben]) {
      assert.deepEqual(page.faults, []);
      await page.context().close();
    }
  });
}

for (const kind of Object.keys(chats)) {
  test(`${kind} shows what curl publishes, markup as the text it is`, async () => {
    const page = await enter(browser, server, kind);
    const answer = await server.publish("chat", "from <b>curl</b>, not JSON");
    assert.equal(answer.status, 200);
    await shows(page, "from <b>curl</b>, not JSON");
    await server.publish("chat", '{"name":"Cron","text":"backup done"}', "application/json");
    await shows(page, "backup done");
    assert.deepEqual(page.faults, []);
    await page.context().close();
  });
}

test("a topic in the address is the topic joined, and another topic's messages stay away", async () => {
  const page = await visit(browser, `${server.url}#garden/birds%20of%20NZ`);
  await chats["/"].connected(page);
  assert.equal(await page.getByLabel("Topic").inputValue(), "garden/birds of NZ");
  await server.publish("chat", "said elsewhere");
  await server.publish("garden/birds%20of%20NZ", "a fantail was seen");
  await shows(page, "a fantail was seen");
  assert.equal(await page.getByText("said elsewhere").count(), 0);
  assert.match(await page.locator("#curl").textContent(), /\/topics\/garden\/birds%20of%20NZ$/);
  assert.deepEqual(page.faults, []);
  await page.context().close();
});

test("a topic that is not allowed is refused in the server's own words", async () => {
  const page = await visit(browser, `${server.url}#meta/secret`);
  await page.locator("#state", { hasText: /^Ended$/ }).waitFor();
  const problem = await (await fetch(`${server.url}topics/meta/secret`)).json();
  assert.ok((await page.locator("#why-text").textContent()).startsWith(problem.detail));
  await page.context().close();
});

test("both pages work below a base path", async () => {
  const below = await serve(0, "--base-path", "/push");
  assert.equal(new URL(below.url).pathname, "/push/");
  const pages = await Promise.all(Object.keys(chats).map((kind) => enter(browser, below, kind)));
  await send(pages[0], "below a path");
  await Promise.all(pages.map((page) => shows(page, "below a path")));
  for (const page of pages) {
    assert.deepEqual(page.faults, []);
    await page.context().close();
  }
  await below.stop();
});

test("keyboard only: switch the topic, write, send, leave", async () => {
  const page = await enter(browser, server, "/");
  const tabTo = async (id) => {
    for (let presses = 0; presses < 20; presses++) {
      await page.keyboard.press("Tab");
      if (await page.evaluate(() => document.activeElement?.id) === id) return;
    }
    assert.fail(`Tab never reached #${id}`);
  };
  await tabTo("topic");
  await page.keyboard.press("Control+A");
  await page.keyboard.type("keys");
  await page.keyboard.press("Enter");
  await page.locator("#where", { hasText: "keys" }).waitFor();
  await chats["/"].connected(page);
  await tabTo("text");
  await page.keyboard.type("typed, not clicked");
  await page.keyboard.press("Enter");
  await shows(page, "typed, not clicked");
  assert.equal(await page.evaluate(() => document.activeElement.id), "text", "the field keeps the focus for the next message");
  await page.locator("#topic").focus();
  await tabTo("leave");
  await page.keyboard.press("Enter");
  await page.locator("#state", { hasText: "Not connected" }).waitFor();
  assert.equal(await page.evaluate(() => document.activeElement.id), "join", "the focus goes to the button that took its place");
  assert.deepEqual(page.faults, []);
  await page.context().close();
});

test("the fan-out view counts subscribers, measures latency and carries a burst to everyone", async () => {
  const [ann, ben] = await Promise.all([enter(browser, server, "/"), enter(browser, server, "/")]);
  await ann.locator("#subscribers", { hasText: /^2$/ }).waitFor();
  await ann.locator("#median", { hasText: /^\d+(\.\d)?\s*ms$/ }).waitFor();
  await ann.getByRole("button", { name: "Publish a burst" }).click();
  await ann.getByText(/^100 of 100 came back in .* Median .*ms, slowest .*ms\.$/).waitFor();
  await shows(ben, /published a burst: 100 of 100 received/);
  assert.ok(await ben.locator("#per-second").evaluate((figure) => Number(figure.textContent)) >= 0);
  const inked = await ben.locator("#rate").evaluate((canvas) =>
    canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.some((byte) => byte > 0));
  assert.ok(inked, "the chart is drawn");
  for (const page of [ann, ben]) assert.deepEqual(page.faults, []);
  await Promise.all([ann, ben].map((page) => page.context().close()));
});

for (const colorScheme of ["light", "dark"]) {
  for (const [device, viewport] of [["phone", { width: 360, height: 740 }], ["desktop", { width: 1180, height: 860 }]]) {
    for (const kind of Object.keys(chats)) {
      test(`${kind} fits a ${device} in ${colorScheme}`, async () => {
        const page = await enter(browser, server, kind, { colorScheme, viewport });
        const long = `${colorScheme}-${device}-` + "x".repeat(300);
        await send(page, long);
        await shows(page, long);
        const { wide, ground } = await page.evaluate(() => ({
          wide: document.documentElement.scrollWidth - document.documentElement.clientWidth,
          ground: getComputedStyle(document.body).backgroundColor.match(/\d+/g).map(Number),
        }));
        assert.equal(wide, 0, "nothing sticks out sideways");
        if (kind === "/") assert.equal(ground[0] < 128, colorScheme === "dark");
        assert.deepEqual(page.faults, []);
        await page.context().close();
      });
    }
  }
}

test("what is bound stays bound: a thousand messages leave a bounded log", async () => {
  const page = await enter(browser, server, "/");
  for (let batch = 0; batch < 10; batch++) {
    await Promise.all(Array.from({ length: 100 }, (_, index) => server.publish("chat", `line ${batch * 100 + index}`)));
  }
  await server.publish("chat", "the last of them");
  await shows(page, "the last of them");
  const rows = await eventually("the log is cut", () => page.locator("#log > li").count());
  assert.ok(rows <= 300, `${rows} rows`);
  await page.context().close();
});
