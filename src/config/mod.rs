//! What the server is told when it starts: one flat [`Config`], the same from the command line, the environment and a program.
//!
//! The sentence above each field is also its flag's help, so the two can't disagree; `cli` adds the `FANTAIL_` variables. A value's
//! text is read and printed by its own type ([`ByteSize`], [`TimeSpan`], [`PinCores`], ...); what several fields mean together is
//! checked by [`Config::validate`], which names the flag and the fix. Nothing is read from the machine here: `auto` stays `auto`.

mod address;
mod assemble;
mod choice;
mod topic_class;
mod validate;

pub use crate::auth::{AllowAnonymous, OriginPattern};
pub use crate::class::{Presence, SlowConsumer};
pub use crate::quantity::{ByteSize, QuantityError, TimeSpan};
pub use crate::words::ChoiceError;
pub use address::{AdminAddress, ListenAddress};
pub use choice::{AutoCount, IoDriver, PinCores, WorkerCount};
pub use topic_class::{TopicClass, TopicClassError};
pub use validate::ConfigError;

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::log;

/// Every setting of a server, with the documented defaults.
///
/// ```
/// use fantail::config::{Config, TimeSpan};
///
/// let config = Config { listen: vec!["127.0.0.1:0".parse()?], ping_interval: TimeSpan::seconds(5), ..Config::default() };
/// config.validate()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct Config {
    /// Address clients connect to, repeatable; [::]:8080 takes IPv4 too, localhost:8080 both loopback addresses
    // The help text, in which brackets are no link.
    #[allow(rustdoc::broken_intra_doc_links)]
    #[arg(long, help_heading = LISTEN, value_name = "ADDR", value_delimiter = ',')]
    #[arg(default_value = "127.0.0.1:8080,[::1]:8080")]
    pub listen: Vec<ListenAddress>,
    /// Address of the admin listener, for /livez, /readyz and /metrics; off for none
    #[arg(long, help_heading = LISTEN, value_name = "ADDR", default_value = "127.0.0.1:9080")]
    pub admin: AdminAddress,
    /// Path that every URL begins with, for a server behind a proxy
    #[arg(long, help_heading = LISTEN, value_name = "PATH", default_value = "/")]
    pub base_path: String,

    /// What a request without credentials may do: local (all from this machine, subscribe from elsewhere), none, subscribe, publish, all
    #[arg(long, help_heading = ACCESS, value_name = "WHAT", default_value = "local")]
    pub allow_anonymous: AllowAnonymous,
    /// Web origin whose pages may connect, such as https://*.example.com, repeatable; without it, the server's own and local ones
    #[arg(long, help_heading = ACCESS, value_name = "ORIGIN", value_delimiter = ',')]
    pub allow_origin: Vec<OriginPattern>,
    /// Let whoever may publish also delete what is kept of a topic; without it nobody may, also on this machine
    #[arg(long, help_heading = ACCESS, value_parser = choice::switch)]
    pub allow_delete: bool,
    /// Serve the WebSocket echo /echo on every address, not on loopback alone
    #[arg(long, help_heading = ACCESS, value_parser = choice::switch)]
    pub echo: bool,
    /// Serve the demo page / on every address, not on loopback alone
    #[arg(long, help_heading = ACCESS, value_parser = choice::switch)]
    pub page: bool,

    /// Number of workers; auto is one for each CPU this process may use
    #[arg(long, help_heading = LOOP, value_name = "N", default_value = "auto")]
    pub workers: WorkerCount,
    /// CPUs the workers stay on: auto, on, off, or a list such as 0-3,5
    #[arg(long, help_heading = LOOP, value_name = "WHICH", default_value = "auto")]
    pub pin_cores: PinCores,
    /// Driver of the workers: auto, epoll or uring; auto is io_uring where it can be had
    #[arg(long, help_heading = LOOP, value_name = "DRIVER", default_value = "auto")]
    pub io: IoDriver,

    /// Most connections at a time; auto is the descriptor limit less 64
    #[arg(long, help_heading = LIMITS, value_name = "N", default_value = "auto")]
    pub max_connections: AutoCount,
    /// Most connections at a time from one IP address; 0 is no limit
    #[arg(long, help_heading = LIMITS, value_name = "N", default_value = "0", value_parser = choice::whole_number)]
    pub max_connections_per_ip: u32,
    /// Most new connections a second; 0 is no limit
    #[arg(long, help_heading = LIMITS, value_name = "N", default_value = "0", value_parser = choice::whole_number)]
    pub accept_rate: u32,
    /// Most bytes of a request's line and headers
    #[arg(long, help_heading = LIMITS, value_name = "SIZE", default_value = "16KiB")]
    pub max_head_size: ByteSize,
    /// Most bytes of a message or a request's body
    #[arg(long, help_heading = LIMITS, value_name = "SIZE", default_value = "64KiB")]
    pub max_message_size: ByteSize,
    /// Most publications in one POST on /topics, 1 to 10000
    #[arg(long, help_heading = LIMITS, value_name = "N", default_value = "100", value_parser = choice::whole_number)]
    pub max_batch: u32,
    /// Most bytes waiting for one connection, at least twice the message size
    #[arg(long, help_heading = LIMITS, value_name = "SIZE", default_value = "1MiB")]
    pub outbox_size: ByteSize,
    /// Most bytes waiting for all connections of a worker
    #[arg(long, help_heading = LIMITS, value_name = "SIZE", default_value = "256MiB")]
    pub worker_outbox_size: ByteSize,
    /// Most topics at a time; each worker takes its share
    #[arg(long, help_heading = LIMITS, value_name = "N", default_value = "1000000", value_parser = choice::whole_number)]
    pub max_topics: u32,
    /// Most patterns with subscribers at a time; each worker takes its share
    #[arg(long, help_heading = LIMITS, value_name = "N", default_value = "10000", value_parser = choice::whole_number)]
    pub max_patterns: u32,
    /// Most topics and patterns one connection may subscribe to
    #[arg(long, help_heading = LIMITS, value_name = "N", default_value = "128", value_parser = choice::whole_number)]
    pub max_subscriptions: u32,
    /// Most members of a topic that presence lists, 1 to 100000; the others are only counted
    #[arg(long, help_heading = LIMITS, value_name = "N", default_value = "1000", value_parser = choice::whole_number)]
    pub max_presence_members: u32,

    /// Time for a request's line and headers to arrive
    #[arg(long, help_heading = TIME, value_name = "TIME", default_value = "10s")]
    pub head_timeout: TimeSpan,
    /// Time an HTTP connection is kept without a request
    #[arg(long, help_heading = TIME, value_name = "TIME", default_value = "60s")]
    pub idle_timeout: TimeSpan,
    /// Time for a message or a request's body to arrive once it has begun
    #[arg(long, help_heading = TIME, value_name = "TIME", default_value = "30s")]
    pub message_timeout: TimeSpan,
    /// Time in which a client must take some of what waits for it
    #[arg(long, help_heading = TIME, value_name = "TIME", default_value = "10s")]
    pub write_timeout: TimeSpan,
    /// Time for a client to answer a close
    #[arg(long, help_heading = TIME, value_name = "TIME", default_value = "5s")]
    pub close_timeout: TimeSpan,
    /// Time without a byte from a client after which it is sent a ping
    #[arg(long, help_heading = TIME, value_name = "TIME", default_value = "25s")]
    pub ping_interval: TimeSpan,
    /// Time for any byte to arrive after a ping
    #[arg(long, help_heading = TIME, value_name = "TIME", default_value = "10s")]
    pub pong_timeout: TimeSpan,
    /// Time a POST waits for its turn before it gets 503
    #[arg(long, help_heading = TIME, value_name = "TIME", default_value = "5s")]
    pub publish_timeout: TimeSpan,
    /// Time between SIGTERM and closing the listeners, while /readyz says no
    #[arg(long, help_heading = TIME, value_name = "TIME", default_value = "0s")]
    pub drain_delay: TimeSpan,
    /// Time over which the closes of a stopping server are spread
    #[arg(long, help_heading = TIME, value_name = "TIME", default_value = "10s")]
    pub drain_window: TimeSpan,

    /// What happens when a subscriber's outbox is full: disconnect, drop-oldest or latest (keep each topic's newest)
    #[arg(long, help_heading = DELIVERY, value_name = "POLICY", default_value = "disconnect")]
    pub slow_consumer: SlowConsumer,
    /// Time a publication waits for others before it is handed out, so that several leave in one write
    #[arg(long, help_heading = DELIVERY, value_name = "TIME", default_value = "0s")]
    pub coalesce: TimeSpan,
    /// Publications kept of each topic for those who come back, up to 1000000; 0 keeps none
    #[arg(long, help_heading = DELIVERY, value_name = "N", default_value = "100", value_parser = choice::whole_number)]
    pub history_size: u32,
    /// Time a publication is kept, 1s to 720h
    #[arg(long, help_heading = DELIVERY, value_name = "TIME", default_value = "5m")]
    pub history_ttl: TimeSpan,
    /// Bytes of publications kept of each topic, at least the message size
    #[arg(long, help_heading = DELIVERY, value_name = "SIZE", default_value = "1MiB")]
    pub history_bytes: ByteSize,
    /// Bytes kept of all topics; each worker takes its share
    #[arg(long, help_heading = DELIVERY, value_name = "SIZE", default_value = "256MiB")]
    pub history_memory: ByteSize,
    /// Idempotency keys each worker remembers, 1 to 10000000; the oldest goes
    #[arg(long, help_heading = DELIVERY, value_name = "N", default_value = "100000", value_parser = choice::whole_number)]
    pub idempotency_keys: u32,
    /// Time an idempotency key is remembered, 1s to 24h
    #[arg(long, help_heading = DELIVERY, value_name = "TIME", default_value = "5m")]
    pub idempotency_ttl: TimeSpan,
    /// Time in which a member that was lost may come back without having left, 0s to 10m
    #[arg(long, help_heading = DELIVERY, value_name = "TIME", default_value = "15s")]
    pub presence_grace: TimeSpan,
    /// Least time between two tellings of who came and went in a topic, 0s to 1m
    #[arg(long, help_heading = DELIVERY, value_name = "TIME", default_value = "500ms")]
    pub presence_interval: TimeSpan,
    /// Directory in which durable topics are kept, made if need be; without it no topic class may say durable
    #[arg(long, help_heading = DELIVERY, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Most bytes of durable publications of a worker that wait for the disk, at least the message size
    #[arg(long, help_heading = DELIVERY, value_name = "SIZE", default_value = "64MiB")]
    pub store_queue: ByteSize,
    /// What differs for the topics of a pattern, repeatable, the first match holds: 'prices/*;history-size=1;slow-consumer=latest', with
    /// the keys history-size, history-ttl, history-bytes, slow-consumer, presence (off, count, list), presence-names (on, off)
    /// and durable (on, off)
    #[arg(long, help_heading = DELIVERY, value_name = "RULE", value_delimiter = ',')]
    pub topic_class: Vec<TopicClass>,

    /// Connections the kernel keeps waiting to be accepted, per worker and address
    #[arg(long, help_heading = TUNING, value_name = "N", default_value = "4096", value_parser = choice::whole_number)]
    pub backlog: u32,
    /// Connections accepted in one turn, per address
    #[arg(long, help_heading = TUNING, value_name = "N", default_value = "64", value_parser = choice::whole_number)]
    pub accept_batch: u32,
    /// Bytes read from one connection in one turn
    #[arg(long, help_heading = TUNING, value_name = "SIZE", default_value = "256KiB")]
    pub read_budget: ByteSize,
    /// Hand new connections to a worker with fewer, where the kernel spreads them unevenly
    #[arg(long, help_heading = TUNING, value_parser = choice::switch)]
    pub rebalance: bool,
    /// Bytes of a worker's receive buffer, 4KiB to 16MiB
    #[arg(long, help_heading = TUNING, value_name = "SIZE", default_value = "64KiB")]
    pub recv_buffer_size: ByteSize,
    /// Subscribers a publication is handed to before other work gets its turn
    #[arg(long, help_heading = TUNING, value_name = "N", default_value = "256", value_parser = choice::whole_number)]
    pub fanout_slice: u32,
    /// Entries in each ring between two workers, 16 to 65536
    #[arg(long, help_heading = TUNING, value_name = "N", default_value = "1024", value_parser = choice::whole_number)]
    pub mailbox_size: u32,
    /// io_uring: operations handed to the kernel in one call, a power of two from 64 to 16384
    #[arg(long, help_heading = TUNING, value_name = "N", default_value = "256", value_parser = choice::whole_number)]
    pub uring_entries: u32,
    /// io_uring: receive buffers of a worker, a power of two from 8 to 32768
    #[arg(long, help_heading = TUNING, value_name = "N", default_value = "256", value_parser = choice::whole_number)]
    pub uring_buffers: u32,
    /// io_uring: bytes of each receive buffer, 512 to 1MiB; 256MiB for all
    #[arg(long, help_heading = TUNING, value_name = "SIZE", default_value = "4KiB")]
    pub uring_buffer_size: ByteSize,
    /// Unsent bytes the kernel takes per socket (TCP_NOTSENT_LOWAT); 0 leaves it to the kernel
    #[arg(long, help_heading = TUNING, value_name = "SIZE", default_value = "128KiB")]
    pub notsent_lowat: ByteSize,
    /// Time sent bytes may stay unacknowledged (TCP_USER_TIMEOUT); 0s leaves it to the kernel
    #[arg(long, help_heading = TUNING, value_name = "TIME", default_value = "0s")]
    pub tcp_user_timeout: TimeSpan,
    /// Time a receive polls the network card before it sleeps (SO_BUSY_POLL); 0s is off
    #[arg(long, help_heading = TUNING, value_name = "TIME", default_value = "0s")]
    pub busy_poll: TimeSpan,

    /// Least severe lines that are written: off, error, warn, info, debug, trace
    #[arg(long, help_heading = LOG, value_name = "LEVEL", default_value = "info")]
    pub log_level: log::Level,
    /// Form of the lines on stderr: text or json
    #[arg(long, help_heading = LOG, value_name = "FORM", default_value = "text")]
    pub log_format: log::Format,
}

