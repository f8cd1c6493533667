// Why a connection ended: each way to end one is told apart, by the person at the page and by the server's metrics.
import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { chromium } from "playwright-core";
import {
  between, chats, enter, eventually, launch, launchOptions, leave, opened, send, serve, shows, visit,
} from "./support.js";

let browser, server;
// The server first: where it can't start, no browser is left behind that would keep the run from ending.
beforeEach(async () => { server = await serve(); browser = await launch(); });
afterEach(async () => { await browser?.close(); await server?.stop(); });

/** What each page says, and where. */
const says = {
  "/": {
    left: (page) => page.locator("#state", { hasText: "Not connected" }).waitFor(),
    lost: (page) => shows(page, "The connection was lost: the server or the network went away without saying goodbye."),
    drained: (page) => shows(page, /The server is restarting and asked us to come back in [\d.]+\ss\./),
  },
  "/chat.html": {
    left: (page) => page.getByRole("status").filter({ hasText: "You left." }).waitFor(),
    lost: (page) => page.getByText("Connection ended: it was lost.").waitFor(),
    drained: (page) => page.getByText("Connection ended: the server is restarting.").waitFor(),
  },
};

for (const [kind, { subscriptions }] of Object.entries(chats)) {
  test(`${kind}: Leave closes in order, tells nobody else, and stays left`, async () => {
    const [ann, ben] = await Promise.all([enter(browser, server, kind), enter(browser, server, kind)]);
    await opened(server, 2 * subscriptions);
    const log = await ben.getByRole("log").textContent();
    const before = await server.closed("client_close");
    await leave(ann);
    await says[kind].left(ann);
    await eventually("the server counts client_close", async () => await server.closed("client_close") >= before + 1);
    await sleep(1500);
    await says[kind].left(ann);
    assert.equal(await ben.getByRole("log").textContent(), log);
    await server.publish("chat", "said after Ann left");
    await shows(ben, "said after Ann left");
    assert.equal(await ann.getByText("said after Ann left").count(), 0);
    for (const cause of ["left_page", "end_of_stream", "reset"]) assert.equal(await server.closed(cause), 0, cause);
    for (const page of [ann, ben]) assert.deepEqual(page.faults, []);
  });

  test(`${kind}: a closed tab is told as left_page`, async () => {
    const page = await enter(browser, server, kind);
    await opened(server, subscriptions);
    await page.close();
    await eventually("the server counts left_page", async () => await server.closed("left_page") === 1);
    for (const cause of ["end_of_stream", "reset"]) assert.equal(await server.closed(cause), 0, cause);
  });

  test(`${kind}: a killed browser is told as an end without a close`, async () => {
    const doomed = await chromium.launchServer(launchOptions);
    const remote = await chromium.connect(doomed.wsEndpoint());
    await enter(remote, server, kind);
    await opened(server, subscriptions);
    await doomed.kill();
    await eventually("the server counts end_of_stream or reset",
      async () => await server.closed("end_of_stream") + await server.closed("reset") === 1);
    // client_close says nothing here: an idle HTTP connection that ends between two requests has closed in order.
    assert.equal(await server.closed("left_page"), 0);
  });

  test(`${kind}: a killed server is called lost, and the page comes back by itself`, async () => {
    const page = await enter(browser, server, kind);
    await server.stop("SIGKILL");
    await says[kind].lost(page);
    server = await serve(server.port);
    await chats[kind].connected(page);
    await send(page, "back again");
    await shows(page, "back again");
  });

  test(`${kind}: a drained server is called restarting, and the page comes back by itself`, async () => {
    const page = await enter(browser, server, kind);
    const [status] = await Promise.all([server.stop("SIGTERM"), says[kind].drained(page)]);
    assert.equal(status, 0);
    assert.equal(await page.getByText("it was lost").or(page.getByText("The connection was lost")).count(), 0);
    server = await serve(server.port);
    await chats[kind].connected(page);
    await send(page, "after the restart");
    await shows(page, "after the restart");
  });
}

