//! `scaling`: what a second worker is worth: the same fan-out flat out against a server that is started with 1, 2, ... N workers.
//!
//! Per second tells what the machine gives, which on few CPUs the load test shares; per CPU-second tells what the work costs, and so
//! what several workers lose by speaking with each other.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;
use fantail::config::ByteSize;

use crate::clock;
use crate::cpus::Cpus;
use crate::failure::Failure;
use crate::feed::{Feed, Pace};
use crate::histogram::Histogram;
use crate::interrupt::{self, Second};
use crate::kernel;
use crate::launch::{Launch, free_port};
use crate::measured::Measured;
use crate::report::{Report, Series};
use crate::target::{Target, Topics};

use super::common::{Common, Measure};
use super::crowd::Crowd;
use super::party::{Publishing, parse_size};

/// How long a server may take until it accepts.
const START_TIME: Duration = Duration::from_secs(30);

/// Flags of `scaling`.
#[derive(Args, Clone, Debug)]
pub struct Scaling {
    /// {port} in the URL and the command stands for a free port
    #[command(flatten)]
    publishing: Publishing,
    /// The numbers of workers, measured one after the other
    #[arg(long, default_value = "1,2", value_name = "N,N...", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..))]
    workers: Vec<u32>,
    /// The CPUs the server is kept on, such as 0-3 or 0,2
    #[arg(long, value_name = "LIST")]
    server_cpus: Option<Cpus>,
    /// How many subscribers in all
    #[arg(long, default_value_t = 1000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,
    /// On how many topics
    #[arg(long, default_value_t = 8, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    topics: u32,
    /// How many publications are under way at a time
    #[arg(long, default_value_t = 16, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    window: u32,
    /// Bytes of a message, at least 23
    #[arg(long, default_value = "128", value_name = "SIZE", value_parser = parse_size)]
    size: ByteSize,
    /// The server's command line, with {workers} and {port}
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

impl Measure for Scaling {
    fn common(&self) -> &Common {
        &self.publishing.common
    }

    fn run(&self) -> Result<Vec<Report>, Failure> {
        if self.common().pid.is_some() {
            return Err(Failure::Usage("--pid: the server that is measured is the one that scaling starts".to_owned()));
        }
        // What it starts has the descriptors that this process may have.
        kernel::make_room_up_to(usize::MAX)?;
        // From the first start on, Ctrl-C stops the server.
        let interrupted = interrupt::watch(Second::Waits)?;
        if self.connections < self.topics {
            return Err(Failure::Usage("--connections must not be less than --topics: each topic needs a subscriber".to_owned()));
        }
        if !self.command.iter().any(|word| word.contains("{workers}")) {
            return Err(Failure::Usage("the command has no {workers}: the server would be the same each time".to_owned()));
        }
        let mut steps = Vec::new();
        for &workers in &self.workers {
            steps.push((workers, self.measure(workers, &interrupted)?));
            if interrupted.load(Ordering::Relaxed) {
                break;
            }
        }
        Ok(vec![self.report(&steps)])
    }
}

impl Scaling {
    fn measure(&self, workers: u32, interrupted: &AtomicBool) -> Result<Report, Failure> {
        let port = free_port()?;
        let fill = |text: &String| text.replace("{workers}", &workers.to_string()).replace("{port}", &port.to_string());
        let launch = Launch { words: self.command.iter().map(fill).collect(), env: Vec::new(), cpus: self.server_cpus.clone() };
        let mut server = launch.start()?;
        let publishing = self.publishing.on_server(fill, server.pid());
        let common = &publishing.common;
        let address = Target::resolve(&common.url, common.sub, self.topics)?.address;
        if !server.wait_for(address, START_TIME, interrupted)? {
            return Ok(Report::cut_short("scaling", "delivery"));
        }
        let mut engine = publishing.prepare(self.connections as usize, self.topics)?;
        let arcs: Vec<Topics> = (0..self.connections).map(|at| Topics { first: at % self.topics, count: 1 }).collect();
        let Some(party) = publishing.gather(&mut engine, &arcs)? else { return Ok(Report::cut_short("scaling", "delivery")) };
        let traffic = party.traffic(self.topics, self.size, fastrand::u64(..));
        let feed = Feed::new(Pace::Window(self.window.into()), party.through, 1);
        let mut crowd = Crowd::new(common, "scaling", clock::now(), traffic, feed);
        let interrupted = engine.run(&mut crowd)?;
        let mut report = crowd.report(&engine.net, interrupted)?;
        report.parameters = vec![("connections", self.connections.into())];
        server.stop();
        Ok(report)
    }

