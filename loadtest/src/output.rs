//! Where reports go: a table for people, JSON and CSV for programs.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use serde_json::Value;

use crate::failure::Failure;
use crate::report::Report;
use crate::rows;

/// Whether results can be written there, as far as that can be known before they are measured: no one is to wait for what is lost then.
///
/// # Errors
/// What the kernel says of the folder.
pub fn check(path: &Path) -> Result<(), Failure> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let kind = |is_right, kind| if is_right { Ok(()) } else { Err(io::Error::from(kind)) };
    fs::metadata(folder)
        .and_then(|folder| kind(folder.is_dir(), io::ErrorKind::NotADirectory))
        .and_then(|()| kind(!path.is_dir(), io::ErrorKind::IsADirectory))
        .map_err(|error| Failure::Output { path: path.to_owned(), error })
}

/// Writes the tables, and JSON and CSV where they were asked for. Standard output has one of them only, so that it can be piped.
/// Several reports are a list in JSON.
///
/// # Errors
/// Of the first that can't be written; the others are written all the same.
pub fn write(reports: &[Report], json: Option<&Path>, csv: Option<&Path>) -> Result<(), Failure> {
    let tables: String = reports.iter().map(Report::to_string).collect();
    let to_stdout = json.is_some_and(is_stdout);
    let cannot = |path: &Path, error| Failure::Output { path: path.to_owned(), error };
    // Files first: nobody who reads the table may keep them from being written.
    let json_file = json.filter(|_| !to_stdout);
    let json_written = json_file.map_or(Ok(()), |path| fs::write(path, to_json(reports)).map_err(|error| cannot(path, error)));
    let csv_written = csv.map_or(Ok(()), |path| rows::append(reports, path).map_err(|error| cannot(path, error.into())));
    let printed = if to_stdout {
        let told = say(io::stderr(), "standard error", &tables);
        print(&to_json(reports)).and(told)
    } else {
        print(&tables)
    };
    json_written.and(csv_written).and(printed)
}

/// Whether a path means standard output.
pub fn is_stdout(path: &Path) -> bool {
    path == Path::new("-")
}

/// Prints results. Whoever reads them may stop when he has seen enough.
///
/// # Errors
/// The kernel's.
pub fn print(text: &str) -> Result<(), Failure> {
    say(io::stdout(), "standard output", text)
}

/// Says something beside the results, on standard error. If nobody reads it, so be it.
pub fn remark(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

fn say(mut stream: impl Write, name: &str, text: &str) -> Result<(), Failure> {
    match stream.write_all(text.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(|error| Failure::Output { path: name.into(), error }),
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
