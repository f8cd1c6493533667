//! Makes the runs: servers up, warmed, measured in turn, down again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::clock;
use crate::failure::Failure;
use crate::output;
use crate::progress::{self, Progress};

use super::child::{self, Outcome};
use super::file::{Comparison, Server, Test};
use super::fleet::{Fleet, Place};
use super::plan::{self, Step};
use super::results::{Results, Run};
use super::warmup::{RUN_TIME, Warmup};

/// A comparison under way.
#[derive(Debug)]
pub struct Rounds<'a> {
    file: &'a Comparison,
    interrupted: &'a AtomicBool,
    fleet: Fleet<'a>,
    progress: Progress,
    /// Time that was reckoned for all.
    estimated: Duration,
    /// Time that was reckoned for what is done.
    reckoned: Duration,
    /// When the step under way began, and the time that was reckoned for it.
    step: (Instant, Duration),
    /// Where a server's figures go.
    results: &'a mut Results,
}

/// All steps and the time they will take.
pub fn estimate(steps: &[Step<'_>]) -> Duration {
    steps.iter().map(Step::estimate).sum()
}

impl<'a> Rounds<'a> {
    /// Ready to run.
    pub fn new(file: &'a Comparison, results: &'a mut Results, interrupted: &'a AtomicBool) -> Self {
        let fleet = Fleet::new(file.server_cpus.clone(), interrupted);
        Self {
            file,
            interrupted,
            fleet,
            progress: Progress::hidden(),
            estimated: Duration::ZERO,
            reckoned: Duration::ZERO,
            step: (Instant::now(), Duration::ZERO),
            results,
        }
    }

    /// Runs all rounds. `after_round` sees the results so far, so that a long comparison can be kept.
    pub fn run(mut self, after_round: impl Fn(&Results) -> Result<(), Failure>) -> Result<(), Failure> {
        let mut steps = plan::steps(self.file, self.results.rounds);
        // Who does not start is better known before an hour of measuring than after it.
        for server in &self.file.servers {
            match self.fleet.ensure(server) {
                Err(failure) if !server.required => {
                    self.leave_out(server, &failure);
                    steps.retain(|step| step.server.name != server.name);
                }
                started => drop(started?),
            }
        }
        if steps.is_empty() {
            return Err(Failure::Usage("no server is left to be compared".to_owned()));
        }
        self.estimated = estimate(&steps);
        self.progress = Progress::new("comparing", clock::length(self.estimated));
        let mut was_fresh = false;
        for (at, step) in steps.iter().enumerate() {
            if step.test.wants_fresh_server() && !was_fresh {
                was_fresh = true;
                self.fleet.stop_all();
            }
            self.step = (Instant::now(), step.estimate());
            if self.is_interrupted() || !self.step(*step, at + 1)? {
                self.results.interrupted = true;
                break;
            }
            self.reckoned += step.estimate();
            if steps.get(at + 1).is_some_and(|next| next.round != step.round) {
                after_round(self.results)?;
            }
        }
        Ok(())
    }

    /// Notes why a server that need not be there takes no part.
    fn leave_out(&mut self, server: &Server, failure: &Failure) {
        let reason = failure.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        output::remark(&format!("{} is left out: {reason}", server.name));
        let known = self.results.servers.iter_mut().find(|known| known.name == server.name);
        known.into_iter().for_each(|known| known.missing = Some(reason.clone()));
    }

    /// Makes one run; false after Ctrl-C.
    fn step(&mut self, step: Step<'_>, order: usize) -> Result<bool, Failure> {
        let Step { test, server, round, .. } = step;
        let mut run = Run {
            test: test.name.clone(),
            server: server.name.clone(),
            round,
            order,
            command: Vec::new(),
            run: None,
            error: None,
        };
        match self.fleet.ensure(server) {
            Ok(None) => return Ok(false),
            // It started before, so this is part of what was found out about it.
            Err(failure) => run.error = Some(failure.to_string()),
            Ok(Some(place)) => {
                if !self.warm_up(test, server, place)? {
                    return Ok(false);
                }
                run.command = words(test, server, place, self.file.client_cpu, &test.command);
                match self.measure(&run.command)? {
                    Outcome::Interrupted => return Ok(false),
                    Outcome::Measured(json) => run.run = Some(json),
                    Outcome::Failed(reason) => run.error = Some(reason),
                }
                run.error = self.fleet.obituary(server).or(run.error);
            }
        }
        if test.wants_fresh_server() {
            self.fleet.stop(server);
        }
        self.results.runs.push(run);
        Ok(true)
    }

    /// Short runs until the rate stays, once for each kind of URL and each start of the server; false after Ctrl-C.
    fn warm_up(&mut self, test: &Test, server: &Server, place: Place) -> Result<bool, Failure> {
        if test.wants_fresh_server() {
            return Ok(true);
        }
        if place.is_new {
            // It was started again, so it is cold again.
            self.results.warmups.retain(|warmup| warmup.server != server.name);
        }
        let test = plan::warmup_test(self.file, &test.url).unwrap_or(test);
        if self.results.warmups.iter().any(|warmup| warmup.url == test.url && warmup.server == server.name) {
            return Ok(true);
        }
        let run_time = format!("{}ms", RUN_TIME.as_millis());
        let command = test.command_with(&[("--duration", &run_time), ("--warmup", "0s")]);
        let words = words(test, server, place, self.file.client_cpu, &command);
        let mut warmup =
            Warmup { test: test.name.clone(), url: test.url.clone(), server: server.name.clone(), ..Warmup::default() };
        while warmup.wants_more() {
            match self.measure(&words)? {
                Outcome::Interrupted => return Ok(false),
                Outcome::Measured(json) => warmup.add(json["operations_per_second"].as_f64().unwrap_or(0.0)),
                // The run itself will fail likewise, and that is where it is told.
                Outcome::Failed(_) => break,
            }
        }
        self.results.warmups.push(warmup);
        Ok(true)
    }

    fn measure(&mut self, words: &[String]) -> Result<Outcome, Failure> {
        let (progress, reckoned, estimated, (started, most)) = (&mut self.progress, self.reckoned, self.estimated, self.step);
        child::run(words, self.interrupted, || {
            // Not beyond what is reckoned for the step, or the bar would go back with the next.
            let done = reckoned + started.elapsed().min(most);
            let left = progress::left(clock::length(estimated.saturating_sub(done)));
            progress.show(clock::now(), clock::length(done), || format!("{}, {left}", words[..2].join(" ")));
        })
    }

    fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }
}

