//! Echo and fan-out with tokio-tungstenite.
//!
//! Writes are fed and flushed once a batch, here and in [`fan_out`]: "it is often more optimal to allow them to buffer a little",
//! says the documentation of `WebSocketConfig::write_buffer_size`, which stays at its default of 128 KiB. A read buffer of 4 KiB
//! is what the documentation of `read_buffer_size` recommends for many connections, and it holds all that one turn of the
//! comparison's tests brings; the default of 128 KiB is taken by each connection at once.

use std::io;
use std::sync::Arc;

use fantail_peers::{ECHO, Hub, fan_out};
use futures_util::{FutureExt as _, SinkExt as _, StreamExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};

/// Per connection, in bytes.
const READ_BUFFER: usize = 4096;

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
    let mut path = String::new();
    let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER);
    // The callback's type is the crate's, large error included.
    #[allow(clippy::result_large_err)]
    let callback = |request: &Request, response: Response| {
        request.uri().path().clone_into(&mut path);
        Ok(response)
    };
    let socket = tokio_tungstenite::accept_hdr_async_with_config(stream, callback, Some(config)).await?;
    if path == ECHO { echo(socket).await } else { fan_out(socket, hub, &path, is_data).await }
}

async fn echo(mut socket: Socket) -> Result<(), Error> {
    while let Some(message) = socket.next().await {
        let mut message = Some(message?);
        // All that one read brought, then one flush.
        while let Some(echoed) = message.take() {
            if is_data(&echoed) {
                socket.feed(echoed).await?;
            }
            message = socket.next().now_or_never().flatten().transpose()?;
        }
        socket.flush().await?;
    }
    Ok(())
}

fn is_data(message: &Message) -> bool {
    message.is_text() || message.is_binary()
}
