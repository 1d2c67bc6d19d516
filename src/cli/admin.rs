//! Commands that act on a running process through its admin door.

use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use std::process::ExitCode;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

/// The largest answer that is read from an admin door.
const ANSWER_MAX: usize = 16 << 20;

/// How long a connection to the admin door may take.
const CONNECT: Duration = Duration::from_secs(5);

/// Arguments of `reload` and `drain`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The admin door: HOST:PORT or unix:/path
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9900")]
    pub admin: String,
}

/// Arguments of `release`.
#[derive(Debug, clap::Args)]
pub struct ReleaseArgs {
    /// What is held, as the log and `brake` in /status name it; nothing else is let pass
    #[arg(value_name = "ID")]
    pub id: Option<String>,
    #[command(flatten)]
    door: Args,
}

/// Lets pass what is held under an id.
pub fn release(args: &ReleaseArgs) -> ExitCode {
    let id = args.id.as_deref().unwrap_or_default();
    if !id.bytes().all(|octet| octet.is_ascii_hexdigit()) {
        eprintln!("error: an id is 16 hexadecimal digits");
        return ExitCode::from(2);
    }
    post(&args.door, &format!("/release?id={id}"))
}

/// Posts to the admin door and prints what it answers.
pub fn post(args: &Args, path: &str) -> ExitCode {
    match call(&args.admin, "POST", path) {
        Ok((status, text)) if status < 300 => {
            println!("{}", text.trim_end());
            ExitCode::SUCCESS
        }
        Ok((_, text)) => {
            eprintln!("{}", text.trim_end());
            ExitCode::from(1)
        }
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::from(1)
        }
    }
}

/// One request to an admin door: status and text. Errors: why it could not be asked, and what to look at.
pub fn call(address: &str, method: &str, path: &str) -> Result<(u16, String), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    runtime.block_on(ask(address, method, path))
}

/// The same, for who has a runtime.
pub async fn ask(address: &str, method: &str, path: &str) -> Result<(u16, String), String> {
    let unreachable = |error: std::io::Error| {
        format!(
            "the admin door at {address} cannot be reached: {error}\nhelp: `[admin] address` of the running configuration says where it is"
        )
    };
    match address.strip_prefix("unix:") {
        Some(socket) => {
            exchange(UnixStream::connect(socket).await.map_err(unreachable)?, "localhost", method, path).await
        }
        None => {
            let connected = tokio::time::timeout(CONNECT, TcpStream::connect(address)).await;
            let stream = connected.map_err(|_| format!("the admin door at {address} does not answer"))?;
            exchange(stream.map_err(unreachable)?, address, method, path).await
        }
    }
}

async fn exchange(
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    host: &str,
    method: &str,
    path: &str,
) -> Result<(u16, String), String> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(io)).await.map_err(|error| error.to_string())?;
    let request = hyper::Request::builder().method(method).uri(path).header("host", host).body(Empty::<Bytes>::new());
    let request = request.map_err(|error| error.to_string())?;
    let answer = async {
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        let body = http_body_util::Limited::new(response.into_body(), ANSWER_MAX).collect().await;
        Ok::<_, hyper::Error>((status, body.map(http_body_util::Collected::to_bytes)))
    };
    let (status, body) = tokio::select! {
        answer = answer => answer.map_err(|error| error.to_string())?,
        ended = connection => return Err(ended.err().map_or("the admin door closed the connection".to_owned(), |error| error.to_string())),
    };
    let body = body.map_err(|error| error.to_string())?;
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}
