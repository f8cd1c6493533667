//! Comparisons of the floor and the real server, and the page made of one. Meanings are checked, never speed.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{TOOL, run};

/// A comparison file of floor and fantail, and one whose program nobody has.
fn write_file(folder: &Path) -> PathBuf {
    let fantail = Path::new(TOOL).with_file_name("fantail");
    let fantail = fantail.to_str().unwrap();
    let server = |name: &str, start: &[&str], more: &str| {
        let url = r#"{ connect = "ws://127.0.0.1:{port}/echo", echo = "ws://127.0.0.1:{port}/echo" }"#;
        format!(
            "[[server]]\nname = \"{name}\"\nyear = 2026\nstart = {start:?}\nsettings = \"<None> & so on\"\nurl = {url}\n{more}\n"
        )
    };
    let text = [
        "rounds = 5\nserver_cpus = \"0\"\nclient_cpu = 1\n".to_owned(),
        server("floor", &[TOOL, "floor", "--listen", "127.0.0.1:{port}"], "version = \"1.2.3\""),
        server(
            "fantail",
            &[fantail, "serve", "--listen", "127.0.0.1:{port}", "--admin", "127.0.0.1:0", "--workers", "1", "--echo"],
            &format!(
                "version_command = [{fantail:?}, \"--version\"]\nold = \"a newer one is to come\"\nenv = {{ MARK = \"{}\" }}",
                folder.display()
            ),
        ),
        server("nobody", &["no-such-program"], "required = false"),
        server("ill", &["sh", "-c", "echo no way >&2; exit 3"], "required = false"),
        "[[test]]\nname = \"echo\"\ntitle = \"Echo\"\nurl = \"echo\"\n".to_owned(),
        "command = [\"echo\", \"--connections\", \"4\", \"--duration\", \"500ms\", \"--warmup\", \"100ms\"]\n".to_owned(),
        "[[test]]\nname = \"connect\"\ntitle = \"Connections\"\nurl = \"connect\"\n".to_owned(),
        "command = [\"connect\", \"--concurrency\", \"4\", \"--duration\", \"500ms\", \"--warmup\", \"100ms\"]\n".to_owned(),
    ];
    let path = folder.join("compare.toml");
    std::fs::write(&path, text.concat()).unwrap();
    path
}

/// The processes that this comparison's second server left behind: nobody else has its folder in its environment.
fn servers_of(folder: &Path) -> Vec<String> {
    let mark = format!("MARK={}", folder.display());
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let is_marked = |pid: &String| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|&byte| byte == 0).any(|entry| entry == mark.as_bytes())
    };
    all.map(|entry| entry.file_name().to_string_lossy().into_owned()).filter(is_marked).collect()
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

#[test]
fn two_servers_are_compared_and_a_page_is_made_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let (file, json, page) = (write_file(folder.path()), folder.path().join("r.json"), folder.path().join("r.html"));
    let output = run(&["compare", file.to_str().unwrap(), "--rounds", "2", "-o", json.to_str().unwrap()]);
    let errors = String::from_utf8(output.stderr).unwrap();
    // Whether a run is valid depends on the machine.
    assert!(matches!(output.status.code(), Some(0 | 3)), "{:?}: {errors}", output.status);
    assert!(errors.contains("nobody is left out: no-such-program is not installed"), "{errors}");
    assert!(errors.contains("3 servers, 2 tests, 2 rounds: 12 runs, some "), "{errors}");
    assert_eq!(servers_of(folder.path()), [] as [String; 0], "servers are gone with the comparison");
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.contains("echo: Echo") && table.contains("to floor"), "{table}");
    assert!(table.contains("ill was left out: sh: it ended: exit status: 3"), "{table}");

    let results = read(&json);
    check_runs(&results);
    check_summary(&results);
    check_page(&json, &page, &results);
    check_ranking(&page, results);
}

