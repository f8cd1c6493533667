//! What settings must fulfil, alone and together. Every refusal names the flag and the fix.

use std::net::SocketAddr;

use super::{AutoCount, ByteSize, Config, PinCores, TimeSpan};
use crate::class::{CLASSES_MAX, Class, Presence};
use crate::io;

/// A setting the server can't run with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{flag} {problem}")]
pub struct ConfigError {
    /// The flag, such as `--outbox-size`.
    pub flag: &'static str,
    /// What is wrong with it, a sentence that goes on after the flag.
    pub problem: String,
    /// What to do about it.
    pub fix: String,
}

impl Config {
    /// Checks that a server can run with these settings.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.check_addresses()?;
        check_base_path(&self.base_path)?;
        self.check_loop()?;
        self.check_limits()?;
        self.check_times()?;
        self.check_classes()?;
        self.check_tuning()
    }

    fn check_addresses(&self) -> Result<(), ConfigError> {
        if self.listen.is_empty() {
            return refuse("--listen", "names no address", "Give at least one, such as 127.0.0.1:8080.");
        }
        let mut seen: Vec<SocketAddr> = Vec::new();
        for address in self.listen_sockets() {
            if is_taken(&seen, address) {
                return refuse("--listen", format!("names {address} twice"), "Name each address once.");
            }
            seen.push(address);
        }
        match self.admin.socket() {
            Some(address) if is_taken(&seen, address) => {
                let fix = "Give the admin listener a port of its own, or --admin off.";
                refuse("--admin", format!("is {address}, which --listen names too"), fix)
            }
            _ => Ok(()),
        }
    }

    fn check_loop(&self) -> Result<(), ConfigError> {
        if let AutoCount::Exactly(workers) = self.workers {
            within("--workers", workers, 1, WORKERS_MAX)?;
        }
        match (&self.pin_cores, self.workers) {
            (PinCores::List(cores), _) if cores.is_empty() => {
                refuse("--pin-cores", "names no CPU", "Give CPU numbers such as 0-3, or off.")
            }
            (PinCores::List(cores), AutoCount::Exactly(workers)) if cores.len() < workers => refuse(
                "--pin-cores",
                format!("names {} CPUs for {workers} workers", cores.len()),
                format!("Name {workers} CPUs, or set --workers {}.", cores.len()),
            ),
            _ => Ok(()),
        }
    }

    fn check_limits(&self) -> Result<(), ConfigError> {
        if let AutoCount::Exactly(connections) = self.max_connections {
            within("--max-connections", connections, 1, usize::MAX)?;
        }
        within("--max-topics", self.max_topics as usize, 1, usize::MAX)?;
        within("--max-patterns", self.max_patterns as usize, 1, usize::MAX)?;
        within("--max-batch", self.max_batch as usize, 1, BATCH_MAX)?;
        within("--idempotency-keys", self.idempotency_keys as usize, 1, IDEMPOTENCY_KEYS_MAX)?;
        within("--max-presence-members", self.max_presence_members as usize, 1, PRESENCE_MEMBERS_MAX)?;
        within("--max-subscriptions", self.max_subscriptions as usize, 1, usize::MAX)?;
        within_bytes("--max-head-size", self.max_head_size, ByteSize::kib(1), ByteSize::mib(1))?;
        within_bytes("--max-message-size", self.max_message_size, ByteSize(1), MESSAGE_BYTES_MAX)?;
        within_bytes("--outbox-size", self.outbox_size, ByteSize(1), OUTBOX_BYTES_MAX)?;
        at_least("--outbox-size", self.outbox_size, ByteSize(2 * self.max_message_size.bytes()), "twice --max-message-size")?;
        at_least("--store-queue", self.store_queue, self.max_message_size, "--max-message-size")?;
        at_least("--worker-outbox-size", self.worker_outbox_size, self.outbox_size, "--outbox-size")
    }

    /// A deadline of zero would end every connection, so only those times may be zero whose absence means something.
    fn check_times(&self) -> Result<(), ConfigError> {
        for (flag, span) in [
            ("--head-timeout", self.head_timeout),
            ("--idle-timeout", self.idle_timeout),
            ("--message-timeout", self.message_timeout),
            ("--write-timeout", self.write_timeout),
            ("--close-timeout", self.close_timeout),
            ("--ping-interval", self.ping_interval),
            ("--pong-timeout", self.pong_timeout),
            ("--publish-timeout", self.publish_timeout),
        ] {
            within_time(flag, span, TimeSpan(std::time::Duration::from_millis(1)), TimeSpan::MAX)?;
        }
        within_time("--drain-delay", self.drain_delay, TimeSpan::seconds(0), TimeSpan::MAX)?;
        within_time("--drain-window", self.drain_window, TimeSpan::seconds(0), TimeSpan::MAX)?;
        within_time("--tcp-user-timeout", self.tcp_user_timeout, TimeSpan::seconds(0), TCP_USER_TIMEOUT_MAX)?;
        within_time("--idempotency-ttl", self.idempotency_ttl, TimeSpan::seconds(1), IDEMPOTENCY_TTL_MAX)?;
        within_time("--presence-grace", self.presence_grace, TimeSpan::seconds(0), PRESENCE_GRACE_MAX)?;
        within_time("--presence-interval", self.presence_interval, TimeSpan::seconds(0), PRESENCE_INTERVAL_MAX)?;
        within_time("--coalesce", self.coalesce, TimeSpan::seconds(0), COALESCE_MAX)?;
        within_time("--busy-poll", self.busy_poll, TimeSpan::seconds(0), BUSY_POLL_MAX)
    }

    fn check_classes(&self) -> Result<(), ConfigError> {
        let classes = self.classes();
        self.check_class(classes.default())?;
        if classes.rules().len() > CLASSES_MAX {
            let problem = format!("is given {} times", classes.rules().len());
            return refuse("--topic-class", problem, format!("Give at most {CLASSES_MAX} rules."));
        }
        for (place, (pattern, class)) in classes.rules().iter().enumerate() {
            if let Some((earlier, _)) = classes.rules()[..place].iter().find(|(earlier, _)| earlier.covers(pattern)) {
                let problem = format!("{pattern} never holds, because {earlier} before it takes all of its topics");
                return refuse("--topic-class", problem, "Put it before that one, or leave it out.");
            }
            self.check_class(class).map_err(|error| ConfigError {
                flag: "--topic-class",
                problem: format!("{pattern}: {} {}", error.flag.trim_start_matches('-'), error.problem),
                fix: error.fix,
            })?;
        }
        Ok(())
    }

    /// What is accepted must be kept, so a history has room for the largest message; and what is promised to one topic must be there,
    /// so it fits into what its worker has for all.
    fn check_class(&self, class: &Class) -> Result<(), ConfigError> {
        if class.presence_names && class.presence != Presence::List {
            let problem = format!("is on, and presence is {}", class.presence);
            return refuse("presence-names", problem, "Give presence=list, too: names are told in lists alone.");
        }
        let history = class.history;
        if class.durable && self.data_dir.is_none() {
            let fix = "Give --data-dir and a directory, in which durable topics are kept.";
            return refuse("durable", "is on, and there is no --data-dir", fix);
        }
        if class.durable && history.size == 0 {
            return refuse(
                "durable",
                "is on, and history-size is 0",
                "Give a history-size of at least 1: what is durable is kept.",
            );
        }
        within("--history-size", history.size as usize, 0, HISTORY_SIZE_MAX)?;
        within_time("--history-ttl", TimeSpan(history.ttl), HISTORY_TTL_MIN, HISTORY_TTL_MAX)?;
        if history.size == 0 {
            return Ok(());
        }
        let bytes = ByteSize(usize::try_from(history.bytes).unwrap_or(usize::MAX));
        at_least("--history-bytes", bytes, self.max_message_size, "--max-message-size")?;
        let workers = match self.workers {
            AutoCount::Auto => 1,
            AutoCount::Exactly(workers) => workers,
        };
        let share = ByteSize(self.history_memory.bytes() / workers);
        if bytes <= share {
            return Ok(());
        }
        let needed = ByteSize(bytes.bytes().saturating_mul(workers));
        refuse(
            "--history-bytes",
            format!("is {bytes}, more than a worker's share of --history-memory {}", self.history_memory),
            format!("Give at most {share}, or --history-memory {needed}."),
        )
    }

    fn check_tuning(&self) -> Result<(), ConfigError> {
        within("--backlog", self.backlog as usize, 1, i32::MAX as usize)?;
        within("--accept-batch", self.accept_batch as usize, 1, usize::MAX)?;
        within("--fanout-slice", self.fanout_slice as usize, 1, usize::MAX)?;
        within("--mailbox-size", self.mailbox_size as usize, 16, 65_536)?;
        within_bytes("--read-budget", self.read_budget, ByteSize(1), ByteSize::mib(1024))?;
        within_bytes("--recv-buffer-size", self.recv_buffer_size, ByteSize::kib(4), ByteSize::mib(16))?;
        within_power("--uring-entries", self.uring_entries, 64, io::URING_ENTRIES_MAX)?;
        within_power("--uring-buffers", self.uring_buffers, 8, 32_768)?;
        within_bytes("--uring-buffer-size", self.uring_buffer_size, ByteSize(512), ByteSize::mib(1))?;
        self.check_uring_memory()?;
        within_bytes("--notsent-lowat", self.notsent_lowat, ByteSize(0), ByteSize::mib(1024))
    }

    /// Both sizes may be within their bounds and their product still more than anybody means to give.
    fn check_uring_memory(&self) -> Result<(), ConfigError> {
        let (count, size) = (self.uring_buffers as usize, self.uring_buffer_size);
        let all = ByteSize(count * size.bytes());
        if all <= URING_BUFFERS_BYTES_MAX {
            return Ok(());
        }
        // A power of two at most: it is rounded down.
        let most = 1_usize << (URING_BUFFERS_BYTES_MAX.bytes() / size.bytes()).ilog2();
        refuse(
            "--uring-buffers",
            format!("is {count}, which with --uring-buffer-size {size} takes {all} for each worker"),
            format!("Give at most {most}, or smaller buffers; all of them may take {URING_BUFFERS_BYTES_MAX}."),
        )
    }
}

