// Fantail's client: an ES module without dependencies, for browsers and for Node.
//
//   import { connect } from "https://push.example.com/fantail.js";
//   const link = connect("https://push.example.com/", {
//     topics: ["prices/eur", "prices/usd"],
//     onMessage: ({ topic, data }) => show(topic, data),
//     onGap: ({ topic }) => reload(topic), // what was missed is not kept any more: read the state anew
//     onEnd: ({ cause, orderly, retryInMs }) => tell(cause),
//   });
//
// It comes back by itself and asks for what it missed, by the cursor of the last message of each topic. It speaks fantail.v1 over a
// WebSocket; where none gets through it reads an event stream by fetch, and where that is held up on the way it polls.
// docs/protocol.md of the server has the whole of it.

/** What holds until the server has said what does. */
const TOLD = { ping_ms: 25_000, pong_timeout_ms: 10_000, retry: { min_ms: 500, max_ms: 20_000 } };
/** From the first step to an open connection; longer means that something on the way holds it up. */
const OPEN_TIMEOUT_MS = 10_000;
/** One stream or poll has a cursor for so many topics. */
const CURSOR_TOPICS_MAX = 64;
/** Their names and cursors, and one of them all, leave a URL below the 8 kB that proxies take. */
const URL_TOPICS_CHARS_MAX = 5000;
/** What `&topic=&since=EPOCH.OFFSET` adds to a name. */
const URL_CURSOR_CHARS = 45;
/** How long a poll asks to wait. */
const POLL_WAIT_S = 25;
/** A timer beyond 2^31 ms would fire at once. */
const RETRY_TOLD_MAX_MS = 3_600_000;
/** How often to look whether anything was heard. */
const WATCH_EVERY_MS = 1000;

/** The cause where a close came with its code alone (RFC 6455 section 7.4 and docs/wire.md). */
const CAUSE_OF_CODE = {
  1000: "client_close", 1001: "drain", 1002: "protocol_error", 1007: "bad_utf8", 1008: "policy", 1009: "too_big", 1011: "internal",
  1013: "overloaded", 4001: "unauthenticated", 4003: "forbidden", 4009: "kicked", 4104: "gap", 4201: "expired",
};
/** With these the server says: it would end the same way again. */
const FINAL_CODES = [4001, 4003, 4009];
/** With this a request is told that it meets another one (`cancelled`, `covered`). */
const CONFLICT = 409;
/** What a request may be told for good. */
const FINAL_STATUS = [400, 401, 403, 404, 405, 406];

/** Connects to the server at `url` and stays connected until {@link Connection.close}, or until the server says not to come back. */
export function connect(url, options) {
  return new Connection(url, options);
}

class Connection {
  #base;
  #options;
  /** Where each topic goes on: the last cursor that came, its own or that of several, until then what the caller asked for. */
  #positions = new Map();
  /** Patterns that have been subscribed to once: who comes back to one can't say where it stood. */
  #begun = new Set();
  /** Of which topics it is told who is there: all, or these. */
  #watched;
  /** What makes it the same member when it comes back, a secret; and what the others know it by. */
  #key;
  #member;
  #name;
  #transports;
  #transport = null;
  #state = "connecting";
  #told = TOLD;
  #failures = 0;
  #openedAt = 0;
  #heardAt = 0;
  #timer = 0;
  #watch = 0;
  #online = () => this.#state === "waiting" && this.retry();
  /** A page that is left for good says so: a browser may close a socket without a word, and streams have none. */
  #left = ({ persisted }) => { if (this.#key && !persisted) navigator.sendBeacon(new URL("bye", this.#base), this.#key); };

