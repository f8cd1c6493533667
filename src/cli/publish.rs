//! `fantail pub`: each publication is one POST, each answer one line. Nothing is tried again: whether a publication whose answer got
//! lost was accepted is not known, and a second one would be seen twice. Whoever wants to try again gives it an idempotency key, and
//! runs the same command once more.

use std::ffi::OsString;
use std::io::{self, BufRead, Write};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use ureq::Agent;

use super::target::Target;
use super::{Failure, failure, problem};
use crate::engine::IdempotencyKey;
use crate::frame::{Topic, TopicError};
use crate::quantity::{QuantityError, TimeSpan};

/// What to publish, and where.
#[derive(Debug, clap::Args)]
pub(super) struct Publish {
    /// Topic to publish to
    #[arg(value_parser = parse_topic)]
    topic: Topic,
    /// What to publish; - or nothing reads stdin, each line a publication
    data: Option<OsString>,
    /// Address of the server (or FANTAIL_URL)
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080", env = "FANTAIL_URL", hide_env = true)]
    url: Target,
    /// What the data is: json, text or binary
    #[arg(long, value_name = "KIND", default_value = "text", value_parser = parse_content_type)]
    kind: ContentType,
    /// How long it may be kept for those who come back, in whole seconds; 0s is not at all
    #[arg(long, value_name = "TIME", value_parser = parse_ttl)]
    ttl: Option<u64>,
    /// Name of this publication: the server publishes it once, however often it is sent
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<IdempotencyKey>,
    /// Publish the whole of stdin as one
    #[arg(long)]
    whole: bool,
    /// Print each whole answer, not its cursor alone
    #[arg(long, conflicts_with = "quiet")]
    json: bool,
    /// Print no answers
    #[arg(long)]
    quiet: bool,
}

pub(super) const AFTER_HELP: &str = "\
Prints the cursor of each publication. Ends at the first that is refused.
Exit status: 0 all published, 1 refused or unreachable, 2 wrong usage";

/// The media type that makes the server take the data as the kind that was asked for.
type ContentType = &'static str;

pub(super) fn parse_topic(name: &str) -> Result<Topic, TopicError> {
    Topic::new(name)
}

/// Seconds, as the header counts them.
fn parse_ttl(text: &str) -> Result<u64, String> {
    let span: TimeSpan = text.parse().map_err(|error: QuantityError| error.to_string())?;
    let ttl = span.duration();
    if ttl.subsec_nanos() == 0 { Ok(ttl.as_secs()) } else { Err("give whole seconds, such as 30s".to_owned()) }
}

fn parse_content_type(kind: &str) -> Result<ContentType, &'static str> {
    match kind {
        "json" => Ok("application/json"),
        "text" => Ok("text/plain; charset=utf-8"),
        "binary" => Ok("application/octet-stream"),
        _ => Err("give json, text or binary"),
    }
}

impl Publish {
    /// Publishes what was given or what stdin brings.
    pub(super) fn run(&self) -> Result<(), Failure> {
        self.publish_all(io::stdin().lock(), io::stdout().lock())
    }

    fn publish_all(&self, mut input: impl BufRead, mut answers: impl Write) -> Result<(), Failure> {
        let is_one = self.whole || self.data.as_ref().is_some_and(|data| data != "-");
        if self.idempotency_key.is_some() && !is_one {
            return Err(Failure::usage("--idempotency-key is of one publication, and each line of stdin is one")
                .with_fix("Give the data as an argument, or --whole."));
        }
        let post = Post::new(self);
        let mut publish = |payload: &[u8]| {
            let answer = post.send(payload)?;
            self.print(&answer, &mut answers)
        };
        match &self.data {
            Some(data) if data != "-" => publish(data.as_bytes()),
            _ if self.whole => {
                let mut payload = Vec::new();
                input.read_to_end(&mut payload).map_err(|error| unreadable(&error))?;
                publish(&payload)
            }
            _ => each_line(input, publish),
        }
    }

    fn print(&self, answer: &[u8], answers: &mut impl Write) -> Result<(), Failure> {
        let line = match (self.quiet, self.json) {
            (true, _) => return Ok(()),
            (_, true) => answer.trim_ascii().to_owned(),
            _ => cursor_of(answer)?.into_bytes(),
        };
        let written = answers.write_all(&line).and_then(|()| answers.write_all(b"\n")).and_then(|()| answers.flush());
        written.map_err(|error| Failure::runtime(format!("stdout can't be written: {error}")))
    }
}