/// io_uring's receive buffers of one worker, which are there from the start: more is no use to any network.
const URING_BUFFERS_BYTES_MAX: ByteSize = ByteSize::mib(256);

/// An outbox counts its bytes in 32 bits, and takes one frame beyond its limit: a message whose every byte is escaped in a `message`
/// object is six times as long.
const MESSAGE_BYTES_MAX: ByteSize = ByteSize::mib(256);
const OUTBOX_BYTES_MAX: ByteSize = ByteSize::mib(2048);
const _: () = assert!(OUTBOX_BYTES_MAX.bytes() + 6 * MESSAGE_BYTES_MAX.bytes() + 1024 < u32::MAX as usize);

/// Who was away reads a state anew, rather than so many messages one by one.
const HISTORY_SIZE_MAX: usize = 1_000_000;

/// What is kept for less helps nobody: to notice a loss and to come back takes longer.
const HISTORY_TTL_MIN: TimeSpan = TimeSpan::seconds(1);

/// Memory is no archive, and a restart empties it. Deadlines, in ticks of 32 bits, reach much farther.
const HISTORY_TTL_MAX: TimeSpan = TimeSpan::seconds(30 * 24 * 3600);

/// Every pair of workers has two rings of its own, so their memory grows with the square of this number.
const WORKERS_MAX: usize = 256;

