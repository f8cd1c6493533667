//! The JSON of a comparison: all that is needed to doubt it, raw histograms included. `report` reads it back.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::failure::Failure;
use crate::machine::{Commit, Machine};

use super::file::Test;
use super::summary::Cell;
use super::warmup::Warmup;

/// What a comparison's JSON says it is.
pub const KIND: &str = "comparison";

/// One comparison.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Results {
    /// Program and version.
    pub tool: String,
    /// [`KIND`].
    pub kind: String,
    /// RFC 3339.
    pub started: String,
    /// The file that said what to compare.
    pub file: String,
    /// Of the working directory.
    pub commit: Option<Commit>,
    /// Where it ran.
    pub machine: Machine,
    /// The CPUs of the servers.
    pub server_cpus: String,
    /// The CPU of the load test.
    pub client_cpu: usize,
    /// How many rounds there were to be.
    pub rounds: u32,
    /// Somebody pressed Ctrl-C.
    pub interrupted: bool,
    /// All servers of the file.
    pub servers: Vec<ServerInfo>,
    /// All tests of the file.
    pub tests: Vec<Test>,
    /// How each server was warmed up for each test.
    pub warmups: Vec<Warmup>,
    /// In the order they were made.
    pub runs: Vec<Run>,
    /// Medians and ratios, by test and server.
    pub summary: Vec<Cell>,
}

/// What is to be known of a server.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ServerInfo {
    /// What tables call it.
    pub name: String,
    /// As stated, or as it says itself.
    pub version: Option<String>,
    /// Of that version's release.
    pub year: Option<u16>,
    /// Why it is marked old.
    pub old: Option<String>,
    /// Its command line.
    pub start: Vec<String>,
    /// What was added to its environment.
    pub env: BTreeMap<String, String>,
    /// What was set, and who recommends it.
    pub settings: String,
    /// Why it was left out: what of it is not installed, or how its start failed.
    pub missing: Option<String>,
}

/// One run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Run {
    /// Of which test.
    pub test: String,
    /// Of which server.
    pub server: String,
    /// From 1.
    pub round: u32,
    /// Which of all runs it was, from 1.
    pub order: usize,
    /// The words it was started with.
    pub command: Vec<String>,
    /// Its JSON.
    pub run: Option<Value>,
    /// Why there is none.
    pub error: Option<String>,
}

impl Results {
    /// Writes all of it, beside the file first: whoever ends the run meanwhile keeps the rounds that were written before.
    pub fn write(&self, path: &Path) -> Result<(), Failure> {
        let mut beside = path.as_os_str().to_owned();
        beside.push(".part");
        let written = serde_json::to_vec_pretty(self).map_err(Into::into).and_then(|text| {
            std::fs::write(&beside, text)?;
            std::fs::rename(&beside, path)
        });
        written.map_err(|error| Failure::Output { path: path.to_owned(), error })
    }
}