/// The connection to the server, kept from one publication to the next.
struct Post {
    agent: Agent,
    server: String,
    url: String,
    /// Header lines: name and value.
    headers: Vec<(&'static str, String)>,
}

impl Post {
    fn new(publish: &Publish) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            // A proxy's headers would take a local request's rights away.
            .proxy(None)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_global(Some(ANSWER_TIMEOUT))
            .build();
        let mut headers = vec![("Content-Type", publish.kind.to_owned())];
        headers.extend(publish.ttl.map(|seconds| ("TTL", seconds.to_string())));
        headers.extend(publish.idempotency_key.as_ref().map(|key| ("Idempotency-Key", key.to_string())));
        Self {
            agent: config.into(),
            server: publish.url.authority().to_owned(),
            url: publish.url.publish_url(&publish.topic),
            headers,
        }
    }

    /// The body of the answer that accepted `payload`.
    fn send(&self, payload: &[u8]) -> Result<Vec<u8>, Failure> {
        let unreachable = |error: ureq::Error| {
            Failure::runtime(failure::unreachable(&self.server, &error.into_io()))
                .with_fix("Start the server, or name it with --url.")
        };
        let post = self.agent.post(&self.url);
        let post = self.headers.iter().fold(post, |post, (name, value)| post.header(*name, value));
        let mut answer = post.send(payload).map_err(unreachable)?;
        let status = answer.status().as_u16();
        let body = answer.body_mut().with_config().limit(problem::BODY_BYTES_MAX as u64).read_to_vec().map_err(unreachable)?;
        if status == 200 { Ok(body) } else { Err(problem::describe(status, &body)) }
    }
}

/// The server answers slower only when it is lost: its own longest wait, `--publish-timeout`, is 5 s.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Calls `publish` for each line, without its end.
fn each_line(mut input: impl BufRead, mut publish: impl FnMut(&[u8]) -> Result<(), Failure>) -> Result<(), Failure> {
    let mut line = Vec::new();
    while input.read_until(b'\n', &mut line).map_err(|error| unreadable(&error))? > 0 {
        let payload = line.strip_suffix(b"\n").unwrap_or(&line);
        publish(payload.strip_suffix(b"\r").unwrap_or(payload))?;
        line.clear();
    }
    Ok(())
}

fn cursor_of(answer: &[u8]) -> Result<String, Failure> {
    #[derive(serde::Deserialize)]
    struct Answer {
        cursor: String,
    }
    match serde_json::from_slice::<Answer>(answer) {
        Ok(answer) => Ok(problem::printable(&answer.cursor)),
        Err(_) => Err(Failure::runtime("the answer holds no cursor").with_fix("Is this the URL of a Fantail server?")),
    }
}

