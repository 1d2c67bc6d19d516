//! An origin that costs nearly nothing: it answers every request with the same octets.

use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Octets of content in each answer.
pub const CONTENT: usize = 512;

/// Starts it on the calling runtime, for as long as that lives.
pub async fn start() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    tokio::task::spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::task::spawn_local(serve(stream));
        }
    });
    address
}

/// Answers requests without content, one after the other, until the other side goes.
async fn serve(mut stream: TcpStream) {
    let answer = answer();
    let (mut buffer, mut have) = ([0; 16 << 10], 0);
    // Nothing hangs on Nagle's delay but the figures.
    let _ = stream.set_nodelay(true);
    loop {
        let Ok(got @ 1..) = stream.read(&mut buffer[have..]).await else { return };
        have += got;
        while let Some(end) = buffer[..have].windows(4).position(|octets| octets == b"\r\n\r\n") {
            if stream.write_all(&answer).await.is_err() {
                return;
            }
            buffer.copy_within(end + 4..have, 0);
            have -= end + 4;
        }
    }
}

fn answer() -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\nServer: bench\r\nContent-Type: application/octet-stream\r\nContent-Length: {CONTENT}\r\n\
         ETag: \"0123456789abcdef\"\r\nCache-Control: max-age=60\r\n\r\n"
    );
    [head.as_bytes(), &[b'x'; CONTENT]].concat()
}
