//! Where reports go: a table for people, JSON and CSV for programs.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;

use serde_json::Value;

use crate::failure::Failure;
use crate::report::Report;

/// The first line of a CSV file.
const CSV_HEAD: &str = "command,parameters,name,value,unit\n";

/// Writes the tables, and JSON and CSV where they were asked for. Standard output has one of them only, so that it can be piped.
/// Several reports are a list in JSON.
pub fn write(reports: &[Report], json: Option<&Path>, csv: Option<&Path>) -> Result<(), Failure> {
    let tables: String = reports.iter().map(Report::to_string).collect();
    let to_stdout = json == Some(Path::new("-"));
    let cannot = |path: &Path, error| Failure::Output { path: path.to_owned(), error };
    // Files first: nobody who reads the table may keep them from being written.
    if let Some(path) = json.filter(|_| !to_stdout) {
        fs::write(path, to_json(reports)).map_err(|error| cannot(path, error))?;
    }
    if let Some(path) = csv {
        append_csv(reports, path).map_err(|error| cannot(path, error))?;
    }
    let written = if to_stdout {
        io::stderr().write_all(tables.as_bytes()).and_then(|()| io::stdout().write_all(to_json(reports).as_bytes()))
    } else {
        io::stdout().write_all(tables.as_bytes())
    };
    match written {
        // Whoever read it has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(|error| cannot(Path::new("standard output"), error)),
    }
}

fn to_json(reports: &[Report]) -> String {
    let values: Vec<Value> = reports.iter().map(Report::to_json).collect();
    let value = match <[Value; 1]>::try_from(values) {
        Ok([one]) => one,
        Err(values) => Value::Array(values),
    };
    format!("{value:#}\n")
}

/// Appends, so that runs add up to one table; a new file begins with the names of its columns.
fn append_csv(reports: &[Report], path: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    let mut text = if file.metadata()?.len() == 0 { CSV_HEAD.to_owned() } else { String::new() };
    reports.iter().for_each(|report| report.write_csv(&mut text));
    file.write_all(text.as_bytes())
}
