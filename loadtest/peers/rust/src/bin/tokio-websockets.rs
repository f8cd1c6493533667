//! Echo and fan-out with tokio-websockets.
//!
//! Writes are fed and flushed once a batch, here and in [`fan_out`]: the crate queues frames and writes them with one vectored
//! write, up to `Config::flush_threshold`, which stays at its default of 8 KiB. No message is split, nor limited:
//! `Config::frame_size` and `Limits::unlimited` as in the crate's own `examples/echo_server.rs`, which it is benchmarked with.

use std::io;
use std::sync::Arc;

use fantail_peers::{ECHO, Hub, fan_out};
use futures_util::{FutureExt as _, SinkExt as _, StreamExt as _};
use tokio::net::TcpStream;
use tokio_websockets::{Config, Error, Limits, Message, ServerBuilder, WebSocketStream};

type Socket = WebSocketStream<TcpStream>;

fn main() -> io::Result<()> {
    let hub = Hub::shared();
    fantail_peers::run(|stream| {
        let hub = Arc::clone(&hub);
        // A connection that ends with an error ends all the same.
        async move { serve(stream, &hub).await.unwrap_or_default() }
    })
}

async fn serve(stream: TcpStream, hub: &Hub<Message>) -> Result<(), Error> {
    let builder = ServerBuilder::new().config(Config::default().frame_size(usize::MAX)).limits(Limits::unlimited());
    let (request, socket) = builder.accept(stream).await?;
    match request.uri().path() {
        ECHO => echo(socket).await,
        path => fan_out(socket, hub, path, is_data).await,
    }
}

async fn echo(mut socket: Socket) -> Result<(), Error> {
    let mut batch = Vec::new();
    while let Some(message) = socket.next().await {
        batch.push(message?);
        // All that one read brought, before anything is fed: to read flushes what is queued.
        while let Some(message) = socket.next().now_or_never().flatten() {
            batch.push(message?);
        }
        for message in batch.drain(..).filter(is_data) {
            socket.feed(message).await?;
        }
        socket.flush().await?;
    }
    Ok(())
}

fn is_data(message: &Message) -> bool {
    message.is_text() || message.is_binary()
}
