//! An edge that is none: a plain peer door that says what a test makes it say, to see what the real ones believe.

use super::message::Fields;
use super::origin::Gate;
use bytes::Bytes;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

/// What it answers: a status and fields, without content; the request's content stays unread unless `reads`.
#[derive(Clone, Default)]
pub struct Says {
    /// The status.
    pub status: u16,
    /// The fields.
    pub fields: Vec<(&'static str, String)>,
    /// Whether it takes the content first.
    pub reads: bool,
    /// What it waits for before it answers.
    pub hold: Option<Gate>,
}

/// A request that it got.
#[derive(Debug, Clone)]
pub struct Got {
    /// The method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// The fields.
    pub fields: Fields,
    /// Octets of content.
    pub length: usize,
}

/// The false peer. Gone when dropped.
pub struct Peer {
    shared: Arc<Mutex<Shared>>,
    runtime: Option<Runtime>,
}

#[derive(Default)]
struct Shared {
    says: VecDeque<Says>,
    otherwise: Option<Says>,
    got: Vec<Got>,
}

impl Peer {
    /// Opens it where an edge would have its peer door.
    pub fn at(address: SocketAddr) -> Peer {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let listener = runtime.block_on(async {
            let socket = tokio::net::TcpSocket::new_v4()?;
            // The port is held by a socket that does not listen, as a real edge's is.
            socket.set_reuseport(true)?;
            socket.bind(address)?;
            socket.listen(64)
        });
        let listener = listener.expect("the port is free");
        let shared: Arc<Mutex<Shared>> = Arc::default();
        runtime.spawn(accept(listener, shared.clone()));
        Peer { shared, runtime: Some(runtime) }
    }

    /// Adds an answer to the next request.
    pub fn next(&self, says: Says) -> &Peer {
        self.lock().says.push_back(says);
        self
    }

    /// The answer to all requests beyond the script.
    pub fn always(&self, says: Says) -> &Peer {
        self.lock().otherwise = Some(says);
        self
    }

    /// What it got.
    pub fn got(&self) -> Vec<Got> {
        self.lock().got.clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Shared> {
        self.shared.lock().expect("nobody panics under this lock")
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Says {
    /// 421 with `Coordinator-Moved`.
    pub fn moved(edge: &str, epoch: u32) -> Says {
        Says::with(421, "coordinator-moved", format!("edge={edge}; epoch={epoch}; seq=1"))
    }

    /// 421 with `Coordinator-Unknown`.
    pub fn unknown() -> Says {
        Says::with(421, "coordinator-unknown", "1".to_owned())
    }

    /// A status with one field.
    pub fn with(status: u16, name: &'static str, value: String) -> Says {
        Says { status, fields: vec![(name, value)], ..Says::default() }
    }
}

async fn accept(listener: TcpListener, shared: Arc<Mutex<Shared>>) {
    while let Ok((tcp, _)) = listener.accept().await {
        let shared = shared.clone();
        tokio::spawn(async move {
            let Ok(mut connection) = h2::server::Builder::new().initial_window_size(1 << 20).handshake(tcp).await
            else {
                return;
            };
            while let Some(Ok((request, respond))) = connection.accept().await {
                tokio::spawn(answer(request, respond, shared.clone()));
            }
        });
    }
}

async fn answer(
    request: http::Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
    shared: Arc<Mutex<Shared>>,
) -> Option<()> {
    let (head, mut body) = request.into_parts();
    let fields = head.headers.iter();
    let mut got = Got {
        method: head.method.to_string(),
        target: head.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
        fields: fields
            .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into()))
            .collect(),
        length: 0,
    };
    let says = {
        let mut shared = shared.lock().ok()?;
        shared.says.pop_front().or_else(|| shared.otherwise.clone()).unwrap_or(Says { status: 200, ..Says::default() })
    };
    if says.reads {
        while let Some(Ok(piece)) = body.data().await {
            got.length += piece.len();
            let _ = body.flow_control().release_capacity(piece.len());
        }
    }
    shared.lock().ok()?.got.push(got);
    if let Some(gate) = says.hold {
        tokio::task::spawn_blocking(move || gate.pass()).await.ok()?;
    }
    let mut response = http::Response::builder().status(says.status);
    for (name, value) in &says.fields {
        response = response.header(*name, value);
    }
    respond.send_response(response.body(()).ok()?, true).ok()?;
    Some(())
}