/// Every server has its runs, in alternating order, each with all of its JSON.
fn check_runs(results: &Value) {
    assert_eq!(results["kind"], "comparison");
    assert!(text(&results["started"]).ends_with('Z'), "{results:#}");
    assert!(results["machine"]["sysctls"]["net.core.somaxconn"].is_string(), "{:#}", results["machine"]);
    let runs = results["runs"].as_array().unwrap();
    let order: Vec<(&str, u64, &str)> =
        runs.iter().map(|run| (text(&run["test"]), run["round"].as_u64().unwrap(), text(&run["server"]))).collect();
    let forward = |test, round| [(test, round, "floor"), (test, round, "fantail")];
    let backward = |test, round| [(test, round, "fantail"), (test, round, "floor")];
    let expected = [forward("echo", 1), forward("connect", 1), backward("echo", 2), backward("connect", 2)].concat();
    assert_eq!(order, expected);
    for (number, run) in runs.iter().enumerate() {
        assert_eq!((run["order"].as_u64(), &run["error"]), (Some(number as u64 + 1), &Value::Null), "{run:#}");
        assert_eq!(run["run"]["command"], run["test"]);
        assert!(run["run"]["operations"].as_u64().unwrap() > 0, "{run:#}");
        let latencies = run["run"]["latencies"].as_object().unwrap();
        assert!(latencies.values().all(|latency| latency["hdr_v2_base64"].is_string()), "raw histograms");
    }
    assert_eq!(results["warmups"].as_array().unwrap().len(), 4, "each server for each test");
    let version = text(&results["servers"][1]["version"]);
    assert_eq!(version, env!("CARGO_PKG_VERSION"), "as the server says itself");
    assert_eq!(results["servers"][2]["missing"], "no-such-program is not installed");
    let failure = "sh: it ended: exit status: 3; the last it printed: no way";
    assert_eq!(results["servers"][3]["missing"], failure, "who need not be there and does not start is no reason to stop");
}

/// Medians are those of the runs, intervals contain them, and ratios are of the same round.
fn check_summary(results: &Value) {
    let cells = results["summary"].as_array().unwrap();
    assert_eq!(cells.len(), 4);
    for cell in cells {
        let estimates = cell["values"].as_object().unwrap().iter().chain(cell["ratios"].as_object().unwrap());
        for (name, estimate) in estimates {
            let median = estimate["median"].as_f64().unwrap();
            let bound = |field: &str, nothing: f64| estimate[field].as_f64().unwrap_or(nothing);
            let is_within = bound("low", f64::NEG_INFINITY) <= median && median <= bound("high", f64::INFINITY);
            assert!(is_within, "{name}: {estimate}");
        }
        assert_eq!(cell["base"], "floor");
        let count = |field: &str| cell[field].as_u64().unwrap();
        let flaws = cell["flaws"].as_array().unwrap().len() as u64;
        assert_eq!((cell["runs"].as_u64(), count("runs_spoilt") + count("runs_of_busy_tool")), (Some(2), flaws), "{cell:#}");
        let is_doubtful = |name: &str| cell["doubtful"].as_array().unwrap().iter().any(|other| other == name);
        assert_eq!(is_doubtful("per_second"), flaws == 2, "{cell:#}");
        assert_eq!(is_doubtful("cpu_us"), count("runs_spoilt") == 2, "a busy tool says nothing against CPU time: {cell:#}");
    }
    let rates: HashMap<(&str, u64), f64> = results["runs"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|run| run["test"] == "echo")
        .map(|run| {
            ((text(&run["server"]), run["round"].as_u64().unwrap()), run["run"]["operations_per_second"].as_f64().unwrap())
        })
        .collect();
    let possible = [1, 2].map(|round| rates[&("fantail", round)] / rates[&("floor", round)]);
    let fantail = cells.iter().find(|cell| cell["test"] == "echo" && cell["server"] == "fantail").unwrap();
    if let Some(ratio) = fantail["ratios"]["per_second"]["median"].as_f64() {
        let both = (possible[0] + possible[1]) / 2.0;
        assert!(possible.into_iter().chain([both]).any(|one| (one - ratio).abs() < 1e-9), "{ratio} of {possible:?}");
    }
}

