//! What a report is made of: comparisons, and single runs as `--json` writes them, alone or in a list.

use std::path::Path;

use serde_json::Value;

use crate::compare::results::{KIND, Results};
use crate::compare::summary::summarize;
use crate::failure::Failure;

/// All files of a report.
#[derive(Debug, Default)]
pub struct Input {
    /// In the order they were given.
    pub comparisons: Vec<Results>,
    /// In the order they were given.
    pub singles: Vec<Single>,
}

/// One run that belongs to no comparison.
#[derive(Debug)]
pub struct Single {
    /// Whose it is: the name of its file without number and ending, so that `fantail-100.json` and `fantail-1000.json` are one.
    pub name: String,
    /// The name of its file.
    pub file: String,
    /// Its JSON.
    pub run: Value,
}

impl Input {
    /// Reads files of any kind.
    pub fn read<'a>(paths: impl Iterator<Item = &'a Path>) -> Result<Self, Failure> {
        let mut input = Self::default();
        for path in paths {
            let text = std::fs::read(path).map_err(|error| error.to_string());
            let json = text.and_then(|text| serde_json::from_slice(&text).map_err(|error| error.to_string()));
            let added = json.and_then(|json| input.add(path, json));
            added.map_err(|what| Failure::File { path: path.display().to_string(), what })?;
        }
        Ok(input)
    }

    fn add(&mut self, path: &Path, json: Value) -> Result<(), String> {
        if json["kind"] == KIND {
            let mut results: Results = serde_json::from_value(json).map_err(|error| error.to_string())?;
            // By the same rules for all, whichever version wrote the file.
            results.summary = summarize(&results);
            self.comparisons.push(results);
            return Ok(());
        }
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let stem_end = stem.trim_end_matches(|char: char| !char.is_alphabetic());
        let name = if stem_end.is_empty() { stem.as_ref() } else { stem_end };
        let runs = if let Value::Array(runs) = json { runs } else { vec![json] };
        for run in runs {
            if !run["command"].is_string() {
                return Err("is neither a comparison nor a run of the load test: it has no command".to_owned());
            }
            self.singles.push(Single { name: name.to_owned(), file: file.clone(), run });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn files_of_all_kinds_are_read() {
        let mut input = Input::default();
        let run = json!({"command": "echo"});
        input.add(Path::new("x/fantail-100.json"), json!([run, run])).unwrap();
        input.add(Path::new("7.json"), run).unwrap();
        let names: Vec<&str> = input.singles.iter().map(|single| single.name.as_str()).collect();
        assert_eq!(names, ["fantail", "fantail", "7"]);
        assert!(input.add(Path::new("a.json"), json!({"x": 1})).unwrap_err().contains("no command"));
        assert!(input.add(Path::new("a.json"), json!({"kind": "comparison"})).unwrap_err().contains("missing field"));
        let results = crate::compare::summary::tests::results();
        input.add(Path::new("c.json"), serde_json::to_value(&results).unwrap()).unwrap();
        assert_eq!(input.comparisons[0].summary.len(), 2, "computed anew");
    }
}