/// The kernel counts this option in milliseconds of 32 bits; a day is far below and beyond any use.
const TCP_USER_TIMEOUT_MAX: TimeSpan = TimeSpan::seconds(24 * 3600);

/// Places in a batch are counted in 16 bits, and the answer to one this long takes a few megabytes.
const BATCH_MAX: usize = 10_000;
const _: () = assert!(BATCH_MAX <= u16::MAX as usize);

/// Each takes some 150 bytes and its own length, so all of them a few gigabytes.
const IDEMPOTENCY_KEYS_MAX: usize = 10_000_000;

/// Who tries for longer has a store of its own.
const IDEMPOTENCY_TTL_MAX: TimeSpan = TimeSpan::seconds(24 * 3600);

/// A list this long takes some megabytes, for each who watches.
const PRESENCE_MEMBERS_MAX: usize = 100_000;

/// Who stays away for longer has left.
const PRESENCE_GRACE_MAX: TimeSpan = TimeSpan::seconds(600);

/// Who is told later is told of what is long over.
const PRESENCE_INTERVAL_MAX: TimeSpan = TimeSpan::seconds(60);

/// What waits longer is no push any more.
const COALESCE_MAX: TimeSpan = TimeSpan::seconds(1);

/// Polling for longer would cost a core for nothing.
const BUSY_POLL_MAX: TimeSpan = TimeSpan::seconds(1);

/// Port 0 is another port each time.
fn is_taken(seen: &[SocketAddr], address: SocketAddr) -> bool {
    address.port() != 0 && seen.contains(&address)
}

