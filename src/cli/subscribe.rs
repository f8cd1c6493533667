//! `fantail sub`: prints what is published, and comes back when the connection ends.
//!
//! Standard output carries messages alone; why a connection ended, and that messages may be missing, goes to stderr.

use std::io::{self, Write};
use std::num::NonZeroU64;
use std::time::Instant;

use super::backoff::Backoff;
use super::ending::Ending;
use super::interrupt::Interrupt;
use super::printer::{Form, Printer};
use super::session::Session;
use super::target::Target;
use super::{Failure, Status};
use crate::frame::{Pattern, Since};
use crate::words::ChoiceError;

/// What to subscribe to, and where.
#[derive(Debug, clap::Args)]
pub(super) struct Subscribe {
    /// Topics to subscribe to, or patterns: 'news/*' is one segment, 'news/**' one or more
    #[arg(required = true, value_name = "TOPIC", value_parser = Pattern::parse)]
    topics: Vec<Pattern>,
    /// Address of the server (or FANTAIL_URL)
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080", env = "FANTAIL_URL", hide_env = true)]
    url: Target,
    /// Begin with what was published before: earliest, a time such as 10m, or, of one topic, a cursor
    #[arg(long, value_name = "WHERE", value_parser = parse_since)]
    since: Option<String>,
    /// Print each message as a JSON object, binary data as base64
    #[arg(long)]
    json: bool,
    /// End after this many messages
    #[arg(long, value_name = "N", value_parser = parse_count)]
    count: Option<NonZeroU64>,
    /// End with the connection, do not come back
    #[arg(long)]
    once: bool,
}

pub(super) const AFTER_HELP: &str = "\
Prints a message a line; of several topics or a pattern, each line as TOPIC,
tab, message.
A message that holds line ends prints as several lines: --json prints each
message as one, whatever it holds.
Comes back when the connection ends, after 0 to 0.5 s at first, at most 20 s,
and then prints what it missed of one topic, or says that something is missing.
Exit status: 0 all of --count printed, or stdout closed, 1 refused,
unreachable at the start, or ended with --once, 2 wrong usage, 130 Ctrl-C";

impl Subscribe {
    /// Prints until it is done, refused or interrupted.
    pub(super) fn run(&self) -> Result<(), Failure> {
        let interrupt = Interrupt::watch().map_err(|error| Failure::runtime(format!("Ctrl-C can't be watched: {error}")))?;
        let printer = Printer::new(io::stdout().lock(), io::stderr(), self.form(), self.count.map(NonZeroU64::get));
        self.print_all(printer, &interrupt, Backoff::suggested())
    }

    fn print_all<W: Write, N: Write>(
        &self,
        mut printer: Printer<W, N>,
        interrupt: &Interrupt,
        mut backoff: Backoff,
    ) -> Result<(), Failure> {
        let mut was_connected = false;
        loop {
            let began = Instant::now();
            let ending =
                self.connect(&mut was_connected, &mut printer).map(|mut session| session.receive(&mut printer, interrupt));
            let (why, retry_after) = match ending.unwrap_or_else(|ending| ending) {
                Ending::Done => return Ok(()),
                Ending::Interrupted => return Err(Failure::silent(Status::Interrupted)),
                Ending::Final(failure) => return Err(failure),
                // At the start it is likeliest that the address is wrong; later, that the server starts again.
                Ending::Unreachable(why) if !was_connected => {
                    return Err(Failure::runtime(why).with_fix("Start the server, or name it with --url."));
                }
                Ending::Unreachable(why) => (why, None),
                Ending::Lost { why, retry_after } => (why, retry_after),
            };
            if self.once {
                return Err(Failure::runtime(why));
            }
            backoff.lasted(began.elapsed());
            let delay = backoff.next(retry_after);
            printer.note(&format!("{why}; connecting again in {:.1} s", delay.as_secs_f64()));
            interrupt.sleep(delay);
            if interrupt.is_set() {
                return Err(Failure::silent(Status::Interrupted));
            }
        }
    }

    /// Connects, behind the last message of the one topic if there was one. A cursor is of one topic: of several, or of a pattern, what
    /// was missed can't be asked for yet.
    fn connect<W: Write, N: Write>(&self, was_connected: &mut bool, printer: &mut Printer<W, N>) -> Result<Session, Ending> {
        let cursor = printer.cursor().filter(|_| self.has_one_topic()).map(str::to_owned);
        let since = cursor.as_deref().or(self.since.as_deref().filter(|_| !*was_connected));
        let session = Session::open(&self.url, &self.url.subscribe_url(&self.topics, since))?;
        if std::mem::replace(was_connected, true) {
            printer.note(match cursor {
                Some(_) => "connected again; what was published meanwhile follows",
                None => "connected again; what was published meanwhile is missing",
            });
        }
        Ok(session)
    }

