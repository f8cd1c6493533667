//! One run of this very program, and its JSON.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::failure::Failure;

/// How often to look whether somebody pressed Ctrl-C.
const STEP: Duration = Duration::from_millis(50);

/// How long an interrupted run may take to say what it had.
const PATIENCE: Duration = Duration::from_secs(2);

/// What came of a run.
#[derive(Debug)]
pub enum Outcome {
    /// Its JSON, also if it says INVALID.
    Measured(Value),
    /// Why it could not be made, in its own words.
    Failed(String),
    /// Somebody pressed Ctrl-C.
    Interrupted,
}

/// Runs the load test with these words. `tick` is called every now and then meanwhile.
pub fn run(words: &[String], interrupted: &AtomicBool, mut tick: impl FnMut()) -> Result<Outcome, Failure> {
    let tool = std::env::current_exe().map_err(|error| Failure::System("finding the load test's own program", error))?;
    let mut command = Command::new(tool);
    // A group of its own: Ctrl-C on a terminal comes from here, once.
    command.args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let child = command.spawn().map_err(|error| Failure::System("starting a run", error))?;
    let pid = Pid::from_child(&child);
    let (sender, receiver) = mpsc::channel();
    // The JSON is larger than a pipe holds, so somebody has to read while somebody looks out for Ctrl-C.
    thread::spawn(move || {
        // Nobody receives if the run was given up.
        let _ = sender.send(child.wait_with_output());
    });
    loop {
        match receiver.recv_timeout(STEP) {
            Ok(output) => return outcome(output),
            Err(_) if interrupted.load(Ordering::Relaxed) => {
                for signal in [Signal::TERM, Signal::KILL] {
                    // It may have ended just now.
                    let _ = kill_process(pid, signal);
                    if receiver.recv_timeout(PATIENCE).is_ok() {
                        break;
                    }
                }
                return Ok(Outcome::Interrupted);
            }
            Err(_) => tick(),
        }
    }
}

fn outcome(output: io::Result<Output>) -> Result<Outcome, Failure> {
    let output = output.map_err(|error| Failure::System("reading a run's results", error))?;
    Ok(match serde_json::from_slice::<Value>(&output.stdout) {
        Ok(json) => of_json(json),
        Err(_) => Outcome::Failed(reason(&String::from_utf8_lossy(&output.stderr), &output.status.to_string())),
    })
}

fn of_json(json: Value) -> Outcome {
    match json {
        Value::Array(reports) => {
            let many = reports.len();
            Outcome::Failed(format!("it made {many} reports, and a comparison takes one: give its command one size and the like"))
        }
        json if json["interrupted"] == true => Outcome::Interrupted,
        json if json["command"].is_string() => Outcome::Measured(json),
        _ => Outcome::Failed("what it wrote is no report".to_owned()),
    }
}

/// What it said, on one line; how it ended if it said nothing.
fn reason(errors: &str, status: &str) -> String {
    let mut lines = errors.lines().map(str::trim).filter(|line| !line.is_empty());
    let line = lines.next().unwrap_or(status);
    line.trim_start_matches("fantail-loadtest: ").trim_start_matches("error: ").to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn one_report_is_a_run_and_several_are_none() {
        let report = json!({"command": "echo", "interrupted": false});
        assert!(matches!(of_json(report.clone()), Outcome::Measured(json) if json == report));
        assert!(matches!(of_json(json!({"command": "echo", "interrupted": true})), Outcome::Interrupted));
        assert!(matches!(of_json(json!([report, report])), Outcome::Failed(why) if why.starts_with("it made 2 reports, ")));
        assert!(matches!(of_json(json!(3)), Outcome::Failed(_)));
    }

    #[test]
    fn a_failed_run_tells_why() {
        assert_eq!(reason("\nfantail-loadtest: no way\nsecond\n", "exit status: 1"), "no way");
        assert_eq!(reason("error: unexpected argument '--x'\n", "exit status: 2"), "unexpected argument '--x'");
        assert_eq!(reason("", "signal: 9 (SIGKILL)"), "signal: 9 (SIGKILL)");
    }
}
