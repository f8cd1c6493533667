//! `fantail serve`.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::{env, panic, thread};

use super::{Failure, Status};
use crate::config::{AllowAnonymous, Config};
use crate::log;
use crate::server::{ServeError, Server};

/// Serves until a signal stops it; the log is written out before the process ends.
pub(super) fn run(config: Config) -> Result<(), Failure> {
    config.validate()?;
    let _log = log::start(config.log_level, config.log_format)
        .map_err(|error| Failure::runtime(format!("the log can't be started: {error}")))?;
    set_panic_hook();
    let server = Server::start(&config)?;
    server.stop_on_signals().map_err(ServeError::Signals)?;
    // Whoever started the server may read no more than its first lines, or nothing at all.
    let _ = io::stdout().write_all(banner(&config, &server).as_bytes());
    server.wait().map_err(Failure::from)
}

impl From<ServeError> for Failure {
    fn from(error: ServeError) -> Self {
        let status = if error.is_setting() { Status::Usage } else { Status::Runtime };
        Self { status, message: Some(error.to_string()), fix: error.fix() }
    }
}

/// Where it listens, what it is made of, and two ways to try it.
fn banner(config: &Config, server: &Server) -> String {
    let base = config.base_path.trim_end_matches('/');
    let mut text = String::new();
    let _ = writeln!(text, "fantail {}: {} on {}", env!("CARGO_PKG_VERSION"), counted(server.workers(), "worker"), server.io());
    for address in server.addresses() {
        let _ = writeln!(text, "  listening  http://{address}{base}/");
    }
    if let Some(admin) = server.admin_address() {
        let _ = writeln!(text, "  admin      http://{admin}/metrics");
    }
    let _ = writeln!(
        text,
        "  limits     {}, messages of {}, outboxes of {}",
        counted(server.connections_max(), "connection"),
        config.max_message_size,
        config.outbox_size
    );
    let loopback = server.addresses().iter().find(|address| address.ip().is_loopback());
    if let Some(reachable) = loopback.or(server.addresses().first()).map(|address| reachable(*address)) {
        let may_publish = matches!(config.allow_anonymous, AllowAnonymous::Publish | AllowAnonymous::All);
        if may_publish || (loopback.is_some() && config.allow_anonymous == AllowAnonymous::Local) {
            let _ = writeln!(text, "  publish    curl -d hello http://{reachable}{base}/topics/chat");
        } else {
            let _ = writeln!(text, "  publish    nobody may here: listen on loopback as well, or see --allow-anonymous");
        }
        let _ = writeln!(text, "  subscribe  {} sub chat --url http://{reachable}{base}", program());
        if config.page || loopback.is_some() {
            let _ = writeln!(text, "  page       http://{reachable}{base}/");
        }
    }
    text
}

/// The address a client on this machine connects to: a wildcard is no destination.
fn reachable(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), address.port()),
        IpAddr::V6(ip) if ip.is_unspecified() => SocketAddr::new(Ipv6Addr::LOCALHOST.into(), address.port()),
        _ => address,
    }
}

/// This program as a person types it here.
fn program() -> String {
    let started = env::args_os().next().map(PathBuf::from).unwrap_or_default();
    let here = env::current_dir().unwrap_or_default();
    typed(&started, &here, &env::var_os("PATH").unwrap_or_default())
}

/// `started` as short as a shell in the directory `here` with this search path understands it.
fn typed(started: &Path, here: &Path, search_path: &OsStr) -> String {
    const NAME: &str = "fantail";
    let searched = env::split_paths(search_path).any(|directory| started.parent() == Some(&directory));
    let short = if searched { started.file_name().map(Path::new) } else { started.strip_prefix(here).ok() };
    let text = short.unwrap_or(started).to_str().unwrap_or_default();
    // What a shell would take apart is no line to paste.
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._+-".contains(&byte);
    if text.is_empty() || !text.bytes().all(plain) { NAME.to_owned() } else { text.to_owned() }
}

fn counted(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

/// A panic is one line of the log, like everything else an operator has to know.
fn set_panic_hook() {
    panic::set_hook(Box::new(|info| {
        let location = info.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(
            thread = thread::current().name(),
            location,
            "panicked: {}",
            info.payload_as_str().unwrap_or("no message")
        );
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_named_as_it_can_be_typed() {
        for (started, name) in [
            ("fantail", "fantail"),
            ("target/release/fantail", "target/release/fantail"),
            ("/home/ann/push/target/release/fantail", "target/release/fantail"),
            ("/usr/local/bin/fantail", "fantail"),
            ("/opt/fantail-0.1/fantail", "/opt/fantail-0.1/fantail"),
            ("/home/ann/my tools/fantail", "fantail"),
            ("", "fantail"),
        ] {
            let typed = typed(Path::new(started), Path::new("/home/ann/push"), OsStr::new("/usr/local/bin:/usr/bin"));
            assert_eq!(typed, name, "{started}");
        }
    }
}
