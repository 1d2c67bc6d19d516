//! The request head that an upstream gets: what is stripped, what is added, and who is told what.

use super::Site;
use super::course::Course;
use super::obtain::Sending;
use super::serve::Settled;
use crate::base::backoff::random;
use crate::base::id::EdgeId;
use crate::body::{Door, Downstream};
use crate::config::plan::{HeaderEdit, HostRule, Plan};
use crate::message::{Fields, Name, Ready, RequestHead, forwarded, hop};
use crate::peer::wire::{Fwd, Role as As, Told};
use crate::upstream::{Endpoint, Shaped};

/// What kind of server is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A server of the application: gets the `Coordinator` field.
    Origin,
    /// Central's door: gets `Coordinator-Fwd`.
    Central,
    /// Another edge: gets `Coordinator-Fwd`, and may correct us.
    Peer(EdgeId),
}

/// What is told of the decision.
#[derive(Debug, Clone)]
pub struct Note<'a> {
    /// The edge that the client reached.
    pub entry: &'a str,
    /// `space:key`.
    pub key: Option<String>,
    /// The name of the home.
    pub home: Option<&'a str>,
    /// The owner epoch.
    pub epoch: u32,
    /// As what the origin is asked.
    pub role: As,
}

impl<'a> Note<'a> {
    /// For the origin of this edge, which the client reached.
    pub(super) fn local(sending: &Sending<'a>, settled: Settled) -> Self {
        let own = sending.site.plan.own.name.as_str();
        let key = whole_key(sending);
        let (home, role) = if key.is_some() { (Some(own), As::Home) } else { (None, As::Local) };
        // A key whose claim still awaits Central's entry is told as epoch 1, which the entry will confirm.
        Note { entry: own, key, home, epoch: settled.epoch.max(1), role }
    }

    /// For Central.
    pub(super) fn central(sending: &Sending<'a>) -> Self {
        Note { entry: &sending.site.plan.own.name, key: whole_key(sending), home: None, epoch: 0, role: As::Central }
    }
}

fn whole_key(sending: &Sending<'_>) -> Option<String> {
    sending.course.key.as_ref().map(|(space, key)| format!("{}:{key}", space.name))
}

/// What all attempts share: what ends at this hop is gone, who the client is is told, and so is that we were here.
pub(super) fn pass_on(head: &mut RequestHead, from: &Downstream, site: &Site) {
    hop::strip_connection(&mut head.fields);
    hop::strip_internal(&mut head.fields);
    if from.door == Door::Public {
        hop::strip_aliases(&mut head.fields);
        rebuild_forwarded(head, from, &site.plan);
    }
    site.mark.add_both(&mut head.fields, head.version);
}

/// The head for one attempt: the kept one with a line for this attempt at its end, unless the route wants more changed.
pub(super) fn shape<'a>(
    sending: &'a mut Sending<'_>,
    endpoint: &Endpoint,
    role: Role,
    note: &Note<'_>,
    seq: u64,
) -> Shaped<'a> {
    let (site, course) = (sending.site, sending.course);
    let fields = &mut sending.head.fields;
    // The line of the attempt before.
    fields.truncate(sending.passed_on);
    match role {
        Role::Origin => tell(fields, site, note),
        Role::Central => fields.put(Name::CoordinatorFwd, fwd(site, note, "central", seq)),
        Role::Peer(edge) => fields.put(Name::CoordinatorFwd, fwd(site, note, site.plan.edges.name(edge), seq)),
    }
    if role != Role::Origin || !changes(course) {
        return Shaped::Kept(sending.head);
    }
    let mut head = Box::new(sending.head.clone());
    if course.settings.host == HostRule::Origin {
        head.authority = endpoint.authority().to_owned();
    }
    if let Some(target) = &course.rewritten {
        head.target.clone_from(target);
    }
    edit(&mut head.fields, &course.settings.request_headers);
    Shaped::Made(head)
}

/// Whether an origin gets another head than the one that all attempts share.
fn changes(course: &Course<'_>) -> bool {
    let edits = &course.settings.request_headers;
    course.settings.host == HostRule::Origin || course.rewritten.is_some() || !edits.is_empty()
}

/// Tells an origin of the decision.
fn tell(fields: &mut Fields, site: &Site, note: &Note<'_>) {
    if note.role == As::Local && note.key.is_none() && note.entry == site.plan.own.name {
        return fields.add_ready(&site.plainly);
    }
    let epoch = (note.role == As::Home).then_some(note.epoch);
    let told = Told { edge: note.entry, key: note.key.as_deref(), home: note.home, epoch, role: note.role };
    fields.put(Name::Coordinator, told);
}

/// What is told of a request that its client sent to this very edge and that is no key's.
pub(super) fn plainly(edge: &str) -> Ready {
    Ready::new(Name::Coordinator, Told { edge, key: None, home: None, epoch: None, role: As::Local })
}

fn fwd(site: &Site, note: &Note<'_>, to: &str, seq: u64) -> Fwd {
    Fwd {
        from: site.plan.own.name.clone(),
        to: to.to_owned(),
        key: note.key.clone(),
        epoch: note.epoch,
        seq,
        id: format!("{:016x}", random()),
    }
}

fn rebuild_forwarded(head: &mut RequestHead, from: &Downstream, plan: &Plan) {
    let is_trusted = |address| plan.trust.forwarded.iter().any(|network| network.holds(address));
    let believed = forwarded::client_of(&head.fields, from.client.ip(), from.scheme, &is_trusted);
    forwarded::rebuild(&mut head.fields, &believed, &head.authority, plan.trust.send_forwarded);
    head.scheme = believed.scheme;
}

/// Applies a route's edits: removals, then sets.
pub(super) fn edit(fields: &mut Fields, edit: &HeaderEdit) {
    if !edit.remove.is_empty() {
        fields.retain(|field| !edit.remove.iter().any(|name| field.name.eq_ignore_ascii_case(name.as_bytes())));
    }
    for line in edit.set.iter() {
        fields.retain(|field| !field.name.eq_ignore_ascii_case(line.name));
        fields.push(line.name, line.value);
    }
}
