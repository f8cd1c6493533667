//! One connection of a subscriber, from the handshake to its end.
//!
//! ```text
//! connect -> handshake -> receive ... -> Ending
//!               |            silence longer than the server's own rhythm: ping; no byte after that: lost
//!               +-> refused: final, or to be tried again (408, 429, 5xx)
//! ```

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use tungstenite::client::client_with_config;
use tungstenite::handshake::HandshakeError;
use tungstenite::handshake::client::Response;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tungstenite::{Bytes, Error, Message, WebSocket, error::ProtocolError};

use super::ending::{self, Ending};
use super::interrupt::{Interrupt, LOOK_INTERVAL};
use super::printer::{PrintError, Printer};
use super::target::Target;
use super::{failure, problem};

/// A subscription in force.
pub(super) struct Session {
    socket: WebSocket<TcpStream>,
    /// How long the server may be silent.
    silence_max: Duration,
}

impl Session {
    /// Connects and subscribes by the handshake to `url`, which is one of `target`'s.
    pub(super) fn open(target: &Target, url: &str) -> Result<Self, Ending> {
        let unreachable = |error: io::Error| Ending::Unreachable(failure::unreachable(target.authority(), &error));
        let stream = target.connect(HANDSHAKE_TIMEOUT).map_err(unreachable)?;
        stream.set_read_timeout(Some(HANDSHAKE_TIMEOUT)).map_err(unreachable)?;
        // A second handle on the socket, to read a refusal's body to its end.
        let refusing = stream.try_clone().map_err(unreachable)?;
        let limits = WebSocketConfig::default().max_message_size(Some(MESSAGE_BYTES_MAX)).max_frame_size(Some(MESSAGE_BYTES_MAX));
        let (socket, answer) = client_with_config(url, stream, Some(limits)).map_err(|error| of_handshake(error, refusing))?;
        socket.get_ref().set_read_timeout(Some(LOOK_INTERVAL)).map_err(unreachable)?;
        Ok(Self { socket, silence_max: silence_max(&answer) })
    }

    /// Prints what comes until the connection ends.
    pub(super) fn receive<W: Write, N: Write>(&mut self, printer: &mut Printer<W, N>, interrupt: &Interrupt) -> Ending {
        let mut last_heard = Instant::now();
        let mut pinged = false;
        loop {
            if interrupt.is_set() {
                self.close();
                return Ending::Interrupted;
            }
            match self.socket.read() {
                Ok(message) => {
                    (last_heard, pinged) = (Instant::now(), false);
                    if let Some(ending) = self.take(&message, printer) {
                        return ending;
                    }
                }
                Err(Error::Io(error)) if is_timeout(&error) => {
                    if let Some(ending) = self.watch_silence(last_heard.elapsed(), &mut pinged) {
                        return ending;
                    }
                }
                Err(error) => return of_read(&error),
            }
        }
    }

    /// Prints a message; ends with the server's close, with the last message asked for, and with whoever read stdout.
    fn take<W: Write, N: Write>(&mut self, message: &Message, printer: &mut Printer<W, N>) -> Option<Ending> {
        let printed = match message {
            Message::Text(text) => printer.print(text.as_bytes()),
            Message::Binary(bytes) => printer.print(bytes),
            Message::Close(frame) => {
                // The answer is queued already; a server that is gone does not need it.
                let _ = self.socket.flush();
                return Some(ending::of_close(frame.as_ref()));
            }
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => return None,
        };
        let ending = match printed {
            Ok(()) if !printer.is_done() => return None,
            Ok(()) => Ending::Done,
            Err(PrintError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ending::Done,
            Err(error) => Ending::Final(super::Failure::runtime(error.to_string())),
        };
        self.close();
        Some(ending)
    }

    /// A server that is there pings; one that is silent for longer is asked once, and then given up.
    fn watch_silence(&mut self, silence: Duration, pinged: &mut bool) -> Option<Ending> {
        if silence >= self.silence_max + PONG_TIMEOUT {
            return Some(Ending::lost(format!("nothing came from the server for {} s", silence.as_secs())));
        }
        if silence >= self.silence_max && !*pinged {
            *pinged = true;
            return self.socket.send(Message::Ping(Bytes::new())).err().map(|error| of_read(&error));
        }
        None
    }

    /// Says that this end leaves, and waits a moment for the server to say so too, so that it counts an end in order.
    fn close(&mut self) {
        let frame = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        let deadline = Instant::now() + CLOSE_TIMEOUT;
        let mut left = self.socket.close(Some(frame));
        while Instant::now() < deadline && left.as_ref().err().is_none_or(is_pause) {
            left = self.socket.read().map(drop);
        }
    }
}

/// A refusal's head and body, and what to do about it.
fn of_handshake(error: HandshakeError<tungstenite::ClientHandshake<TcpStream>>, refusing: TcpStream) -> Ending {
    match error {
        HandshakeError::Interrupted(_) => Ending::lost(format!("the server did not answer in {} s", HANDSHAKE_TIMEOUT.as_secs())),
        HandshakeError::Failure(Error::Http(response)) => of_refusal(&response, refusing),
        HandshakeError::Failure(Error::Io(error)) => Ending::lost(format!("the connection failed: {error}")),
        HandshakeError::Failure(error) => Ending::lost(format!("the handshake failed: {error}")),
    }
}

fn of_refusal(response: &Response, refusing: TcpStream) -> Ending {
    let header = |name| response.headers().get(name)?.to_str().ok()?.trim().parse::<u64>().ok();
    let mut body = response.body().clone().unwrap_or_default();
    let length = header("content-length").map_or(problem::BODY_BYTES_MAX, |length| length as usize).min(problem::BODY_BYTES_MAX);
    // What can't be read in time is left out of the message.
    let _ = refusing.take(length.saturating_sub(body.len()) as u64).read_to_end(&mut body);
    let failure = problem::describe(response.status().as_u16(), &body);
    match response.status().as_u16() {
        408 | 429 | 500.. => {
            let why = failure.message.unwrap_or_default();
            Ending::Lost { why, retry_after: header("retry-after").map(Duration::from_secs) }
        }
        _ => Ending::Final(failure),
    }
}

fn of_read(error: &Error) -> Ending {
    match error {
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
            Ending::lost("the connection ended without a close: the server or the network is gone")
        }
        Error::Io(error) => Ending::lost(format!("the connection failed: {error}")),
        error => Ending::lost(format!("the connection failed: {error}")),
    }
}

/// The server's own rhythm, as the handshake tells it: `Keep-Alive: timeout=N`.
fn silence_max(answer: &Response) -> Duration {
    let keep_alive = answer.headers().get("keep-alive").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let told = keep_alive.split(',').find_map(|part| part.trim().strip_prefix("timeout=")?.parse().ok());
    told.map_or(SILENCE_MAX, Duration::from_secs).max(Duration::from_secs(1))
}

/// A read that ended because nothing came in time; the socket is as good as before.
fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}

fn is_pause(error: &Error) -> bool {
    matches!(error, Error::Io(error) if is_timeout(error))
}

/// The largest message that is taken: the largest `--max-message-size` there is, in base64 and with its envelope.
const MESSAGE_BYTES_MAX: usize = 1536 * 1024 * 1024;

/// How long connecting to one address may take, and then the server's answer.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a server may be silent that did not say: over twice the default `--ping-interval`.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// How long a server has to answer a ping.
const PONG_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a server has to answer a close; a person waits meanwhile.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);