    /// All steps in one report: sums of what was counted, a series of each figure.
    fn report(&self, steps: &[(u32, Report)]) -> Report {
        // A rate or a cost over several steps would be of none of them; of the tool the worst is told.
        let worst = |share: fn(&Measured) -> f64| steps.iter().map(|(_, step)| share(step.measured())).fold(0.0, f64::max);
        let measured = Measured {
            seconds: steps.iter().map(|(_, step)| step.measured().seconds).sum(),
            own_cpu_share: worst(|measured| measured.own_cpu_share),
            own_wait_share: worst(|measured| measured.own_wait_share),
            ..Measured::default()
        };
        let lag = steps.iter().map(|(_, step)| step.lag()).max_by_key(|lag| lag.quantile(0.99));
        let mut report = Report::new("scaling", "delivery", measured, lag.cloned().unwrap_or_else(Histogram::new));
        // Counts are sums over the steps: by another name than each step's own `connections`, which are those of one of them.
        report.parameters = vec![
            ("subscribers", self.connections.into()),
            ("topics", self.topics.into()),
            ("window", self.window.into()),
            ("size", self.size.bytes().into()),
        ];
        for (workers, step) in steps {
            let named = |reason: &String| format!("with {workers}: {reason}");
            report.add_counts_of(step);
            report.doubts.extend(step.all_doubts().iter().map(named));
            report.busy.extend(step.busy_tool().iter().map(named));
            report.interrupted |= step.interrupted;
        }
        let points = |figure: fn(&Report) -> Option<f64>| -> Vec<(u64, f64)> {
            steps.iter().filter_map(|(workers, step)| Some(((*workers).into(), figure(step)?))).collect()
        };
        let per_cpu = points(Report::per_cpu_second);
        let efficiency = efficiency(steps[0].0.into(), &per_cpu);
        report.series = vec![
            Series { name: "deliveries_per_second", unit: "/s", points: points(|step| Some(step.rate())) },
            Series { name: "deliveries_per_cpu_second", unit: "/s", points: per_cpu },
            Series { name: "efficiency", unit: "", points: efficiency },
            Series { name: "server_worker_skew", unit: "", points: points(|step| step.measured().skew()) },
        ];
        report.notes.push("efficiency: deliveries per CPU-second, divided by those of the first number of workers".to_owned());
        report
    }
}

/// Each figure divided by that of the `first` number of workers; none where that has none, as of which they would be is not told.
fn efficiency(first: u64, per_cpu: &[(u64, f64)]) -> Vec<(u64, f64)> {
    let base = per_cpu.first().filter(|&&(workers, _)| workers == first).map(|&(_, value)| value);
    base.map_or_else(Vec::new, |base| per_cpu.iter().map(|&(workers, value)| (workers, value / base)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn efficiency_is_to_the_first_number_of_workers_or_to_none() {
        assert_eq!(efficiency(1, &[(1, 4.0), (2, 3.0)]), [(1, 1.0), (2, 0.75)]);
        assert_eq!(efficiency(1, &[(2, 3.0), (4, 1.5)]), [], "the first has no figure");
        assert_eq!(efficiency(1, &[]), []);
    }
}