fn check_base_path(path: &str) -> Result<(), ConfigError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let well_formed = path.strip_prefix('/').is_some_and(|rest| {
        rest.is_empty() || rest.split('/').all(|part| !matches!(part, "" | "." | "..") && part.bytes().all(plain))
    });
    if well_formed {
        return Ok(());
    }
    let fix = "Give / or a path such as /push, of letters, digits and -._~, without a slash at its end.";
    refuse("--base-path", format!("is {path:?}, which is no path that URLs can begin with"), fix)
}

fn within(flag: &'static str, value: usize, least: usize, most: usize) -> Result<(), ConfigError> {
    if value < least {
        refuse(flag, format!("is {value}"), format!("Give at least {least}."))
    } else if value > most {
        refuse(flag, format!("is {value}"), format!("Give at most {most}."))
    } else {
        Ok(())
    }
}

/// The kernel's rings have sizes of powers of two.
fn within_power(flag: &'static str, value: u32, least: u32, most: u32) -> Result<(), ConfigError> {
    within(flag, value as usize, least as usize, most as usize)?;
    if value.is_power_of_two() {
        return Ok(());
    }
    let above = value.next_power_of_two();
    refuse(flag, format!("is {value}, which is no power of two"), format!("Give {} or {above}.", above / 2))
}

fn within_bytes(flag: &'static str, size: ByteSize, least: ByteSize, most: ByteSize) -> Result<(), ConfigError> {
    if (least..=most).contains(&size) {
        return Ok(());
    }
    refuse(flag, format!("is {size}"), format!("Give {least} to {most}."))
}

fn within_time(flag: &'static str, span: TimeSpan, least: TimeSpan, most: TimeSpan) -> Result<(), ConfigError> {
    if (least..=most).contains(&span) {
        return Ok(());
    }
    refuse(flag, format!("is {span}"), format!("Give {least} to {most}."))
}

fn at_least(flag: &'static str, size: ByteSize, least: ByteSize, meaning: &str) -> Result<(), ConfigError> {
    if size >= least {
        return Ok(());
    }
    refuse(flag, format!("is {size}, less than {meaning}"), format!("Give at least {least}."))
}