test("/: the reason stays in view where the log is long and the room gets smaller", async () => {
  const page = await enter(browser, server, "/");
  for (let line = 1; line <= 30; line++) await server.publish("chat", `line ${line}`);
  await shows(page, "line 30");
  await server.stop("SIGKILL");
  await page.getByRole("button", { name: "Try now" }).waitFor();
  const below = await page.locator("#log").evaluate((log) => log.scrollHeight - log.scrollTop - log.clientHeight);
  assert.ok(below < 2, `${below} px of the log are below what is shown`);
});

test("/chat.html: a drained server that stays away has not lost the connection", async () => {
  const page = await enter(browser, server, "/chat.html");
  const said = await page.getByRole("status").evaluateHandle((status) => {
    const said = [];
    new MutationObserver(() => said.push(status.textContent)).observe(status, { childList: true });
    return said;
  });
  await server.stop("SIGTERM");
  await page.getByText("Connection ended: no server answers. Coming back soon.").waitFor();
  assert.deepEqual(await said.jsonValue(), [
    "Connection ended: the server is restarting. Coming back soon.", "Connection ended: no server answers. Coming back soon.",
  ]);
});

test("/: Leave while it waits for the server ends the waiting", async () => {
  const page = await enter(browser, server, "/");
  await server.stop("SIGKILL");
  await says["/"].lost(page);
  await leave(page);
  server = await serve(server.port);
  await sleep(3000);
  await says["/"].left(page);
  await page.getByRole("button", { name: "Join" }).click();
  await chats["/"].connected(page);
});

test("/: a drained page does not come back before the time it was told", async () => {
  const page = await enter(browser, server, "/");
  const back = page.waitForEvent("websocket", (socket) => socket.url().endsWith("/topics"));
  await server.stop("SIGTERM");
  await says["/"].drained(page);
  const [, told] = (await page.getByRole("log").textContent()).match(/come back in ([\d.]+)\ss\./);
  const seen = Date.now();
  await back;
  assert.ok(Date.now() - seen > Number(told) * 1000 - 500, `told ${told} s, back after ${Date.now() - seen} ms`);
});

test("/: who may only listen is told so, keeps its words, and goes on listening", async () => {
  await server.stop();
  server = await serve(0, "--allow-anonymous", "subscribe");
  const page = await enter(browser, server, "/");
  await send(page, "May I?");
  await shows(page, "The server does not allow this from here.");
  assert.equal(await page.getByLabel("Message", { exact: true }).inputValue(), "May I?");
  await page.getByText("not measured: publishing is not allowed from here").waitFor();
  await chats["/"].connected(page);
  assert.equal(await server.closed("forbidden"), 0);
  assert.equal(await page.getByRole("log").getByText("May I?").count(), 0);
});

test("/chat.html: who may only listen is told so, and does not try again", async () => {
  await server.stop();
  server = await serve(0, "--allow-anonymous", "subscribe");
  const page = await enter(browser, server, "/chat.html");
  await send(page, "May I?");
  const words = page.getByText("you may not do that here").first();
  await words.waitFor();
  let opened = 0;
  page.on("websocket", () => { opened++; });
  await sleep(2000);
  assert.equal(opened, 0);
  assert.equal(await words.isVisible(), true);
  assert.ok(await server.closed("forbidden") >= 1);
  assert.equal(await page.getByRole("log").getByText("May I?").count(), 0);
});

test("/: what was said while the page was cut off is there when it is back, and what was said before it came", async () => {
  await server.publish("chat", "said before");
  const network = await between(server);
  const page = await visit(browser, network.url);
  await chats["/"].connected(page);
  await shows(page, "said before");
  network.down();
  await says["/"].lost(page);
  await server.publish("chat", "said meanwhile");
  await network.up();
  await shows(page, "said meanwhile");
  await shows(page, /Back after/);
  for (const text of ["said before", "said meanwhile"]) assert.equal(await page.getByRole("log").getByText(text).count(), 1, text);
  network.down();
});

test("/: where no WebSocket gets through the page goes on by event stream", async () => {
  const page = await (await browser.newContext()).newPage();
  await page.addInitScript(() => { delete globalThis.WebSocket; });
  await page.goto(server.url);
  await page.locator("#state", { hasText: /^Connected by event stream$/ }).waitFor();
  await send(page, "without a socket");
  await shows(page, "without a socket");
});
