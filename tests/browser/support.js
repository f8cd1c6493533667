// What the browser tests share: a server that runs, a browser that watches what its pages do, and patience.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { connect, createServer } from "node:net";
import { dirname, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { setTimeout as sleep } from "node:timers/promises";
import { chromium } from "playwright-core";

const ROOT = resolve(dirname(fileURLToPath(import.meta.url)), "../..");
const BIN = process.env.FANTAIL_BIN ?? resolve(ROOT, "target/release/fantail");
const START_MS = 10_000;

/** How long something may take that the page does by itself. A reconnect after an outage waits longest. */
export const PATIENCE_MS = 30_000;

export const launchOptions = {
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  headless: true,
  // A test that talks to itself needs no sandbox in a container, and none of the browser's own traffic.
  args: ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync"],
};

export const launch = () => chromium.launch(launchOptions);

/** The server as a person starts it. `port` 0 lets the kernel choose; the banner says which it became. */
export async function serve(port = 0, ...flags) {
  const listen = ["--listen", `127.0.0.1:${port}`, "--admin", "127.0.0.1:0", "--drain-window", "1s"];
  const child = spawn(BIN, ["serve", ...listen, ...flags], { stdio: ["ignore", "pipe", "pipe"] });
  const exited = once(child, "exit");
  const { url, admin } = await banner(child);
  return {
    url,
    port: Number(new URL(url).port),
    /** Publishes as curl would. */
    publish: (topic, body, type = "application/x-www-form-urlencoded") =>
      fetch(`${url}topics/${topic}`, { method: "POST", body, headers: { "Content-Type": type } }),
    /** How many connections have ended for `cause` so far. */
    closed: (cause) => metric(admin, `fantail_connections_closed_total{cause="${cause}"}`),
    /** How many connections of a transport are open. */
    connections: (transport) => metric(admin, `fantail_connections{transport="${transport}"}`),
    /** How many subscriptions are in force. */
    subscriptions: () => metric(admin, "fantail_subscriptions"),
    /** Has it stand still, and go on. */
    freeze: () => child.kill("SIGSTOP"),
    thaw: () => child.kill("SIGCONT"),
    /** Ends the server by `signal`; gives its exit status, null if the signal killed it. */
    async stop(signal = "SIGKILL") {
      if (child.exitCode === null && child.signalCode === null) child.kill(signal);
      const [status] = await exited;
      return status;
    },
  };
}

/** A network between the browser and `server` that can go down, with all its connections, and come up again. */
export async function between(server) {
  const open = new Set();
  const relay = createServer((near) => {
    const far = connect(server.port, "127.0.0.1");
    for (const [from, to] of [[near, far], [far, near]]) {
      open.add(from);
      from.on("error", () => {}).on("close", () => { open.delete(from); to.destroy(); }).pipe(to);
    }
  });
  const up = (port) => new Promise((done) => { relay.listen(port, "127.0.0.1", done); });
  await up(0);
  const { port } = relay.address();
  return {
    url: `http://127.0.0.1:${port}/`,
    up: () => up(port),
    down: () => { relay.close(); open.forEach((socket) => socket.destroy()); },
  };
}

/** Reads the banner until it has named the address served and that of the metrics. */
function banner(child) {
  let seen = "";
  return new Promise((found, failed) => {
    const timer = setTimeout(() => failed(new Error(`no addresses in the banner after ${START_MS} ms:\n${seen}`)), START_MS);
    child.on("exit", (status) => failed(new Error(`the server ended with status ${status}:\n${seen}`)));
    child.on("error", failed);
    const read = (bytes) => {
      seen += bytes;
      const [, url] = seen.match(/listening\s+(http:\S+\/)\s/) ?? [];
      const [, admin] = seen.match(/admin\s+(http:\S+\/metrics)\s/) ?? [];
      if (!url || !admin) return;
      clearTimeout(timer);
      found({ url, admin });
    };
    // Both stay read to the end: a full pipe would stall the server's log.
    child.stdout.on("data", read);
    child.stderr.on("data", read);
  });
}

/** Opens `url` in a browser context of its own and notes all that a page must not do. */
export async function visit(browser, url, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1180, height: 860 }, ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(PATIENCE_MS);
  page.faults = [];
  page.on("pageerror", (error) => page.faults.push(`exception: ${error.message}`));
  page.on("console", (line) => {
    if (["error", "warning"].includes(line.type())) page.faults.push(`${line.type()}: ${line.text()}`);
  });
  page.on("request", (request) => {
    const { protocol, host } = new URL(request.url());
    if (protocol !== "data:" && host !== new URL(url).host) page.faults.push(`request to ${request.url()}`);
  });
  await page.goto(url);
  return page;
}

/** The value of one series; 0 where it is not there. */
async function metric(admin, series) {
  const lines = (await (await fetch(admin)).text()).split("\n");
  return Number(lines.find((line) => line.startsWith(`${series} `))?.slice(series.length + 1) ?? 0);
}

/** Waits until `probe` gives something true, and gives it. */
export async function eventually(what, probe, patience_ms = PATIENCE_MS) {
  for (const deadline = Date.now() + patience_ms; Date.now() < deadline; await sleep(50)) {
    const value = await probe();
    if (value) return value;
  }
  throw new Error(`not in ${patience_ms} ms: ${what}`);
}

/** The two pages differ in where they live, how they say that they are connected, and how many subscriptions their socket has. */
export const chats = {
  // One for the chat, one that measures latency.
  "/": { path: "", subscriptions: 2, connected: (page) => page.locator("#state", { hasText: /^Connected$/ }).waitFor() },
  "/chat.html": {
    path: "chat.html",
    subscriptions: 1,
    connected: (page) => page.getByRole("status").filter({ hasText: /^Connected\.$/ }).waitFor(),
  },
};

/** Writes `text` into the page's message field and sends it. */
export async function send(page, text) {
  await page.getByLabel("Message", { exact: true }).fill(text);
  await page.getByRole("button", { name: "Send" }).click();
}

/** Opens one of `chats` and waits until it is connected. */
export async function enter(browser, server, kind, options) {
  const page = await visit(browser, server.url + chats[kind].path, options);
  await chats[kind].connected(page);
  return page;
}

/** Waits until `count` subscriptions are in force: a socket cut while it connects has never been one, and ends for another cause. */
export const opened = (server, count) =>
  eventually(`${count} subscriptions are in force`, async () => await server.subscriptions() === count);

export const shows = (page, text) => page.getByRole("log").getByText(text).first().waitFor();
export const leave = (page) => page.getByRole("button", { name: "Leave" }).click();