fn refuse(flag: &'static str, problem: impl Into<String>, fix: impl Into<String>) -> Result<(), ConfigError> {
    Err(ConfigError { flag, problem: problem.into(), fix: fix.into() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TopicClass;

    #[test]
    fn the_defaults_are_valid() {
        assert_eq!(Config::default().validate(), Ok(()));
    }

    /// A change that one flag's rule refuses.
    type Break = (&'static str, fn(&mut Config));

    fn rules(texts: &[&str]) -> Vec<TopicClass> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn many_rules(count: usize) -> Vec<TopicClass> {
        (0..count).map(|number| format!("{number};presence=off").parse().unwrap()).collect()
    }

    #[test]
    fn each_refusal_names_its_flag() {
        let breaks: &[Break] = &[
            ("--listen", |config| config.listen.clear()),
            ("--listen", |config| config.listen.push("localhost:8080".parse().unwrap())),
            ("--admin", |config| config.admin = "127.0.0.1:8080".parse().unwrap()),
            ("--base-path", |config| config.base_path = "push".into()),
            ("--base-path", |config| config.base_path = "/push/".into()),
            ("--base-path", |config| config.base_path = "/a/../b".into()),
            ("--base-path", |config| config.base_path = "/a b".into()),
            ("--workers", |config| config.workers = AutoCount::Exactly(0)),
            ("--workers", |config| config.workers = AutoCount::Exactly(WORKERS_MAX + 1)),
            ("--pin-cores", |config| config.pin_cores = PinCores::List(vec![])),
            ("--max-connections", |config| config.max_connections = AutoCount::Exactly(0)),
            ("--max-topics", |config| config.max_topics = 0),
            ("--max-patterns", |config| config.max_patterns = 0),
            ("--max-subscriptions", |config| config.max_subscriptions = 0),
            ("--max-head-size", |config| config.max_head_size = ByteSize(1023)),
            ("--max-message-size", |config| config.max_message_size = ByteSize(0)),
            ("--max-message-size", |config| config.max_message_size = ByteSize(usize::MAX)),
            ("--outbox-size", |config| config.outbox_size = ByteSize(2 * 65536 - 1)),
            ("--worker-outbox-size", |config| config.worker_outbox_size = ByteSize::kib(1023)),
            ("--head-timeout", |config| config.head_timeout = TimeSpan::seconds(0)),
            ("--idle-timeout", |config| config.idle_timeout = TimeSpan::seconds(0)),
            ("--message-timeout", |config| config.message_timeout = TimeSpan::seconds(0)),
            ("--write-timeout", |config| config.write_timeout = TimeSpan::seconds(0)),
            ("--close-timeout", |config| config.close_timeout = TimeSpan::seconds(0)),
            ("--ping-interval", |config| config.ping_interval = TimeSpan::seconds(0)),
            ("--pong-timeout", |config| config.pong_timeout = TimeSpan::seconds(0)),
            ("--publish-timeout", |config| config.publish_timeout = TimeSpan::seconds(0)),
            ("--drain-delay", |config| config.drain_delay = TimeSpan(std::time::Duration::MAX)),
            ("--drain-window", |config| config.drain_window = TimeSpan(std::time::Duration::MAX)),
            ("--tcp-user-timeout", |config| config.tcp_user_timeout = TimeSpan::seconds(86_401)),
            ("--coalesce", |config| config.coalesce = TimeSpan::seconds(2)),
            ("--busy-poll", |config| config.busy_poll = TimeSpan::seconds(2)),
            ("--history-size", |config| config.history_size = 1_000_001),
            ("--history-ttl", |config| config.history_ttl = TimeSpan::seconds(0)),
            ("--history-ttl", |config| config.history_ttl = TimeSpan::seconds(721 * 3600)),
            ("--history-bytes", |config| config.history_bytes = ByteSize(65_535)),
            ("--history-bytes", |config| config.history_memory = ByteSize(0)),
            ("--max-batch", |config| config.max_batch = 0),
            ("--max-batch", |config| config.max_batch = 10_001),
            ("--idempotency-keys", |config| config.idempotency_keys = 0),
            ("--idempotency-keys", |config| config.idempotency_keys = 10_000_001),
            ("--idempotency-ttl", |config| config.idempotency_ttl = TimeSpan::seconds(0)),
            ("--idempotency-ttl", |config| config.idempotency_ttl = TimeSpan::seconds(86_401)),
            ("--topic-class", |config| config.topic_class = rules(&["a;history-size=1000001"])),
            ("--topic-class", |config| config.topic_class = rules(&["a;history-ttl=721h"])),
            ("--topic-class", |config| config.topic_class = rules(&["a;history-bytes=1KiB"])),
            ("--topic-class", |config| config.topic_class = rules(&["a;history-bytes=1GiB"])),
            ("--topic-class", |config| config.topic_class = rules(&["a;presence=off", "a;history-size=1"])),
            ("--topic-class", |config| config.topic_class = rules(&["a/**;presence=off", "a/*;history-size=1"])),
            ("--topic-class", |config| config.topic_class = rules(&["a;presence-names=on"])),
            ("--max-presence-members", |config| config.max_presence_members = 0),
            ("--presence-grace", |config| config.presence_grace = TimeSpan::seconds(601)),
            ("--presence-interval", |config| config.presence_interval = TimeSpan::seconds(61)),
            ("--topic-class", |config| config.topic_class = many_rules(65)),
            ("--backlog", |config| config.backlog = 0),
            ("--accept-batch", |config| config.accept_batch = 0),
            ("--fanout-slice", |config| config.fanout_slice = 0),
            ("--mailbox-size", |config| config.mailbox_size = 15),
            ("--mailbox-size", |config| config.mailbox_size = 65_537),
            ("--read-budget", |config| config.read_budget = ByteSize(0)),
            ("--recv-buffer-size", |config| config.recv_buffer_size = ByteSize(4095)),
            ("--recv-buffer-size", |config| config.recv_buffer_size = ByteSize::mib(17)),
            ("--uring-entries", |config| config.uring_entries = 32),
            ("--uring-entries", |config| config.uring_entries = 1000),
            ("--uring-entries", |config| config.uring_entries = 32_768),
            ("--uring-buffers", |config| config.uring_buffers = 65_536),
            ("--uring-buffers", |config| config.uring_buffers = 0),
            ("--uring-buffer-size", |config| config.uring_buffer_size = ByteSize(511)),
            ("--uring-buffers", |config| (config.uring_buffers, config.uring_buffer_size) = (512, ByteSize::mib(1))),
            ("--notsent-lowat", |config| config.notsent_lowat = ByteSize::mib(1025)),
        ];
        for (flag, change) in breaks {
            let mut config = Config::default();
            change(&mut config);
            let error = config.validate().unwrap_err();
            assert_eq!(error.flag, *flag, "{error}");
            assert!(error.to_string().starts_with(flag) && error.fix.ends_with('.'), "{error} {}", error.fix);
        }
    }

    #[test]
    fn refusals_read_well() {
        let error = Config { outbox_size: ByteSize::kib(64), ..Config::default() }.validate().unwrap_err();
        assert_eq!(error.to_string(), "--outbox-size is 64KiB, less than twice --max-message-size");
        assert_eq!(error.fix, "Give at least 128KiB.");
        let many = Config { uring_buffers: 32_768, uring_buffer_size: ByteSize(24_000), ..Config::default() };
        let error = many.validate().unwrap_err();
        assert!(
            error.to_string().starts_with("--uring-buffers is 32768, which with --uring-buffer-size 24KB takes 750MiB"),
            "{error}"
        );
        assert_eq!(error.fix, "Give at most 8192, or smaller buffers; all of them may take 256MiB.");
        let pinned = Config { workers: AutoCount::Exactly(3), pin_cores: "0-1".parse().unwrap(), ..Config::default() };
        assert_eq!(pinned.validate().unwrap_err().fix, "Name 3 CPUs, or set --workers 2.");
    }

    #[test]
    fn refusals_of_classes_name_the_rule() {
        let refusal = |config: Config| {
            let error = config.validate().unwrap_err();
            (error.to_string(), error.fix)
        };
        let of = |texts: &[&str]| refusal(Config { topic_class: rules(texts), ..Config::default() });
        let (problem, fix) = of(&["a/*;history-bytes=1KiB"]);
        assert_eq!(problem, "--topic-class a/*: history-bytes is 1KiB, less than --max-message-size");
        assert_eq!(fix, "Give at least 64KiB.");
        let (problem, fix) = of(&["orders/**;durable"]);
        assert_eq!(problem, "--topic-class orders/**: durable is on, and there is no --data-dir");
        assert_eq!(fix, "Give --data-dir and a directory, in which durable topics are kept.");
        let nothing = rules(&["orders/**;durable;history-size=0"]);
        let (problem, _) = refusal(Config { topic_class: nothing, data_dir: Some("/data".into()), ..Config::default() });
        assert_eq!(problem, "--topic-class orders/**: durable is on, and history-size is 0");
        let (problem, fix) = of(&["b;history-size=2", "**;presence=off", "a/*;history-size=1"]);
        assert_eq!(problem, "--topic-class a/* never holds, because ** before it takes all of its topics");
        assert_eq!(fix, "Put it before that one, or leave it out.");
        let small = Config { workers: AutoCount::Exactly(4), history_memory: ByteSize::mib(2), ..Config::default() };
        let (problem, fix) = refusal(small);
        assert_eq!(problem, "--history-bytes is 1MiB, more than a worker's share of --history-memory 2MiB");
        assert_eq!(fix, "Give at most 512KiB, or --history-memory 4MiB.");
    }

    #[test]
    fn who_keeps_nothing_needs_no_room() {
        let none = Config { history_size: 0, history_bytes: ByteSize(0), history_memory: ByteSize(0), ..Config::default() };
        assert_eq!(none.validate(), Ok(()));
        let rule = Config { topic_class: rules(&["a;history-size=0;history-bytes=0"]), ..Config::default() };
        assert_eq!(rule.validate(), Ok(()));
        let most = Config { topic_class: many_rules(CLASSES_MAX), workers: AutoCount::Exactly(WORKERS_MAX), ..Config::default() };
        assert_eq!(most.validate(), Ok(()));
    }

    #[test]
    fn what_is_allowed_passes() {
        let any_port: Vec<_> = ["127.0.0.1:0", "127.0.0.1:0", "[::1]:0"].map(|text| text.parse().unwrap()).to_vec();
        let origins = ["https://example.com", "https://*.example.com:8443", "http://[::1]:3000", "capacitor://localhost"];
        let config = Config {
            listen: any_port,
            admin: "127.0.0.1:0".parse().unwrap(),
            base_path: "/push/v1".into(),
            allow_origin: origins.map(|origin| origin.parse().unwrap()).to_vec(),
            drain_window: TimeSpan::seconds(0),
            ..Config::default()
        };
        assert_eq!(config.validate(), Ok(()));
    }
}
