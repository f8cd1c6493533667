//! What a command ends with when it could not do what it was asked.

use std::error::Error as _;
use std::ffi::OsString;
use std::process::ExitCode;
use std::{env, fmt, io};

use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::config::ConfigError;
use crate::frame::{PatternError, TopicError};

/// Exit statuses, as `fantail --help` lists them; success is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// Failed at run time: the server can't be reached, or refuses.
    Runtime = 1,
    /// Wrong usage or settings, or the address is in use: starting again won't help.
    Usage = 2,
    /// Ended by Ctrl-C: 128 and the number of SIGINT, as shells count.
    Interrupted = 130,
}

/// An error for the person at the terminal: one line, and one that says how to mend it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The exit status.
    pub status: Status,
    /// What went wrong; nothing where the person knows it already.
    pub message: Option<String>,
    /// What to do about it.
    pub fix: Option<String>,
}

impl Failure {
    /// A failure at run time.
    #[must_use]
    pub fn runtime(message: impl Into<String>) -> Self {
        Self { status: Status::Runtime, message: Some(message.into()), fix: None }
    }

    /// Wrong usage or settings.
    #[must_use]
    pub fn usage(message: impl Into<String>) -> Self {
        Self { status: Status::Usage, ..Self::runtime(message) }
    }

    /// The same failure with what to do about it.
    #[must_use]
    pub fn with_fix(self, fix: impl Into<String>) -> Self {
        Self { fix: Some(fix.into()), ..self }
    }

    /// A status alone: nothing is printed.
    #[must_use]
    pub const fn silent(status: Status) -> Self {
        Self { status, message: None, fix: None }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::usage(error.to_string()).with_fix(error.fix)
    }
}

impl From<Status> for ExitCode {
    fn from(status: Status) -> Self {
        Self::from(status as u8)
    }
}

/// What goes to stderr, each line with its end.
impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(message) = &self.message {
            writeln!(formatter, "fantail: {message}")?;
        }
        if let Some(fix) = &self.fix {
            writeln!(formatter, "fix: {fix}")?;
        }
        Ok(())
    }
}

/// Says that `server` can't be reached, the same from every command.
pub(super) fn unreachable(server: &str, error: &io::Error) -> String {
    let why = error.to_string();
    // The kernel's number means nothing to the person.
    let why = why.split_once(" (os error").map_or(why.as_str(), |(words, _)| words);
    format!("{server} can't be reached: {why}")
}

/// Prints help and version; turns wrong usage of `words` into one line.
pub(super) fn from_clap(error: &clap::Error, words: &[OsString]) -> Result<(), Failure> {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // Whoever closed stdout does not want the help.
            let _ = error.print();
            Ok(())
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = error.print();
            Err(Failure::silent(Status::Usage))
        }
        _ => Err(wrong_usage(error, words)),
    }
}

fn wrong_usage(error: &clap::Error, words: &[OsString]) -> Failure {
    let mut failure = usage_line(&error.render().to_string());
    if let Some((argument, variable)) = wrong_variable(error, words) {
        failure.message = failure.message.map(|message| message.replacen(&format!("'{argument}'"), &variable, 1));
    }
    let fix = error.source().and_then(|source| match source.downcast_ref() {
        Some(error) => Some(topic_fix(*error)),
        None => source.downcast_ref().map(|error| pattern_fix(*error)),
    });
    match fix {
        Some(fix) => failure.with_fix(fix),
        None => failure,
    }
}

/// The argument whose value is wrong, and its variable if that is where the value stands.
fn wrong_variable<'a>(error: &'a clap::Error, words: &[OsString]) -> Option<(&'a str, String)> {
    let (Some(ContextValue::String(argument)), Some(ContextValue::String(value))) =
        (error.get(ContextKind::InvalidArg), error.get(ContextKind::InvalidValue))
    else {
        return None;
    };
    let flag = argument.split_whitespace().next()?;
    let variable = format!("FANTAIL_{}", flag.strip_prefix("--")?.to_uppercase().replace('-', "_"));
    let given = words.iter().any(|word| word.to_str().is_some_and(|word| word.split('=').next() == Some(flag)));
    let stands_there = env::var(&variable).is_ok_and(|list| list == *value || list.split(',').any(|part| part == value));
    (stands_there && !given).then_some((argument, variable))
}

const fn topic_fix(error: TopicError) -> &'static str {
    match error {
        TopicError::Wildcard => "Name the topic itself: only subscriptions may have patterns.",
        TopicError::Reserved => "Choose another first segment.",
        _ => "Give 1 to 255 bytes without control characters: segments between single slashes, none of them \".\" or \"..\".",
    }
}

const fn pattern_fix(error: PatternError) -> &'static str {
    match error {
        PatternError::Misplaced => "Give a pattern such as news/* or news/**, in quotes, or the exact topic.",
        PatternError::Name(error) => topic_fix(error),
    }
}

/// The parser's message is its first paragraph; a tip, if it has one, is the fix.
fn usage_line(rendered: &str) -> Failure {
    let mut paragraphs = rendered.split("\n\n");
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let message = words(paragraphs.next().unwrap_or_default());
    let tip = paragraphs.find_map(|paragraph| paragraph.trim().strip_prefix("tip: ").map(words));
    let fix = match tip {
        // What the parser says of a flag that stands before its command.
        Some(tip) if tip.starts_with('\'') => format!("Flags stand behind their command: {}.", tip.trim_end_matches(" exists")),
        Some(tip) => tip,
        None => "See what is accepted with --help.".to_owned(),
    };
    Failure::usage(message.strip_prefix("error: ").unwrap_or(&message)).with_fix(fix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_one_line_and_a_fix() {
        let rendered = "error: unexpected argument '--lisen' found\n\n  tip: a similar argument exists: '--listen'\n\nUsage: x\n";
        let text = usage_line(rendered).to_string();
        assert_eq!(text, "fantail: unexpected argument '--lisen' found\nfix: a similar argument exists: '--listen'\n");
        let failure = usage_line("error: the following are required:\n  <TOPIC>\n\nUsage: fantail sub");
        assert_eq!(failure.message.as_deref(), Some("the following are required: <TOPIC>"));
        assert_eq!(failure.fix.as_deref(), Some("See what is accepted with --help."));
    }

    #[test]
    fn flags_before_their_command_are_told_where_they_belong() {
        let failure = usage_line("error: unexpected argument '--echo' found\n\n  tip: 'serve --echo' exists\n\nUsage: x\n");
        assert_eq!(failure.fix.as_deref(), Some("Flags stand behind their command: 'serve --echo'."));
    }

    #[test]
    fn the_kernels_number_is_left_out() {
        let refused = io::Error::from_raw_os_error(111);
        assert_eq!(unreachable("a:1", &refused), "a:1 can't be reached: Connection refused");
    }

    #[test]
    fn silence_prints_nothing() {
        assert_eq!(Failure::silent(Status::Interrupted).to_string(), "");
        assert_eq!(Status::Interrupted as u8, 130);
    }
}
