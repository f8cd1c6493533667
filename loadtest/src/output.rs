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
    if to_stdout {
        eprint!("{tables}");
    } else {
        print!("{tables}");
    }
    if let Some(path) = json {
        let values: Vec<Value> = reports.iter().map(Report::to_json).collect();
        let value = match <[Value; 1]>::try_from(values) {
            Ok([one]) => one,
            Err(values) => Value::Array(values),
        };
        let text = format!("{value:#}\n");
        if to_stdout {
            print!("{text}");
        } else {
            fs::write(path, text).map_err(|error| Failure::System("writing the JSON", error))?;
        }
    }
    csv.map_or(Ok(()), |path| append_csv(reports, path).map_err(|error| Failure::System("writing the CSV", error)))
}

/// Appends, so that runs add up to one table; a new file begins with the names of its columns.
fn append_csv(reports: &[Report], path: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    let mut text = if file.metadata()?.len() == 0 { CSV_HEAD.to_owned() } else { String::new() };
    reports.iter().for_each(|report| report.write_csv(&mut text));
    file.write_all(text.as_bytes())
}