    fn form(&self) -> Form {
        match (self.json, self.has_one_topic()) {
            (true, _) => Form::Json,
            (false, true) => Form::Payload,
            (false, false) => Form::TopicAndPayload,
        }
    }

    fn has_one_topic(&self) -> bool {
        matches!(self.topics[..], [ref topic] if !topic.has_wildcard())
    }
}

fn parse_count(text: &str) -> Result<NonZeroU64, ChoiceError> {
    text.parse().map_err(|_| ChoiceError { accepted: "give a whole number, at least 1" })
}

fn parse_since(text: &str) -> Result<String, ChoiceError> {
    let accepted = "give earliest, latest, a time such as 10m, or a cursor as the server gave it";
    text.parse::<Since>().map(|_| text.to_owned()).map_err(|_| ChoiceError { accepted })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::thread::{self, JoinHandle};
    use std::time::Duration;

    use clap::Parser;
    use tungstenite::handshake::server::{ErrorResponse, Request, Response};
    use tungstenite::protocol::CloseFrame;
    use tungstenite::{Message, WebSocket, accept_hdr};

    #[derive(Debug, Parser)]
    struct Words {
        #[command(flatten)]
        subscribe: Subscribe,
    }

    /// What a connection's server does after the handshake.
    type Scene = fn(&mut WebSocket<TcpStream>);

    /// A server of one scene a connection; it hands back the targets that were asked for.
    fn serve(scenes: Vec<Scene>) -> (String, JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = thread::spawn(move || scenes.into_iter().map(|scene| play(&listener, scene)).collect());
        (url, server)
    }

    fn play(listener: &TcpListener, scene: Scene) -> String {
        let mut target = String::new();
        #[expect(clippy::result_large_err, reason = "the callback's type is tungstenite's")]
        let note_target = |request: &Request, response: Response| -> Result<Response, ErrorResponse> {
            target = request.uri().to_string();
            Ok(response)
        };
        scene(&mut accept_hdr(listener.accept().unwrap().0, note_target).unwrap());
        target
    }

    fn say(socket: &mut WebSocket<TcpStream>, text: &'static str) {
        socket.send(Message::text(text)).unwrap();
    }

    fn close(socket: &mut WebSocket<TcpStream>, code: u16, reason: &'static str) {
        socket.close(Some(CloseFrame { code: code.into(), reason: reason.into() })).unwrap();
        read_to_end(socket);
    }

    fn read_to_end(socket: &mut WebSocket<TcpStream>) {
        while socket.read().is_ok() {}
    }

    fn subscribe(words: &[&str], url: &str) -> Subscribe {
        Words::parse_from(["sub", "--url", url].iter().chain(words)).subscribe
    }

    /// Result, output, notes.
    fn print_all(words: &[&str], url: &str) -> (Result<(), Failure>, String, String) {
        let (mut output, mut notes) = (Vec::new(), Vec::new());
        let backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(1));
        let subscribe = subscribe(words, url);
        let printer = Printer::new(&mut output, &mut notes, subscribe.form(), subscribe.count.map(NonZeroU64::get));
        let result = subscribe.print_all(printer, &Interrupt::default(), backoff);
        (result, String::from_utf8(output).unwrap(), String::from_utf8(notes).unwrap())
    }

    #[test]
    fn messages_are_lines_until_the_count() {
        let (url, server) = serve(vec![|socket| {
            say(socket, r#"{"type":"message","topic":"a b","cursor":"k.1","text":"one"}"#);
            socket.send(Message::Ping("x".into())).unwrap();
            say(socket, r#"{"type":"message","topic":"a b","cursor":"k.2","base64":"dHdv"}"#);
            say(socket, r#"{"type":"message","topic":"a b","cursor":"k.3","text":"three"}"#);
            read_to_end(socket);
        }]);
        assert_eq!(print_all(&["a b", "--count=2"], &url), (Ok(()), "one\ntwo\n".into(), String::new()));
        assert_eq!(server.join().unwrap(), ["/topics/a%20b?envelope"]);
    }

    #[test]
    fn a_pattern_tells_each_topic() {
        let (url, server) = serve(vec![|socket| {
            say(socket, r#"{"type":"message","topic":"a/b","cursor":"k.1","text":"x"}"#);
            read_to_end(socket);
        }]);
        assert_eq!(print_all(&["a/*", "--count=1"], &url).1, "a/b\tx\n");
        assert_eq!(server.join().unwrap(), ["/topics/a/%2A?envelope"]);
    }

    #[test]
    fn several_topics_ask_for_envelopes() {
        let (url, server) = serve(vec![|socket| {
            say(socket, r#"{"type":"message","topic":"a","text":"x"}"#);
            read_to_end(socket);
        }]);
        assert_eq!(print_all(&["a", "b/c", "--count=1"], &url).1, "a\tx\n");
        assert_eq!(server.join().unwrap(), ["/topics?topic=a&topic=b/c&envelope"]);
    }

    #[test]
    fn it_comes_back_and_says_why_it_was_away() {
        let (url, server) = serve(vec![
            |socket| close(socket, 1001, r#"{"cause":"drain","retry_after_ms":20}"#),
            |socket| say(socket, r#"{"type":"message","topic":"a","cursor":"k.1","text":"back"}"#),
            |socket| say(socket, r#"{"type":"message","topic":"a","cursor":"k.2","text":"again"}"#),
        ]);
        let (result, output, notes) = print_all(&["a", "--count=2", "--since=earliest"], &url);
        assert_eq!((result, output.as_str()), (Ok(()), "back\nagain\n"));
        let notes: Vec<_> = notes.lines().collect();
        assert_eq!(
            notes[0],
            "fantail: the server closed the connection: it is stopping (1001, drain); connecting again in 0.0 s"
        );
        assert_eq!(notes[1], "fantail: connected again; what was published meanwhile is missing");
        assert!(notes[2].starts_with("fantail: the connection ended without a close"), "{notes:?}");
        assert_eq!(notes[3], "fantail: connected again; what was published meanwhile follows");
        let targets = server.join().unwrap();
        let since = |at: usize| targets[at].split_once("since=").map(|(_, since)| since);
        assert_eq!([since(0), since(1), since(2)], [Some("earliest"), None, Some("k.1")]);
    }

    #[test]
    fn once_ends_with_the_connection() {
        let (url, server) = serve(vec![|socket| close(socket, 1013, r#"{"cause":"slow_consumer"}"#)]);
        let failure = print_all(&["a", "--once"], &url).0.unwrap_err();
        assert!(failure.message.unwrap().contains("too slow"));
        assert_eq!(failure.status, Status::Runtime);
        server.join().unwrap();
    }

    #[test]
    fn a_refusal_is_final() {
        let (url, server) = serve(vec![|socket| close(socket, 4003, "")]);
        assert!(print_all(&["a"], &url).0.unwrap_err().message.unwrap().contains("not allowed (4003, forbidden)"));
        server.join().unwrap();
    }

    /// Head and body come apart, and the server waits: the body's length says where it ends.
    #[test]
    fn a_refused_handshake_shows_the_problem() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            stream.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 33\r\n\r\n").unwrap();
            thread::sleep(Duration::from_millis(50));
            stream.write_all(br#"{"title":"No","fix":"Ask Ann."}  "#).unwrap();
            stream
        });
        assert_eq!(print_all(&["a"], &url).0, Err(Failure::runtime("the server answers 403: No").with_fix("Ask Ann.")));
        server.join().unwrap();
    }

    #[test]
    fn an_unreachable_server_ends_it_at_the_start() {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let failure = print_all(&["a"], &format!("http://{address}")).0.unwrap_err();
        assert!(failure.message.unwrap().starts_with(&format!("{address} can't be reached")));
    }

    #[test]
    fn ctrl_c_closes_in_order() {
        let (url, server) = serve(vec![|socket| {
            let frame = match socket.read().unwrap() {
                Message::Close(frame) => frame.unwrap(),
                other => panic!("{other}"),
            };
            assert_eq!(u16::from(frame.code), 1000);
            read_to_end(socket);
        }]);
        let interrupt = Interrupt::default();
        let presser = interrupt.clone();
        thread::spawn(move || {
            thread::sleep(Duration::from_millis(50));
            presser.press();
        });
        let printer = Printer::new(Vec::new(), Vec::new(), Form::Payload, None);
        let result = subscribe(&["a"], &url).print_all(printer, &interrupt, Backoff::suggested());
        assert_eq!(result, Err(Failure::silent(Status::Interrupted)));
        server.join().unwrap();
    }

    /// A pipe whose reader is gone.
    struct Gone;

    impl Write for Gone {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_closed_stdout_ends_it_quietly() {
        let (url, server) = serve(vec![|socket| {
            say(socket, r#"{"type":"message","topic":"a","cursor":"k.1","text":"one"}"#);
            read_to_end(socket);
        }]);
        let mut notes = Vec::new();
        let printer = Printer::new(Gone, &mut notes, Form::Payload, None);
        let result = subscribe(&["a"], &url).print_all(printer, &Interrupt::default(), Backoff::suggested());
        assert_eq!((result, notes), (Ok(()), vec![]));
        server.join().unwrap();
    }
}
