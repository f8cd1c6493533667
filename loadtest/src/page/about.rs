//! The end of a page: where, with what and how, so that anybody can do it again or doubt it.

use crate::compare::results::{Results, ServerInfo};
use crate::machine::{Commit, Machine};

use super::html::{command, definitions, escape};
use super::overview::label;

/// The section.
pub fn section(results: &Results) -> String {
    let mut text = "<section>\n<h2>How it was measured</h2>\n".to_owned();
    text += "<p>All servers run at once, each started by the load test on the CPUs given above and idle while another is measured; \
             memory is measured on servers started for it alone. Each is warmed up for each kind of URL until its rate changes by less \
             than 2\u{a0}%. A round takes every test to every server, forward and backward in turn. Ratios are taken within a round; \
             shown are the median of the rounds and the 95\u{a0}% percentile bootstrap interval of that median; of five rounds it is \
             their range, and fewer have none. Runs that lost something or failed are left out. Of runs that say INVALID because the \
             load test itself was busy or late, so that it may have been the bottleneck, rates and latencies are left out; what the \
             server used for each operation does not depend on that. Where nothing else is left, what there is is shown and marked \
             doubtful. Servers whose intervals overlap, directly or by way of others, are not ranked.</p>\n";
    text += &definitions(&facts(results));
    text += "<h2>Servers and their settings</h2>\n";
    results.servers.iter().for_each(|server| text += &server_section(server));
    text + "</section>\n"
}

fn facts(results: &Results) -> Vec<(String, String)> {
    let pair = |name: &str, value: String| (name.to_owned(), value);
    let mut facts = vec![
        pair("started", escape(&results.started)),
        pair("load test", escape(&results.tool)),
        pair("file", format!("<code>{}</code>", escape(&results.file))),
    ];
    facts.extend(surroundings(results.commit.as_ref(), &results.machine));
    facts
}

/// Where something was measured: the state of the working directory, the machine, its kernel and settings.
pub fn surroundings(commit: Option<&Commit>, machine: &Machine) -> Vec<(String, String)> {
    let commit = commit.map_or("unknown".to_owned(), |commit| {
        format!("<code>{}</code>{}", escape(&commit.id), if commit.dirty { ", with changes" } else { "" })
    });
    let pair = |name: &str, value: String| (name.to_owned(), value);
    let mut facts = vec![
        pair("commit of the working directory", commit),
        pair("processor", format!("{} ({} CPUs)", escape(&machine.cpu), machine.cpus)),
        pair("memory", format!("{:.1} GiB", machine.memory_bytes as f64 / f64::from(1 << 30))),
        pair("kernel", escape(&machine.kernel)),
        pair("governor", machine.governor.as_deref().map_or("not told".to_owned(), escape)),
    ];
    facts.extend(machine.sysctls.iter().map(|(name, value)| (format!("<code>{}</code>", escape(name)), escape(value))));
    facts
}

fn server_section(server: &ServerInfo) -> String {
    let year = server.year.map_or(String::new(), |year| format!(" <small>({year})</small>"));
    let mut text = format!("<article>\n<h3>{}{year}</h3>\n", escape(&label(server)));
    if let Some(old) = &server.old {
        text += &format!("<p><strong class=\"old\">Old:</strong> {}</p>\n", escape(old));
    }
    if let Some(missing) = &server.missing {
        text += &format!("<p><strong>Left out:</strong> {}.</p>\n", escape(missing));
    }
    if !server.settings.is_empty() {
        text += &format!("<p>{}</p>\n", escape(&server.settings));
    }
    let env = server.env.iter().map(|(name, value)| format!("{name}={value}"));
    let words: Vec<String> = env.chain(server.start.iter().cloned()).collect();
    text + &format!("<p class=\"command\">{}</p>\n</article>\n", command(&words))
}