  constructor(url, options = {}) {
    const { topics = [], since = "latest", transports = ["websocket", "sse", "poll"], presence = false, ...others } = options;
    const { clientKey, member, ...callbacks } = others;
    // A page's own address, where there is one, completes a relative URL; what follows the last slash is not the server's.
    this.#base = new URL(".", new URL(url, globalThis.location?.href));
    this.#base.protocol = this.#base.protocol.replace(/^ws/, "http");
    for (const name of transports) if (!TRANSPORTS[name]) throw new TypeError(`${name} is no transport: websocket, sse, poll`);
    // Node has no WebSocket of its own before version 22.
    this.#transports = transports.filter((name) => name !== "websocket" || "WebSocket" in globalThis);
    if (!this.#transports.length) throw new TypeError("there is no WebSocket here, and no other transport is allowed");
    this.#options = callbacks;
    for (const topic of [topics].flat()) this.#positions.set(topic, since[topic] ?? (typeof since === "string" ? since : "latest"));
    this.#watched = typeof presence === "boolean" ? presence : [presence].flat();
    [this.#key, this.#name] = [clientKey, member];
    globalThis.addEventListener?.("online", this.#online);
    globalThis.addEventListener?.("pagehide", this.#left);
    // The caller has its connection before anything is told of it.
    this.#timer = setTimeout(() => this.#begin());
  }

  /** `connecting`, `open`, `waiting` to come back, or `ended`. */
  get state() {
    return this.#state;
  }

  /** `websocket`, `sse` or `poll`: what is in use, or will be tried next. */
  get transport() {
    return this.#transports[0];
  }

  /** Where each topic stands: to be given as `since` to a later connection. A pattern stands nowhere. */
  get cursors() {
    return Object.fromEntries([...this.#positions].filter(([name]) => !isPattern(name)));
  }

  /** The id by which other members of its topics know it; undefined where there is no presence, and until the server has told it. */
  get member() {
    return this.#member;
  }

  /** Subscribes to one topic more. */
  subscribe(topic, since = "latest") {
    if (this.#positions.has(topic)) return;
    this.#positions.set(topic, since);
    this.#transport?.subscribe(topic, since);
  }

  /** Ends a subscription: nothing more of the topic is told. */
  unsubscribe(topic) {
    this.#begun.delete(topic);
    if (this.#positions.delete(topic)) this.#transport?.unsubscribe(topic);
  }

  /**
   * Publishes a string as text, bytes (an ArrayBuffer or a view of one) as they are, and anything else as JSON. Resolves with the
   * server's answer. Rejects if the server refused, and if no answer came: then nobody knows whether it was published.
   */
  async publish(topic, payload) {
    if (this.#state === "open" && this.#transport.publish) return this.#transport.publish(topic, payload);
    const bytes = payload instanceof ArrayBuffer || ArrayBuffer.isView(payload);
    const type = bytes ? "application/octet-stream" : typeof payload === "string" ? "text/plain" : "application/json";
    const body = bytes || typeof payload === "string" ? payload : JSON.stringify(payload);
    const answer = await fetch(this.url(topic), { method: "POST", body, headers: { "Content-Type": type } });
    if (!answer.ok) throw refusal(await problemOf(answer));
    return answer.json();
  }

  /** Tries again at once, if it waits. */
  retry() {
    if (this.#state !== "waiting") return;
    this.#failures = 0;
    this.#begin();
  }

  /** Ends it in order, for good. */
  close() {
    if (this.#state === "ended") return;
    // A socket's close says it, too.
    if (this.#key && this.transport !== "websocket") {
      fetch(new URL("bye", this.#base), { method: "POST", body: this.#key, keepalive: true }).catch(() => {});
    }
    this.#release();
    this.#finish({ cause: "client_close", orderly: true });
  }

  /** The address of a topic, with these parameters. */
  url(topic, parameters = {}) {
    const path = topic === null ? "topics" : `topics/${topic.split("/").map(encodeURIComponent).join("/")}`;
    const url = new URL(path, this.#base);
    for (const [name, value] of Object.entries(parameters)) url.searchParams.set(name, value);
    return url;
  }

  #begin() {
    clearTimeout(this.#timer);
    this.#enter("connecting");
    const transport = this.#transport = new TRANSPORTS[this.transport](this, this.#positions, {
      // What a transport tells after it was let go of is about nothing any more.
      opened: (told) => this.#transport === transport && this.#opened(told),
      heard: () => { if (this.#transport === transport) this.#heardAt = Date.now(); },
      wants: (topic) => this.#transport === transport && this.#positions.has(topic),
      began: (topics, cursor) => this.#transport === transport && this.#began(topics, cursor),
      reached: (topics, cursor) => this.#transport === transport && this.#reached(topics, cursor),
      message: (message) => this.#deliver(transport, "onMessage", message, message.cursor),
      gap: (gap) => this.#deliver(transport, "onGap", gap, gap.to),
      presence: (event) => this.#deliver(transport, "onPresence", event),
      watches: (topic) => !isPattern(topic) && (this.#watched === true || Boolean(this.#watched && this.#watched.includes(topic))),
      facts: () => this.#facts(),
      /** What says in a URL who it is; its name only where it is known that there is presence. */
      identity: (isNamed) => ({ ...(this.#key && { "client-key": this.#key }), ...(isNamed && this.#name && { member: this.#name }) }),
      identified: (key, member) => { if (key) [this.#key, this.#member] = [key, member]; },
      ended: (end) => this.#transport === transport && this.#lost(end),
      blocked: (why) => this.#transport === transport && this.#blocked(why),
    });
    this.#timer = setTimeout(() => this.#blocked("nothing was opened in time"), OPEN_TIMEOUT_MS);
  }

  /** Streams and polls tell it whenever they begin anew: the first counts. */
  #opened({ ping_ms, pong_timeout_ms, retry } = {}) {
    if (this.#state === "open") return;
    clearTimeout(this.#timer);
    if (ping_ms > 0) this.#told = { ping_ms, pong_timeout_ms, retry: { ...TOLD.retry, ...retry } };
    this.#openedAt = this.#heardAt = Date.now();
    // The server says something once in `ping_ms`, and means to be given up after `pong_timeout_ms` more.
    this.#watch = setInterval(() => {
      if (Date.now() - this.#heardAt > this.#told.ping_ms + this.#told.pong_timeout_ms) this.#lost({ cause: "silence" });
    }, WATCH_EVERY_MS);
    this.#enter("open");
  }

  /** Subscriptions begin behind this cursor; a pattern behind none, so what lies between two of its connections is unknown. */
  #began(topics, cursor) {
    for (const topic of topics.filter((topic) => isPattern(topic) && this.#positions.has(topic))) {
      this.#positions.set(topic, "latest");
      if (this.#begun.has(topic)) this.#options.onGap?.(unknownGap(topic));
      this.#begun.add(topic);
    }
    this.#reached(topics, cursor);
  }

  /** A cursor of several is for those that have none of their own: that of a topic's last message says the same. A pattern has none. */
  #reached(topics, cursor) {
    for (const topic of topics) {
      const before = this.#positions.get(topic);
      const isKnown = cursor?.startsWith("~") && before?.includes(".");
      if (cursor && before !== undefined && !isKnown && !isPattern(topic)) this.#positions.set(topic, cursor);
    }
  }

  #deliver(transport, callback, object, cursor) {
    if (this.#transport !== transport || !this.#wants(object.topic)) return;
    // Before the callback: one that throws has had its message.
    this.#reached([object.topic], cursor);
    this.#options[callback]?.(object);
  }

  /** Whether a topic is subscribed to, by its name or by a pattern; or a topic of a pattern, because a gap may be told of one that was left. */
  #wants(topic) {
    if (this.#positions.has(topic)) return true;
    return [...this.#positions.keys()].some((name) => matches(name, topic) || matches(topic, name));
  }

  /** Lets go of the transport without a word of what it still tells. */
  #release() {
    const transport = this.#transport;
    this.#transport = null;
    clearTimeout(this.#timer);
    clearInterval(this.#watch);
    transport?.close();
  }

  /** A connection, or the attempt at one, has ended. */
  #lost({ cause = "lost", orderly = false, code, retryAfterMs, isForAll = false, problem, isFinal = false }) {
    this.#release();
    if (isFinal) return this.#finish({ cause, orderly, code, problem });
    const { min_ms, max_ms } = this.#told.retry;
    // A server that lets us in and throws us out again has not recovered: only what lasted ends the backing off.
    if (this.#openedAt && Date.now() - this.#openedAt > max_ms) this.#failures = 0;
    this.#openedAt = 0;
    // Full jitter, so that a crowd does not come back at once. A close or an `end` has a delay for each client, a refusal the same for all.
    const jitter = Math.random() * Math.min(max_ms, min_ms * 2 ** Math.min(this.#failures++, 30));
    const retryInMs = Math.min(retryAfterMs === undefined || isForAll ? (retryAfterMs ?? 0) + jitter : retryAfterMs, RETRY_TOLD_MAX_MS);
    this.#timer = setTimeout(() => this.#begin(), retryInMs);
    this.#enter("waiting");
    this.#options.onEnd?.({ cause, orderly, code, retryAfterMs, retryInMs, problem });
  }

  /** This transport does not get through, though the server may be there: asks it, and tries the next transport if it answers. */
  async #blocked(why) {
    const transport = this.#transport;
    const topic = [...this.#positions.keys()].find((name) => !isPattern(name));
    const answer = await (topic === undefined ? this.#facts() : fetch(this.url(topic), { cache: "no-store" })).catch(() => null);
    if (this.#transport !== transport) return;
    if (!answer) return this.#lost({ cause: "unreachable" });
    if (!answer.ok) return this.#lost(endOf(await problemOf(answer), answer));
    // Once round: what did not get through in a café may at home.
    this.#transports = [...this.#transports.slice(1), this.#transports[0]];
    this.#lost({ cause: "blocked", problem: { title: why } });
  }

  /** Asks the server what it tells everybody (docs/wire.md). */
  #facts() {
    return fetch(new URL(".well-known/fantail", this.#base), { cache: "no-store" });
  }

  #finish({ cause, orderly, code, problem }) {
    globalThis.removeEventListener?.("online", this.#online);
    globalThis.removeEventListener?.("pagehide", this.#left);
    this.#enter("ended");
    this.#options.onEnd?.({ cause, orderly, code, problem });
  }

  #enter(state) {
    if (this.#state === state) return;
    this.#state = state;
    this.#options.onState?.(state);
  }
}

/* ---- Transports: each tells what it hears, and ends once. ---- */

/** fantail.v1 (docs/protocol.md): all topics on one socket. */
class Socket {
  #tell;
  #socket;
  #isOpen = false;
  #lastId = 0;
  /** What an answer to each request does. */
  #answers = new Map();

  constructor(connection, positions, tell) {
    this.#tell = tell;
    const url = connection.url(null, tell.identity(true));
    url.protocol = url.protocol.replace(/^http/, "ws");
    this.#socket = new WebSocket(url, "fantail.v1");
    this.#socket.onmessage = ({ data }) => this.#read(data, positions);
    this.#socket.onclose = (event) => this.#closed(event);
  }

  subscribe(topic, since) {
    if (!this.#isOpen) return; // it goes with the others
    this.#ask({ type: "subscribe", topic, since }).then(
      ({ cursor }) => {
        this.#tell.began([topic], cursor);
        if (this.#tell.watches(topic) && this.#tell.wants(topic)) this.#watch(topic);
      },
      ({ problem }) => {
        if (problem?.status !== CONFLICT) return problem && this.#tell.ended(endOf(problem));
        // Else it was left before it was confirmed.
        if (!problem.type.endsWith(":covered") || !this.#tell.wants(topic)) return;
        // A wider pattern brings it already: what is older can't come any more.
        this.#tell.gap(unknownGap(topic));
        this.subscribe(topic, "latest");
      },
    );
  }

  #watch(topic) {
    this.#ask({ type: "presence", topic, watch: true }).catch(({ problem }) => problem && this.#tell.ended(endOf(problem)));
  }

  unsubscribe(topic) {
    if (this.#isOpen) this.#ask({ type: "unsubscribe", topic }).catch(() => {});
  }

  publish(topic, payload) {
    return this.#ask({ type: "publish", topic, ...payloadOf(payload) });
  }

  close() {
    this.#socket.close(1000);
    this.#giveUp();
  }

  #ask(request) {
    const id = ++this.#lastId;
    this.#socket.send(JSON.stringify({ id, ...request }));
    return new Promise((resolve, reject) => this.#answers.set(id, { resolve, reject }));
  }

  #read(data, positions) {
    this.#tell.heard();
    const object = JSON.parse(data);
    switch (object.type) {
      case "open":
        this.#isOpen = true;
        this.#tell.identified(object.client_key, object.member);
        // Before the caller is told, who may subscribe to more. What a pattern brings is not read by another name behind it, so the narrow
        // ones go first.
        for (const [topic, since] of [...positions].sort(([one], [other]) => width(one) - width(other))) this.subscribe(topic, since);
        this.#tell.opened(object);
        break;
      case "message": this.#tell.message(object); break;
      case "gap": this.#tell.gap(object); break;
      case "presence": this.#tell.presence(object); break;
      case "ok": this.#take(object.id)?.resolve(object); break;
      case "error": this.#take(object.id)?.reject(refusal(object.problem)); break;
    }
  }

  #take(id) {
    const answer = this.#answers.get(id);
    this.#answers.delete(id);
    return answer;
  }

  #giveUp() {
    for (const { reject } of this.#answers.values()) reject(new Error("the connection ended before the answer came"));
    this.#answers.clear();
  }

  #closed({ code, reason }) {
    this.#giveUp();
    if (!this.#isOpen && code === 1006) return this.#tell.blocked("a WebSocket could not be opened");
    const isFinal = FINAL_CODES.includes(code);
    this.#tell.ended({ cause: CAUSE_OF_CODE[code], ...endedBy(reason), orderly: code !== 1006, code, isFinal });
  }
}

/** What streams and polls share: one request for all topics, made anew when others are wanted. */
class Requests {
  #abort = new AbortController();
  #isChanging = false;
  /** What a socket is told when it is open: how long a silence means nothing. */
  #facts;

  /** `positions` stay the caller's: they are where the next request begins. */
  constructor(connection, positions, tell) {
    Object.assign(this, { connection, positions, tell });
    this.#facts = tell.facts().then((answer) => answer.json()).catch(() => ({}));
    this.#change();
  }

  /** Something got through. */
  async opened(silence_ms = 0) {
    const { ping_ms = TOLD.ping_ms, pong_timeout_ms = TOLD.pong_timeout_ms, retry } = await this.#facts;
    this.tell.opened({ ping_ms: Math.max(ping_ms, silence_ms), pong_timeout_ms, retry });
  }

  subscribe() {
    this.#change();
  }

  unsubscribe() {
    this.#change();
  }

  close() {
    this.#abort.abort();
    this.#isChanging = true;
  }

  /** Asks for what is wanted by then: not before the caller has what is made here, nor before it has been told what has come. */
  #change() {
    if (this.#isChanging) return;
    this.#isChanging = true;
    queueMicrotask(() => {
      if (this.#abort.signal.aborted) return; // closed meanwhile
      this.#abort.abort();
      this.#isChanging = false;
      const { signal } = this.#abort = new AbortController();
      const topics = [...this.positions.keys()];
      if (!topics.length) this.opened();
      for (const some of this.kinds(topics).flatMap(inRequests)) this.follow(some, signal).catch(() => signal.aborted || this.tell.ended({}));
    });
  }

  /** Topics that can't be in one request stand apart. */
  kinds(topics) {
    return [topics];
  }

  /** The answer to a GET of these topics, each from where it stands, or null if it has told why there is none. */
  async get(topics, parameters, signal) {
    const url = this.connection.url(null, { ...parameters, ...this.tell.identity("presence" in parameters) });
    const positions = topics.map((topic) => [topic, this.positions.get(topic)]).sort(([, a], [, b]) => (a < b ? -1 : Number(a > b)));
    positions.forEach(([topic, since], at) => {
      url.searchParams.append("topic", topic);
      // It holds for the topics named since the one before: a cursor of several need not come again and again.
      if (!since.startsWith("~") || since !== positions[at + 1]?.[1]) url.searchParams.append("since", since);
    });
    const answer = await fetch(url, { cache: "no-store", signal });
    if (answer.ok) {
      this.tell.identified(answer.headers.get("Fantail-Client-Key"), answer.headers.get("Fantail-Member"));
      return answer;
    }
    this.tell.ended(endOf(await problemOf(answer), answer));
    return null;
  }
}

/** An event stream by fetch (WHATWG HTML section 9.2). */
class Streams extends Requests {
  /** A stream tells of all its topics who is there, or of none. */
  kinds(topics) {
    return [true, false].map((watched) => topics.filter((topic) => this.tell.watches(topic) === watched));
  }

  async follow(topics, signal) {
    const presence = this.tell.watches(topics[0]) ? { presence: "" } : {};
    const answer = await this.get(topics, { as: "sse", envelope: "", ...presence }, signal);
    if (!answer) return;
    if (!answer.headers.get("Content-Type")?.startsWith("text/event-stream")) return this.tell.blocked("what came is no event stream");
    let end = {}, rest = "", isOpen = false;
    for await (const text of answer.body.pipeThrough(new TextDecoderStream())) {
      if (signal.aborted) return;
      this.tell.heard();
      const events = (rest + text).split("\n\n");
      rest = events.pop();
      for (const event of events) {
        const { id, data, event: type = "message" } = fieldsOf(event);
        // The first event is there at once, unless something on the way gathers what it should pass on.
        if (!isOpen) { isOpen = true; await this.opened(); }
        // Where all of its topics stand, behind what has come of each; the first has no data.
        if (data === undefined) this.tell.began(topics, id);
        else if (type === "cursor") this.tell.reached(topics, id);
        else if (type === "message" || type === "gap") {
          const object = JSON.parse(data);
          // What a pattern brings of a topic that another request names comes in order there.
          if (topics.includes(object.topic) || !this.tell.wants(object.topic)) this.tell[type](object);
        }
        else if (type === "presence") this.tell.presence(JSON.parse(data));
        else if (type === "end") end = endedBy(data);
      }
    }
    // The end of the stream alone says nothing: not every reader tells one that was ended from one that was cut off.
    this.tell.ended(end);
  }
}

/** Long-polls: an answer, and the next question. */
class Polls extends Requests {
  async follow(topics, signal) {
    if (topics.some(isPattern)) return this.tell.blocked("long-polls have no patterns");
    // The first answers at once, which tells that polls get through.
    for (let wait = 0; ; wait = POLL_WAIT_S) {
      const answer = await this.get(topics, { wait }, signal);
      if (!answer) return;
      const { messages, gaps = [], cursor } = await answer.json();
      if (signal.aborted) return;
      if (!wait) await this.opened(POLL_WAIT_S * 1000);
      this.tell.heard();
      gaps.forEach((gap) => this.tell.gap(gap));
      messages.forEach((message) => this.tell.message(message));
      this.tell.reached(topics, cursor);
    }
  }
}

const TRANSPORTS = { websocket: Socket, sse: Streams, poll: Polls };

/* ---- Topics, bodies, problems ---- */

/** What all topics of a pattern begin with, and its stars; nothing for a topic. */
const partsOf = (name) => name.match(/^(.*\/|)(\*\*?)$/s) ?? [];

const isPattern = (name) => partsOf(name).length > 0;

/** Puts names in an order in which none stands behind one that matches all its topics. */
function width(name) {
  const [, start, stars] = partsOf(name);
  return stars ? stars.length - 2 * start.length : Number.MIN_SAFE_INTEGER;
}

/** What is missing of a name is unknown. */
const unknownGap = (topic) => ({ type: "gap", topic, from: null, to: null, reason: "pattern" });

/** The topics of each request: as many as its cursor and its URL have room for. */
function inRequests(topics) {
  const requests = [];
  let room = 0;
  for (const topic of topics) {
    const chars = encodeURIComponent(topic).length + URL_CURSOR_CHARS;
    room -= chars;
    if (room < 0 || requests.at(-1).length === CURSOR_TOPICS_MAX) {
      requests.push([]);
      room = URL_TOPICS_CHARS_MAX - chars;
    }
    requests.at(-1).push(topic);
  }
  return requests;
}

/** Whether a pattern matches a topic: a last segment `*` stands for one, `**` for one or more. */
function matches(pattern, topic) {
  const [, start, stars] = partsOf(pattern);
  if (!stars || !topic.startsWith(start) || topic.length === start.length) return false;
  return stars === "**" || !topic.includes("/", start.length);
}

function payloadOf(payload) {
  if (typeof payload === "string") return { text: payload };
  if (payload instanceof ArrayBuffer) return { base64: base64(new Uint8Array(payload)) };
  if (ArrayBuffer.isView(payload)) return { base64: base64(new Uint8Array(payload.buffer, payload.byteOffset, payload.byteLength)) };
  return { data: payload };
}

const base64 = (bytes) => btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));

/** The fields of an event, the lines of its data joined. */
function fieldsOf(event) {
  const fields = {};
  for (const line of event.split("\n")) {
    const [, name, value] = line.match(/^(\w+): ?(.*)$/s) ?? [];
    if (name) fields[name] = name === "data" && "data" in fields ? `${fields.data}\n${value}` : value;
  }
  return fields;
}

/** What the server says of an end: `{"cause":"drain","retry_after_ms":8400}`, or nothing. */
function endedBy(json) {
  try {
    const { cause, retry_after_ms: retryAfterMs } = JSON.parse(json);
    return { cause, retryAfterMs, orderly: true };
  } catch {
    return {};
  }
}

/** The problem of a refusal (RFC 9457), or what its status says where it has none. */
async function problemOf(answer) {
  const problem = await answer.json().catch(() => null);
  return { title: `The server answered ${answer.status}`, status: answer.status, ...Object(problem) };
}

/** How a problem ends a connection. */
function endOf(problem, answer) {
  const seconds = Number(answer?.headers.get("Retry-After"));
  const isFinal = FINAL_STATUS.includes(problem.status);
  return { cause: isFinal ? "policy" : "overloaded", orderly: true, problem, isFinal, ...(seconds ? { retryAfterMs: 1000 * seconds, isForAll: true } : {}) };
}

function refusal(problem) {
  return Object.assign(new Error(problem.detail ?? problem.title), { problem });
}
