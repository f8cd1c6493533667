//! Echo and fan-out with fastwebsockets.
//!
//! Upgrade by hyper as its documentation has it, the stream split as in its `examples/echo_server_split.rs`, since `read_frame`
//! must not be cancelled and a subscriber reads and writes at the same time. `WebSocketWrite` would write each frame by itself
//! and encode it once per subscriber; the documentation offers frames without it ("you can use it as a raw websocket frame
//! parser"), so a message is encoded once by `Frame::write`, and a batch leaves with one write.

use std::future::poll_fn;
use std::io::{self, Cursor};
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::Poll;

use bytes::Bytes;
use fantail_peers::{BATCH_MAX, ECHO, Hub, Subscriber};
use fastwebsockets::upgrade::{UpgradeFut, upgrade};
use fastwebsockets::{FragmentCollectorRead, Frame, OpCode, Role, WebSocketError};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Chain};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc::UnboundedReceiver;

/// What hyper read too much, then the socket.
type Reader = FragmentCollectorRead<Chain<Cursor<Bytes>, OwnedReadHalf>>;

fn main() -> io::Result<()> {
    let hub = Hub::shared();
    fantail_peers::run(|stream| {
        let hub = Arc::clone(&hub);
        async move {
            let service = service_fn(|request| accept(request, Arc::clone(&hub)));
            // A connection that ends with an error ends all the same.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades().await;
        }
    })
}

async fn accept(mut request: Request<Incoming>, hub: Arc<Hub<Bytes>>) -> Result<Response<Empty<Bytes>>, WebSocketError> {
    let path = request.uri().path().to_owned();
    let (response, upgraded) = upgrade(&mut request)?;
    tokio::spawn(tokio::task::unconstrained(async move { serve(upgraded, &hub, &path).await.unwrap_or_default() }));
    Ok(response)
}

async fn serve(upgraded: UpgradeFut, hub: &Hub<Bytes>, path: &str) -> Result<(), WebSocketError> {
    let upgraded = upgraded.await?.into_inner().into_inner();
    let parts = upgraded.downcast::<TokioIo<TcpStream>>().expect("the type that was served");
    let (read, write) = parts.io.into_inner().into_split();
    let (read, _) =
        fastwebsockets::after_handshake_split(Cursor::new(parts.read_buf).chain(read), tokio::io::sink(), Role::Server);
    let reader = FragmentCollectorRead::new(read);
    if path == ECHO {
        return echo(reader, write).await;
    }
    let (subscriber, queue) = hub.subscribe(path);
    tokio::try_join!(publish_all(reader, subscriber), write_all(write, queue)).map(|_| ())
}

/// A frame without mask, ready to be sent to anybody.
fn encode(frame: Frame, out: &mut Vec<u8>) {
    let mut frame = Frame::new(true, frame.opcode, None, frame.payload);
    if out.is_empty() {
        let bytes = frame.write(out).len();
        out.truncate(bytes);
    } else {
        out.extend_from_slice(frame.write(&mut Vec::new()));
    }
}

async fn echo(mut reader: Reader, mut write: OwnedWriteHalf) -> Result<(), WebSocketError> {
    let out = Mutex::new(Vec::new());
    let echo = |frame: Frame| encode(frame, &mut out.lock().expect("a panic ends the process"));
    let mut answer = |frame: Frame| {
        echo(frame);
        async { Ok::<(), WebSocketError>(()) }
    };
    loop {
        let mut frame = pin!(reader.read_frame(&mut answer));
        // All that one read brought, then one write: while there is a whole frame, nothing is written.
        let ready = poll_fn(|context| Poll::Ready(frame.as_mut().poll(context))).await;
        let frame = match ready {
            Poll::Ready(frame) => frame?,
            Poll::Pending => {
                let batch = std::mem::take(&mut *out.lock().expect("a panic ends the process"));
                write.write_all(&batch).await?;
                frame.await?
            }
        };
        match frame.opcode {
            OpCode::Text | OpCode::Binary => echo(frame),
            OpCode::Close => break,
            _ => {}
        }
    }
    let rest = out.into_inner().expect("a panic ends the process");
    Ok(write.write_all(&rest).await?)
}

async fn publish_all(mut reader: Reader, subscriber: Subscriber<Bytes>) -> Result<(), WebSocketError> {
    let encoded = |frame: Frame| {
        let mut out = Vec::new();
        encode(frame, &mut out);
        Bytes::from(out)
    };
    loop {
        let mut answer = |frame: Frame| {
            subscriber.answer(encoded(frame));
            async { Ok::<(), WebSocketError>(()) }
        };
        let frame = reader.read_frame(&mut answer).await?;
        match frame.opcode {
            OpCode::Text | OpCode::Binary => subscriber.publish(&encoded(frame)),
            OpCode::Close => return Ok(()),
            _ => {}
        }
    }
}

async fn write_all(mut write: OwnedWriteHalf, mut queue: UnboundedReceiver<Bytes>) -> Result<(), WebSocketError> {
    let mut frames = Vec::new();
    while queue.recv_many(&mut frames, BATCH_MAX).await > 0 {
        match &frames[..] {
            [frame] => write.write_all(frame).await?,
            frames => write.write_all(&frames.concat()).await?,
        }
        frames.clear();
    }
    Ok(())
}
