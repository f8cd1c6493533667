/** Types of Fantail's client, `fantail.js`. */

/** Connects to the server at `url` and stays connected until `close`, or until the server says not to come back. */
export function connect(url: string | URL, options?: Options): Connection;

export interface Options {
  /**
   * The topics to subscribe to, and patterns: `news/*` stands for one segment, `news/**` for one or more. A pattern has no cursor, so after each
   * break `onGap` is called with its name, and it goes on with what is published from then on. Long-polls have no patterns.
   */
  topics?: string | string[];
  /** From where on: a cursor, `earliest`, `latest` (which holds where nothing is said) or a time such as `10m`; or one for each topic. */
  since?: string | Record<string, string>;
  /** What to use, in this order; the next is tried where one does not get through. All three, if nothing is said. */
  transports?: Transport[];
  /** The topics of which to be told who is there, of those subscribed to; `true` for all. Their class must have presence, and polls tell nothing. */
  presence?: boolean | string | string[];
  /** What proves that it is the same member after a reload, a secret of 16 to 64 letters, digits, `-` and `_`. The server draws one where it is left out. */
  clientKey?: string;
  /** The name to be known by in those topics, where their class allows names. */
  member?: string;
  onMessage?(message: Message): void;
  /** What lies behind `from`, up to `to`, is not kept any more: read the state anew. */
  onGap?(gap: Gap): void;
  /** Who is there. After a connection was lost the whole state comes again. */
  onPresence?(event: Presence): void;
  onState?(state: State): void;
  /** The connection has ended. Where there is `retryInMs`, it comes back then; where there is none, it has ended for good. */
  onEnd?(end: End): void;
}

export type Transport = "websocket" | "sse" | "poll";
export type State = "connecting" | "open" | "waiting" | "ended";

export interface Connection {
  readonly state: State;
  /** What is in use, or will be tried next. */
  readonly transport: Transport;
  /** Where each topic stands: to be given as `since` to a later connection. A pattern stands nowhere. */
  readonly cursors: Record<string, string>;
  /** The id by which other members of its topics know it, where there is presence. */
  readonly member: string | undefined;
  subscribe(topic: string, since?: string): void;
  unsubscribe(topic: string): void;
  /**
   * Publishes a string as text, bytes as they are, and anything else as JSON. Rejects if the server refused, with its `problem`, and
   * if no answer came: then nobody knows whether it was published.
   */
  publish(topic: string, payload: unknown): Promise<{ cursor: string }>;
  /** Tries again at once, if it waits. */
  retry(): void;
  /** Ends it in order, for good. */
  close(): void;
  /** The address of a topic, with these parameters. */
  url(topic: string | null, parameters?: Record<string, string>): URL;
}

export interface Message {
  type: "message";
  topic: string;
  cursor: string;
  at_ms: number;
  /** The payload of a publication that is JSON. */
  data?: unknown;
  /** Of one that is text. */
  text?: string;
  /** Of one that is neither. */
  base64?: string;
}

export interface Gap {
  type: "gap";
  /** Or the pattern, where nobody knows of which of its topics something is missing. */
  topic: string;
  /** Null where nobody knows. */
  from: string | null;
  to: string | null;
  reason: "trimmed" | "slow" | "epoch" | "future" | "pattern";
}

/** docs/wire.md, "Presence". */
export type Presence = { type: "presence"; topic: string } & (
  | { event: "list"; count: number; members: Member[] }
  | { event: "count"; count: number }
  | ({ event: "join" } & Member)
  | ({ event: "leave"; cause: string; orderly: boolean } & Member)
);

export interface Member {
  /** Its name, or its id where it has none. */
  member: string;
  /** Its id, where it has a name. */
  client?: string;
}

export interface End {
  /**
   * The server's word where it gave one (docs/wire.md, "Why a connection ended"); of the client's own: `lost`, `silence`,
   * `unreachable`, `blocked` (this transport does not get through; the next will be tried).
   */
  cause: string;
  /** Whether the other side said that it ends, or this side did. */
  orderly: boolean;
  /** The code of a WebSocket's close. */
  code?: number;
  /** What the server said of when to come back. */
  retryAfterMs?: number;
  /** When it comes back. */
  retryInMs?: number;
  /** Why, where the server said more (RFC 9457). */
  problem?: Problem;
}

export interface Problem {
  type?: string;
  title: string;
  status?: number;
  detail?: string;
  fix?: string;
}