/// The words of one run: command, URL, its flags, the server's, and ours.
fn words(test: &Test, server: &Server, place: Place, cpu: usize, command: &[String]) -> Vec<String> {
    let with_port = |text: &String| text.replace("{port}", &place.port.to_string());
    let mut words = vec![command[0].clone(), with_port(&server.url[&test.url])];
    words.extend_from_slice(&command[1..]);
    if test.url == "topic" {
        words.extend(server.flags.iter().map(with_port));
    }
    let own = ["--json", "-", "--pid", &place.pid.to_string(), "--cpu", &cpu.to_string()].map(str::to_owned);
    words.extend(own);
    words
}

#[cfg(test)]
mod tests {
    use super::super::file::tests::SMALL;
    use super::*;

    #[test]
    fn flags_of_a_server_go_with_topics_only() {
        let file: Comparison = toml::from_str(SMALL).unwrap();
        let (a, b) = (&file.servers[0], &file.servers[1]);
        let place = Place { pid: 7, port: 4000, is_new: true };
        let line = |test: &Test, server| words(test, server, place, 1, &test.command).join(" ");
        assert_eq!(line(&file.tests[0], a), "echo ws://127.0.0.1:4000/echo --duration 2s --json - --pid 7 --cpu 1");
        let topic = "fanout redis://127.0.0.1:4000/{topic} --connections=10 --duration 4s --warmup=500ms --sub redis --json - --pid 7 --cpu 1";
        assert_eq!(line(&file.tests[1], b), topic);
        let mut posting = b.clone();
        posting.flags = ["--post", "http://127.0.0.1:{port}/pub/{topic}"].map(str::to_owned).into();
        let posted = line(&file.tests[1], &posting);
        assert!(posted.contains("--post http://127.0.0.1:4000/pub/{topic}") && !posted.contains("{port}"), "{posted}");
    }
}
