//! Doors with a scripted service behind them, spoken to over real sockets.

mod drain;
mod h1;
mod h2;
mod script;
mod tls;
