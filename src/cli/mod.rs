//! The command line: words in, an exit status out.
//!
//! [`main`] is the one place that prints an error and sets the status; everything below returns a [`Failure`]. `serve` and
//! `check` read their flags straight into a [`Config`], and each of them has a variable: `--max-topics` is `FANTAIL_MAX_TOPICS`. The flag wins.

mod backoff;
mod check;
mod ending;
mod failure;
mod interrupt;
mod printer;
mod problem;
mod publish;
mod serve;
mod session;
mod store;
mod subscribe;
mod target;

pub use failure::{Failure, Status};

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::config::{Config, RARELY_NEEDED};
use check::Check;
use publish::Publish;
use store::Store;
use subscribe::Subscribe;

/// Runs the command this process was started as.
#[must_use]
pub fn main() -> ExitCode {
    match run(std::env::args_os()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprint!("{failure}");
            failure.status.into()
        }
    }
}

/// Runs the command that `words` name, the first of which is the program's own name.
///
/// # Errors
/// Why it could not be done, with the exit status.
pub fn run<I>(words: I) -> Result<(), Failure>
where
    I: IntoIterator,
    I::Item: Into<OsString> + Clone,
{
    let words: Vec<OsString> = words.into_iter().map(Into::into).collect();
    let parsed = command(is_brief(&words)).try_get_matches_from(&words).and_then(|matches| Arguments::from_arg_matches(&matches));
    match parsed {
        Ok(Arguments { command: Command::Serve(config) }) => serve::run(*config),
        Ok(Arguments { command: Command::Check(check) }) => check.run(),
        Ok(Arguments { command: Command::Publish(publish) }) => publish.run(),
        Ok(Arguments { command: Command::Subscribe(subscribe) }) => subscribe.run(),
        Ok(Arguments { command: Command::Store(store) }) => store.run(),
        Err(error) => failure::from_clap(&error, &words),
    }
}

/// Push server: one URL per topic; whoever holds a connection to it gets what is published there
#[derive(Debug, Parser)]
#[command(name = "fantail", version, arg_required_else_help = true, after_help = AFTER_HELP)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start the server
    #[command(after_help = SERVE_AFTER_HELP, next_line_help = true)]
    Serve(Box<Config>),
    /// Check settings without starting, and show the topic classes
    #[command(after_help = check::AFTER_HELP, next_line_help = true)]
    Check(Box<Check>),
    /// Publish to a topic
    #[command(name = "pub", alias = "publish", after_help = publish::AFTER_HELP)]
    Publish(Publish),
    /// Print what is published to topics
    #[command(name = "sub", alias = "subscribe", after_help = subscribe::AFTER_HELP)]
    Subscribe(Subscribe),
    /// Look into the directory of durable topics while no server uses it
    #[command(after_help = store::AFTER_HELP)]
    Store(Store),
}

const AFTER_HELP: &str = "\
Exit status:
  0    done
  1    failed at run time: the server can't be reached, or refuses
  2    wrong usage or settings, or the address is in use
  130  ended by Ctrl-C (sub)";

const SERVE_AFTER_HELP: &str = "\
-h shows the flags that most need, --help all of them.
Each flag has a variable: --max-topics is FANTAIL_MAX_TOPICS. The flag wins.
Repeatable ones take a list: FANTAIL_LISTEN=127.0.0.1:8080,[::1]:8080

Exit status: 0 stopped in order, 1 failed, 2 wrong settings or address in use";

/// Columns of the help, whatever the terminal's width: it fits 80 everywhere.
const HELP_COLUMNS: usize = 79;

/// Whether the help that is asked for, if any, is the short one.
fn is_brief(words: &[OsString]) -> bool {
    words.iter().any(|word| word == "-h")
}

