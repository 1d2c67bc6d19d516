//! The doors: public, peer, observe, admin. Who may come in, by which certificate, at which address.

use super::{Found, certs, path};
use crate::config::leaf::{FilePath, loopback};
use crate::config::plan::{Address, CertificateFiles, Listener, MutualTls, PeerDoor};
use crate::config::problem::{Place, Problem};
use crate::config::raw;
use crate::config::read::{At, Field};

/// The public doors.
pub(super) fn listeners(field: &Field<Vec<At<raw::Listen>>>, found: &mut Found<'_>) -> Vec<Listener> {
    if let Field::Is(list) = field
        && list.value.is_empty()
    {
        found.report(Problem::at(list.place, "an edge needs a public door").help("add [[listen]] with an `address`"));
    }
    field.get().into_iter().flatten().filter_map(|listen| listener(listen, found)).collect()
}

fn listener(listen: &At<raw::Listen>, found: &mut Found<'_>) -> Option<Listener> {
    let raw = &listen.value;
    let certificates = raw.certificate.get().into_iter().flatten();
    let certificates: Vec<_> = certificates
        .filter_map(|certificate| own_certificate(&certificate.value.chain, &certificate.value.key, found))
        .collect();
    let redirect_https = raw.redirect.get().is_some();
    if let (Some(redirect), true) = (raw.redirect.place(), raw.certificate.is_written()) {
        let remedy = "put `redirect` on a plain door, such as port 80";
        found.report(Problem::at(redirect, "a door with certificates would redirect to itself").help(remedy));
    }
    Some(Listener { address: *raw.address.get()?, certificates, redirect_https })
}

/// A chain and its key, proven to be readable and to belong together.
fn own_certificate(chain: &Field<FilePath>, key: &Field<FilePath>, found: &mut Found<'_>) -> Option<CertificateFiles> {
    let (chain, key) = (chain.at()?, key.at()?);
    certs::pair(chain, key, found);
    Some(CertificateFiles { chain: path(chain), key: path(key) })
}

/// The private door: mutual TLS, or plain on loopback.
///
/// `identity` is the URI by which the other places know this one, if its name and deployment are known.
pub(super) fn peer(field: &Field<raw::Peer>, identity: Option<&str>, found: &mut Found<'_>) -> Option<PeerDoor> {
    let at = field.at()?;
    let raw = &at.value;
    let files = [("chain", &raw.chain), ("key", &raw.key), ("ca", &raw.ca)];
    let written = files.iter().filter(|(_, file)| file.is_written()).count();
    if written == 0 {
        plain_peer(at, found);
    } else if written < files.len() {
        let absent: Vec<_> =
            files.iter().filter(|(_, file)| !file.is_written()).map(|(key, _)| format!("`{key}`")).collect();
        let wrong = format!("mutual TLS needs `chain`, `key` and `ca`; missing: {}", absent.join(", "));
        found.report(Problem::at(at.place, wrong).help("`coordinator certs` makes all three"));
    }
    let tls = own_certificate(&raw.chain, &raw.key, found).zip(raw.ca.at());
    if let (Some(identity), Some(chain)) = (identity, raw.chain.at()) {
        certs::names(chain, identity, found);
    }
    let tls = tls.map(|(own, ca)| {
        certs::authority(ca, found);
        MutualTls { own, ca: path(ca) }
    });
    Some(PeerDoor { address: *raw.address.get()?, tls })
}

fn plain_peer(at: &At<raw::Peer>, found: &mut Found<'_>) {
    let Some(address) = at.value.address.at() else { return };
    if !loopback(address.value.ip()) && at.value.insecure.get() != Some(&true) {
        let remedy = "add `chain`, `key` and `ca` (`coordinator certs` makes them), use 127.0.0.1 or [::1], \
                      or say `insecure = true`";
        let wrong = "a peer door without TLS would let anyone who reaches it act as an edge";
        found.report(Problem::at(address.place, wrong).label("not a loopback address").help(remedy));
    }
}

/// The read-only door.
pub(super) fn observe(field: &Field<raw::Observe>) -> Option<Address> {
    field.get()?.address.get().cloned()
}

/// The operator's door: loopback or a unix socket only, for it asks for no credentials.
pub(super) fn admin(field: &Field<raw::Admin>, found: &mut Found<'_>) -> Option<Address> {
    let address = field.get()?.address.at()?;
    if let Address::Tcp(tcp) = &address.value
        && !loopback(tcp.ip())
    {
        let remedy =
            "use 127.0.0.1, [::1] or \"unix:/run/coordinator.sock\"; health and metrics have their own [observe]";
        let wrong = "the admin door asks for no credentials, so it may not face a network";
        found.report(Problem::at(address.place, wrong).label("not a loopback address").help(remedy));
    }
    Some(address.value.clone())
}

/// No two doors at one address.
pub(super) fn distinct(
    listen: &Field<Vec<At<raw::Listen>>>,
    peer: &Field<raw::Peer>,
    observe: &Field<raw::Observe>,
    admin: &Field<raw::Admin>,
    found: &mut Found<'_>,
) {
    let tcp = |address: &At<std::net::SocketAddr>| (Address::Tcp(address.value), address.place);
    let any = |address: &At<Address>| (address.value.clone(), address.place);
    let public = listen.get().into_iter().flatten().filter_map(|listen| listen.value.address.at().map(tcp));
    let private = [
        peer.get().and_then(|peer| peer.address.at()).map(tcp),
        observe.get().and_then(|observe| observe.address.at()).map(any),
        admin.get().and_then(|admin| admin.address.at()).map(any),
    ];
    let mut seen: Vec<(Address, Place)> = Vec::new();
    for (address, place) in public.chain(private.into_iter().flatten()) {
        let free = matches!(&address, Address::Tcp(tcp) if tcp.port() == 0);
        match seen.iter().find(|(other, _)| *other == address && !free) {
            Some((_, first)) => found.report(
                Problem::at(place, "two doors cannot share one address")
                    .label("taken already")
                    .spot(*first, "by this door")
                    .help("give each door its own port"),
            ),
            None => seen.push((address, place)),
        }
    }
}
