//! The README says what is so: its chat is the file, its flags and defaults are those of the help.

use std::process::Command;

const README: &str = include_str!("../README.md");

#[test]
fn the_chat_is_the_file() {
    let chat = include_str!("../docs/chat.html");
    assert!(README.contains(&format!("```html\n{chat}```\n")), "README.md shows another chat than docs/chat.html");
    assert_eq!(chat.lines().count(), 30);
}

#[test]
fn every_flag_stands_there_with_its_default() {
    let help = Command::new(env!("CARGO_BIN_EXE_fantail")).args(["serve", "--help"]).output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let table = README.split("\n## Flags\n").nth(1).and_then(|rest| rest.split("\n## ").next()).unwrap();
    let flags: Vec<(&str, Option<String>)> = help.split("\n      --").skip(1).map(flag).collect();
    assert!(flags.len() > 30, "{help}");
    for (name, default) in &flags {
        let entry = default.as_ref().map_or(format!("`--{name}`"), |default| format!("`--{name} {default}`"));
        assert!(table.contains(&entry), "README.md lacks {entry}");
    }
    let shown = table.matches("`--").count();
    // One more than there are flags: the sentence about variables has an example.
    assert_eq!(shown, flags.len() + 1, "README.md shows a flag that does not exist");
}

/// Name and default of one flag's part of the help.
fn flag(part: &str) -> (&str, Option<String>) {
    let name = part.split_whitespace().next().unwrap();
    let default = part.split("[default:").nth(1).and_then(|rest| rest.split_once("]\n").or_else(|| rest.rsplit_once(']')));
    (name, default.map(|(value, _)| value.split_whitespace().collect()))
}
