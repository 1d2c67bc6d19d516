//! The sample applications that config/three-edges expects: Central's shop on port 3000, and those of fr, us and jp on
//! 3001 to 3003. Each answer says which place gave it. `cargo run --release --example origin`; Ctrl-C ends all four.

use coordinator::demo::origin;
use tokio::net::TcpListener;

const PLACES: [(&str, u16); 4] = [("central", 3000), ("fr", 3001), ("us", 3002), ("jp", 3003)];

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), String> {
    let mut shops = Vec::new();
    for (place, port) in PLACES {
        let listener = TcpListener::bind(("127.0.0.1", port)).await;
        let listener = listener.map_err(|error| format!("port {port}, for {place}, cannot be used: {error}"))?;
        println!("the application of {place} listens on http://127.0.0.1:{port}");
        shops.push(origin::start(place, listener));
    }
    futures_util::future::join_all(shops).await;
    Ok(())
}