const LISTEN: &str = "Listen";
const ACCESS: &str = "Access";
const LOOP: &str = "Loop";
const LIMITS: &str = "Limits (SIZE: 65536, 64KiB, 1MiB; 64KB is 64000)";
const TIME: &str = "Time (TIME: 500ms, 10s, 5m, 1h)";
const DELIVERY: &str = "Delivery";
const TUNING: &str = "Tuning";
const LOG: &str = "Log";

/// Groups of flags that few need: the short help leaves them out.
pub(crate) const RARELY_NEEDED: [&str; 3] = [LOOP, TIME, TUNING];

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: vec![address::ipv4_loopback(8080).into(), address::ipv6_loopback(8080).into()],
            admin: AdminAddress::Socket(address::ipv4_loopback(9080)),
            base_path: "/".to_owned(),
            allow_anonymous: AllowAnonymous::Local,
            allow_origin: Vec::new(),
            allow_delete: false,
            echo: false,
            page: false,
            workers: WorkerCount::Auto,
            pin_cores: PinCores::Auto,
            io: IoDriver::Auto,
            max_connections: AutoCount::Auto,
            max_connections_per_ip: 0,
            accept_rate: 0,
            max_head_size: ByteSize::kib(16),
            max_message_size: ByteSize::kib(64),
            max_batch: 100,
            outbox_size: ByteSize::mib(1),
            worker_outbox_size: ByteSize::mib(256),
            max_topics: 1_000_000,
            max_patterns: 10_000,
            max_subscriptions: 128,
            max_presence_members: 1000,
            head_timeout: TimeSpan::seconds(10),
            idle_timeout: TimeSpan::seconds(60),
            message_timeout: TimeSpan::seconds(30),
            write_timeout: TimeSpan::seconds(10),
            close_timeout: TimeSpan::seconds(5),
            ping_interval: TimeSpan::seconds(25),
            pong_timeout: TimeSpan::seconds(10),
            publish_timeout: TimeSpan::seconds(5),
            drain_delay: TimeSpan::seconds(0),
            drain_window: TimeSpan::seconds(10),
            slow_consumer: SlowConsumer::Disconnect,
            coalesce: TimeSpan::seconds(0),
            history_size: 100,
            history_ttl: TimeSpan::seconds(300),
            history_bytes: ByteSize::mib(1),
            history_memory: ByteSize::mib(256),
            idempotency_keys: 100_000,
            idempotency_ttl: TimeSpan::seconds(300),
            presence_grace: TimeSpan::seconds(15),
            presence_interval: TimeSpan(std::time::Duration::from_millis(500)),
            data_dir: None,
            store_queue: ByteSize::mib(64),
            topic_class: Vec::new(),
            backlog: 4096,
            accept_batch: 64,
            read_budget: ByteSize::kib(256),
            rebalance: false,
            recv_buffer_size: ByteSize::kib(64),
            fanout_slice: 256,
            mailbox_size: 1024,
            uring_entries: 256,
            uring_buffers: 256,
            uring_buffer_size: ByteSize::kib(4),
            notsent_lowat: ByteSize::kib(128),
            tcp_user_timeout: TimeSpan::seconds(0),
            busy_poll: TimeSpan::seconds(0),
            log_level: log::Level::Info,
            log_format: log::Format::Text,
        }
    }
}

impl Config {
    /// Every socket address that `listen` stands for, in its order.
    #[must_use]
    pub fn listen_sockets(&self) -> Vec<SocketAddr> {
        self.listen.iter().flat_map(|address| address.sockets()).collect()
    }
}
