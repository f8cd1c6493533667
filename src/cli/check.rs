//! `fantail check`: what the settings mean, told without starting anything.
//!
//! It reads the same flags and variables as `serve` and refuses the same. Nothing is bound, and nothing is asked of the machine: what
//! this prints depends on the settings alone, so it can be run anywhere before they are used.

use std::io::{self, Write as _};
use std::iter;

use super::Failure;
use crate::class::{Class, Classes};
use crate::config::{ByteSize, Config, TimeSpan};
use crate::frame::Topic;

/// What `check` is told.
#[derive(Debug, clap::Args)]
pub(super) struct Check {
    /// Topics whose class to tell
    #[arg(value_name = "TOPIC", value_parser = super::publish::parse_topic)]
    topics: Vec<Topic>,
    #[command(flatten)]
    config: Config,
}

pub(super) const AFTER_HELP: &str = "\
Flags and variables are those of serve; -h shows those that most need.

Exit status: 0 the settings are valid, 2 they are not";

impl Check {
    /// Checks the settings, then prints the topic classes, and of each topic asked for which of them holds.
    pub(super) fn run(self) -> Result<(), Failure> {
        self.config.validate()?;
        let classes = self.config.classes();
        let mut text = format!("The settings are valid.\n\n{}", table(&class_rows(&classes)));
        if !self.topics.is_empty() {
            text = text + "\n" + &table(&topic_rows(&classes, &self.topics));
        }
        // Whoever closed stdout wants the exit status alone.
        let _ = io::stdout().write_all(text.as_bytes());
        Ok(())
    }
}

type Row<const COLUMNS: usize> = [String; COLUMNS];

/// The classes in the order in which they are tried; the default one is last.
fn class_rows(classes: &Classes) -> Vec<Row<8>> {
    let head = ["class", "pattern", "history-size", "history-ttl", "history-bytes", "slow-consumer", "presence", "durable"]
        .map(str::to_owned);
    let rules = classes.rules().iter().enumerate();
    let rules = rules.map(|(place, (pattern, class))| class_row(number(Some(place)), pattern.to_string(), class));
    let default = class_row(number(None), NONE.to_owned(), classes.default());
    iter::once(head).chain(rules).chain(iter::once(default)).collect()
}

fn class_row(number: String, pattern: String, class: &Class) -> Row<8> {
    let history = class.history;
    [
        number,
        pattern,
        history.size.to_string(),
        TimeSpan(history.ttl).to_string(),
        ByteSize(usize::try_from(history.bytes).unwrap_or(usize::MAX)).to_string(),
        class.slow_consumer.to_string(),
        if class.presence_names { format!("{}+names", class.presence) } else { class.presence.to_string() },
        if class.durable { "yes" } else { "no" }.to_owned(),
    ]
}

fn topic_rows(classes: &Classes, topics: &[Topic]) -> Vec<Row<3>> {
    let head = ["topic", "class", "pattern"].map(str::to_owned);
    let rows = topics.iter().map(|topic| {
        let rule = classes.rule_of(topic.as_str());
        let pattern = rule.map_or_else(|| NONE.to_owned(), |place| classes.rules()[place].0.to_string());
        [topic.to_string(), number(rule), pattern]
    });
    iter::once(head).chain(rows).collect()
}

/// How a class is called: people count from 1.
fn number(rule: Option<usize>) -> String {
    rule.map_or_else(|| "default".to_owned(), |place| (place + 1).to_string())
}

/// Stands where there is no pattern.
const NONE: &str = "-";

/// Cells in columns two spaces apart, without spaces at a line's end.
fn table<const COLUMNS: usize>(rows: &[Row<COLUMNS>]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: [usize; COLUMNS] = std::array::from_fn(width);
    let line = |row: &Row<COLUMNS>| {
        let cells: Vec<_> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        cells.join("  ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_and_topics_are_tables() {
        let rules = [
            "prices/*;history-size=1;history-ttl=10s;slow-consumer=latest",
            "café;history-bytes=64KiB;presence=list;presence-names=on;durable",
        ];
        let config = Config { topic_class: rules.map(|rule| rule.parse().unwrap()).to_vec(), ..Config::default() };
        let expected = "\
class    pattern   history-size  history-ttl  history-bytes  slow-consumer  presence    durable
1        prices/*  1             10s          1MiB           latest         off         no
2        café      100           5m           64KiB          disconnect     list+names  yes
default  -         100           5m           1MiB           disconnect     off         no
";
        assert_eq!(table(&class_rows(&config.classes())), expected);
        let topics = ["prices/eur", "chat"].map(|name| Topic::new(name).unwrap());
        let expected = "\
topic       class    pattern
prices/eur  1        prices/*
chat        default  -
";
        assert_eq!(table(&topic_rows(&config.classes(), &topics)), expected);
    }
}