/// The whole command line, with a variable for each setting. The brief one accepts the same and shows what most need.
fn command(brief: bool) -> clap::Command {
    let with_variables = |subcommand: clap::Command| {
        subcommand.mut_args(|flag| {
            // An argument by its place is no setting.
            if flag.is_positional() {
                return flag;
            }
            let variable = format!("FANTAIL_{}", flag.get_id().as_str().to_uppercase());
            let rare = flag.get_help_heading().is_some_and(|heading| RARELY_NEEDED.contains(&heading));
            flag.env(variable).hide_env(true).hide(brief && rare)
        })
    };
    let command = Arguments::command().term_width(HELP_COLUMNS);
    command.mut_subcommand("serve", with_variables).mut_subcommand("check", with_variables)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As on a machine without variables: whoever runs the tests may have set some.
    fn parse(words: &[&str]) -> Result<Arguments, clap::Error> {
        let words: Vec<_> = ["fantail"].iter().chain(words).map(OsString::from).collect();
        let command = command(is_brief(&words)).mut_subcommand("serve", |serve| serve.mut_args(|flag| flag.env(None)));
        command.try_get_matches_from(words).and_then(|matches| Arguments::from_arg_matches(&matches))
    }

    fn config(flags: &[&str]) -> Config {
        match parse(&[&["serve"], flags].concat()).unwrap().command {
            Command::Serve(config) => *config,
            other => panic!("{other:?}"),
        }
    }

    fn help_of(words: &[&str]) -> String {
        parse(&[words, &["--help"]].concat()).unwrap_err().render().to_string()
    }

    #[test]
    fn the_command_line_is_consistent() {
        command(false).debug_assert();
    }

    #[test]
    fn help_fits_80_columns_and_is_shorter_by_the_short_flag_where_settings_are() {
        for words in [
            &[][..],
            &["serve"],
            &["check"],
            &["pub"],
            &["sub"],
            &["store"],
            &["store", "check"],
            &["store", "dump"],
            &["store", "compact"],
        ] {
            let help = help_of(words);
            let short = parse(&[words, &["-h"]].concat()).unwrap_err().render().to_string();
            if words == ["serve"] || words == ["check"] {
                assert!(short.contains(" --listen ") && !short.contains(" --backlog "), "{short}");
            } else {
                assert_eq!(help, short);
            }
            for line in help.lines().chain(short.lines()) {
                assert!(line.chars().count() < 80, "{line:?}");
                assert!(!line.contains('`'), "{line:?}");
            }
        }
    }

    #[test]
    fn the_defaults_of_the_flags_are_those_of_the_config() {
        assert_eq!(config(&[]), Config::default());
    }

    /// Walks the flags themselves, so that a new one cannot be forgotten.
    #[test]
    fn each_flag_states_its_default_and_has_a_variable_and_a_group() {
        let mut command = command(false);
        command.build();
        let serve = command.find_subcommand("serve").unwrap();
        let help = help_of(&["serve"]);
        for flag in serve.get_arguments().filter(|flag| flag.get_id() != "help") {
            let name = flag.get_long().unwrap();
            let variable = format!("FANTAIL_{}", name.to_uppercase().replace('-', "_"));
            assert_eq!(flag.get_env().and_then(|variable| variable.to_str()), Some(variable.as_str()));
            assert!(flag.get_help_heading().is_some(), "{name}");
            if flag.get_action().takes_values() {
                let entry = help.split(&format!(" --{name} <")).nth(1).unwrap().split(" --").next().unwrap();
                let entry: String = entry.split_whitespace().collect();
                let default: Vec<_> = flag.get_default_values().iter().filter_map(|default| default.to_str()).collect();
                assert!(default.is_empty() || entry.contains(&format!("[default:{}]", default.join(","))), "{name}: {entry}");
            }
        }
    }

    #[test]
    fn every_flag_reaches_its_field() {
        let config = config(&[
            "--listen=[::]:80",
            "--listen=localhost:81",
            "--admin=off",
            "--workers=2",
            "--pin-cores=0-1",
            "--outbox-size=2MiB",
            "--ping-interval=500ms",
            "--slow-consumer=latest",
            "--topic-class=prices/*;history-size=1,news;slow-consumer=latest",
            "--topic-class=**;history-ttl=1h",
            "--allow-anonymous=all",
            "--allow-origin=https://a.example,https://*.b.example",
            "--echo",
            "--log-format=json",
        ]);
        assert_eq!(config.listen_sockets().len(), 3);
        assert_eq!(config.admin.socket(), None);
        assert_eq!(config.outbox_size.bytes(), 2 << 20);
        assert_eq!(config.allow_origin, ["https://a.example", "https://*.b.example"].map(|origin| origin.parse().unwrap()));
        let patterns: Vec<_> = config.topic_class.iter().map(|rule| rule.pattern.to_string()).collect();
        assert_eq!(patterns, ["prices/*", "news", "**"]);
        assert!(config.echo && !config.page);
    }

    #[test]
    fn a_wrong_value_is_one_line_that_says_what_is_accepted() {
        for (flag, accepted) in [
            ("--outbox-size=64K", "64KiB"),
            ("--ping-interval=10", "500ms"),
            ("--pin-cores=3-1", "0-3,5"),
            ("--io=io_uring", "give auto, epoll or uring"),
            ("--listen=:8080", "localhost:8080"),
            ("--log-level=loud", "trace"),
            ("--topic-class=a;colour=red", "\"colour\" is no key; give history-size"),
        ] {
            let failure = run(["fantail", "serve", flag]).unwrap_err();
            assert_eq!(failure.status, Status::Usage);
            let text = failure.to_string();
            assert!(text.starts_with("fantail: invalid value") && text.contains(accepted), "{text}");
            assert_eq!(text.lines().count(), 2, "{text}");
        }
    }

    #[test]
    fn a_setting_that_breaks_a_rule_stops_before_anything_starts() {
        let failure = run(["fantail", "serve", "--outbox-size", "64KiB"]).unwrap_err();
        assert_eq!(
            failure.to_string(),
            "fantail: --outbox-size is 64KiB, less than twice --max-message-size\nfix: Give at least 128KiB.\n"
        );
    }

    #[test]
    fn commands_have_the_long_names_too() {
        assert!(matches!(parse(&["publish", "chat", "hello"]).unwrap().command, Command::Publish(_)));
        assert!(matches!(parse(&["subscribe", "chat"]).unwrap().command, Command::Subscribe(_)));
        assert!(parse(&["sub"]).is_err());
        assert!(parse(&["sub", "a//b"]).unwrap_err().to_string().contains("segment"));
    }
}