fn unreadable(error: &io::Error) -> Failure {
    Failure::runtime(format!("stdin can't be read: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};
    use std::thread::{self, JoinHandle};

    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Words {
        #[command(flatten)]
        publish: Publish,
    }

    /// The head and the body.
    type Request = (String, Vec<u8>);

    /// Answers `answers.len()` requests on one connection and hands back what it read.
    fn serve(answers: Vec<&'static str>) -> (String, JoinHandle<Vec<Request>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/push", listener.local_addr().unwrap());
        let server = thread::spawn(move || {
            let mut stream = io::BufReader::new(listener.accept().unwrap().0);
            answers.into_iter().map(|answer| exchange(&mut stream, answer)).collect()
        });
        (url, server)
    }

    fn exchange(stream: &mut io::BufReader<TcpStream>, answer: &str) -> Request {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(stream.read_line(&mut head).unwrap() > 0);
        }
        let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
        let mut body = vec![0; length.unwrap()];
        stream.read_exact(&mut body).unwrap();
        stream.get_mut().write_all(answer.as_bytes()).unwrap();
        (head, body)
    }

    fn publish(words: &[&str], url: &str, input: &[u8]) -> (Result<(), Failure>, String) {
        let words = ["pub", "--url", url].into_iter().chain(words.iter().copied());
        let mut answers = Vec::new();
        let result = Words::parse_from(words).publish.publish_all(input, &mut answers);
        (result, String::from_utf8(answers).unwrap())
    }

    const FIRST: &str = "HTTP/1.1 200 OK\r\nContent-Length: 18\r\n\r\n{\"cursor\":\"ab.1\"}\n";
    const SECOND: &str = "HTTP/1.1 200 OK\r\nContent-Length: 18\r\n\r\n{\"cursor\":\"ab.2\"}\n";
    const REFUSED: &str = "HTTP/1.1 403 Forbidden\r\nContent-Length: 30\r\n\r\n{\"title\":\"No\",\"fix\":\"Ask Ann\"}";

    #[test]
    fn data_is_one_publication() {
        let (url, server) = serve(vec![FIRST]);
        assert_eq!(publish(&["a b", "--kind=json", "{\"x\":1}"], &url, b"unread"), (Ok(()), "ab.1\n".into()));
        let (head, body) = server.join().unwrap().remove(0);
        assert!(head.starts_with("POST /push/topics/a%20b HTTP/1.1\r\n"), "{head}");
        assert!(head.to_lowercase().contains("content-type: application/json\r\n"), "{head}");
        assert_eq!(body, b"{\"x\":1}");
    }

    #[test]
    fn each_line_of_stdin_is_one_on_the_same_connection() {
        let (url, server) = serve(vec![FIRST, SECOND, FIRST]);
        assert_eq!(publish(&["chat", "-"], &url, b"one\r\n\ntwo").1, "ab.1\nab.2\nab.1\n");
        let bodies: Vec<_> = server.join().unwrap().into_iter().map(|(_, body)| body).collect();
        assert_eq!(bodies, [&b"one"[..], b"", b"two"]);
    }

    #[test]
    fn the_whole_of_stdin_can_be_one() {
        let (url, server) = serve(vec![FIRST]);
        assert_eq!(publish(&["chat", "--whole", "--json"], &url, b"one\ntwo\n").1, "{\"cursor\":\"ab.1\"}\n");
        assert_eq!(server.join().unwrap()[0].1, b"one\ntwo\n");
    }

    #[test]
    fn what_is_asked_for_stands_in_the_head() {
        let (url, server) = serve(vec![FIRST]);
        let words = ["chat", "x", "--ttl=5m", "--idempotency-key=order-7"];
        assert_eq!(publish(&words, &url, b"").0, Ok(()));
        let head = server.join().unwrap().remove(0).0.to_lowercase();
        assert!(head.contains("ttl: 300\r\n") && head.contains("idempotency-key: \"order-7\"\r\n"), "{head}");
        let (url, server) = serve(vec![FIRST]);
        assert_eq!(publish(&["chat", "x"], &url, b"").0, Ok(()));
        let head = server.join().unwrap().remove(0).0.to_lowercase();
        assert!(!head.contains("ttl:") && !head.contains("idempotency-key:"), "{head}");
        for (text, expected) in [("0s", Ok(0)), ("1000ms", Ok(1)), ("24h", Ok(86_400))] {
            assert_eq!(parse_ttl(text), expected);
        }
        assert!(parse_ttl("1500ms").is_err() && parse_ttl("30").is_err());
    }

    #[test]
    fn a_key_is_of_one_publication() {
        for words in [&["chat", "--idempotency-key=k"][..], &["chat", "-", "--idempotency-key=k"]] {
            assert!(publish(words, "http://127.0.0.1:1", b"one\ntwo\n").0.unwrap_err().to_string().contains("--whole"));
        }
    }

    #[test]
    fn the_first_refusal_ends_it() {
        let (url, server) = serve(vec![FIRST, REFUSED]);
        let (result, answers) = publish(&["chat", "--quiet"], &url, b"one\ntwo\nthree\n");
        assert_eq!(result, Err(Failure::runtime("the server answers 403: No").with_fix("Ask Ann")));
        assert_eq!(answers, "");
        assert_eq!(server.join().unwrap().len(), 2);
    }

    #[test]
    fn an_unreachable_server_is_named() {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let failure = publish(&["chat", "x"], &format!("http://127.0.0.1:{port}"), b"").0.unwrap_err();
        assert!(failure.message.unwrap().starts_with(&format!("127.0.0.1:{port} can't be reached: ")));
    }

    #[test]
    fn an_answer_without_a_cursor_is_none_of_ours() {
        assert!(cursor_of(b"<html>").unwrap_err().fix.unwrap().contains("Fantail"));
        assert!(parse_content_type("xml").is_err());
    }
}