/// The page stands alone, says what was found, and says nothing that the file could smuggle in.
fn check_page(json: &Path, page: &Path, results: &Value) {
    let picture = page.with_extension("svg");
    let [json, page_name, picture_name] = [json, page, &picture].map(|path| path.to_str().unwrap());
    let output = run(&["report", json, "-o", page_name, "--plot", picture_name]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let html = std::fs::read_to_string(page).unwrap();
    for part in [
        "<h1>WebSocket servers compared</h1>",
        "fantail 0.1.0",
        "floor 1.2.3",
        "a newer one is to come",
        "&lt;None&gt; &amp; so on",
        "no-such-program is not installed.",
        "the last it printed: no way.",
        "net.core.somaxconn",
        "<caption>",
        "scope=\"row\"",
        "prefers-color-scheme: dark",
        "Latency by percentile: round trip",
        "With fewer than five rounds",
    ] {
        assert!(html.contains(part), "no {part}");
    }
    assert!(!html.contains("<script") && !html.contains("<None>"), "nothing runs in it");
    let foreign = html.match_indices("http").filter(|(at, _)| !html[*at..].starts_with("http://www.w3.org/2000/svg"));
    assert_eq!(foreign.count(), 0, "nothing is fetched");
    assert_eq!(html.matches("<svg").count(), html.matches("</desc>").count(), "every picture has words");
    assert!(html.contains(text(&results["commit"]["id"])) || results["commit"].is_null());
    let svg = std::fs::read_to_string(&picture).unwrap();
    assert!(svg.starts_with("<svg") && svg.contains("<style>") && svg.contains("fantail") && svg.contains("Echo"), "{svg}");
}

/// Of six rounds with given costs, servers are ranked where the interval of their ratio does not contain 1, and only there.
fn check_ranking(page: &Path, mut results: Value) {
    // Of fantail in the six rounds; the floor always costs 10.
    let costs = [("echo", [20.0, 21.0, 19.0, 22.0, 20.0, 18.0]), ("connect", [20.0, 9.0, 11.0, 8.0, 9.5, 12.0])];
    let measured = std::mem::take(results["runs"].as_array_mut().unwrap());
    for (test, costs) in costs {
        for (round, cost) in costs.into_iter().enumerate() {
            for run in measured.iter().filter(|run| run["test"] == test && run["round"] == 1) {
                let mut run = run.clone();
                run["round"] = (round + 1).into();
                (run["run"]["doubts"], run["run"]["busy_tool"]) = ([(); 0].into(), [(); 0].into());
                let cost = if run["server"] == "floor" { 10.0 } else { cost };
                run["run"]["server_cpu"] = serde_json::json!({ "us_per_operation": cost });
                results["runs"].as_array_mut().unwrap().push(run);
            }
        }
    }
    let json = page.with_extension("json");
    std::fs::write(&json, results.to_string()).unwrap();
    let output = run(&["report", json.to_str().unwrap(), "-o", page.to_str().unwrap()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let html = std::fs::read_to_string(page).unwrap();
    for (test, is_ranked) in [("echo", true), ("connect", false)] {
        let section = &html[html.find(&format!("<section id=\"{test}\">")).unwrap()..];
        let table = &section[..section.find("</table>").unwrap()];
        assert_eq!(!table.contains("scope=\"rowgroup\""), is_ranked, "{test}: {table}");
    }
}

#[test]
fn ctrl_c_stops_the_servers_and_keeps_what_was_measured() {
    let folder = tempfile::tempdir().unwrap();
    let (file, json) = (write_file(folder.path()), folder.path().join("r.json"));
    // Nobody reads what it says meanwhile.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let compare = Command::new(TOOL)
        .args(["compare", file.to_str().unwrap(), "--rounds", "50", "--test", "echo", "-o", json.to_str().unwrap()])
        .stdout(Stdio::piped())
        .stderr(writer)
        .spawn()
        .unwrap();
    // The file is written after the first round.
    wait_for(|| json.exists());
    assert_eq!(servers_of(folder.path()).len(), 1, "in the middle of it the server is there");
    interrupt(&compare);
    let output = compare.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert_eq!(servers_of(folder.path()), [] as [String; 0]);
    let results = read(&json);
    let runs = results["runs"].as_array().unwrap().len();
    assert!(results["interrupted"] == true && (2..100).contains(&runs), "{runs} runs");
    assert!(String::from_utf8(output.stdout).unwrap().contains("echo: Echo"), "what there is is shown");
}

#[test]
fn what_cannot_be_compared_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let path = write_file(folder.path());
    let path_name = path.to_str().unwrap();
    let original = std::fs::read_to_string(&path).unwrap();
    let floor = format!("{:?}", [TOOL, "floor", "--listen", "127.0.0.1:{port}"]);
    for (from, to, words) in [
        (
            floor.as_str(),
            r#"["sh", "-c", "echo too bad >&2; exit 3"]"#,
            "sh: it ended: exit status: 3; the last it printed:\ntoo bad",
        ),
        ("required = false", "required = true", "nobody: no-such-program is not installed; --skip-missing compares the others"),
        ("title = \"Echo\"", "titel = \"Echo\"", "titel"),
        ("server_cpus = \"0\"", "server_cpus = \"900\"", "may not run on CPU 900"),
    ] {
        let text = original.replacen(from, to, 1);
        assert_ne!(text, original, "{from}");
        std::fs::write(&path, text).unwrap();
        let output = run(&["compare", path_name, "--test", "echo"]);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{errors}");
        assert!(errors.contains(words), "{errors}");
        assert_eq!(servers_of(folder.path()), [] as [String; 0]);
    }
    let output = run(&["report", path_name, "-o", "/dev/null"]);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && errors.contains("compare.toml: "), "{errors}");
}

fn wait_for(condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < Duration::from_secs(60), "it does not happen");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn interrupt(child: &Child) {
    let status = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(status.success());
}
