//! Newtypes for everything that is named by a small number.
//!
//! An id is an index into the plan (or the edge table) that made it; ids of two plans are never mixed,
//! because a request holds one plan from its first step to its last.

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub $inner);

        impl $name {
            /// The id as an index.
            pub fn index(self) -> usize {
                usize::from(self.0)
            }
        }
    };
}

id!(
    /// An edge: the index, below 4096, under which the feed's edge table lists it (HOMES 2.1).
    ///
    /// Edges that only the configuration names get indices from 4095 downwards, so that the feed's never collide.
    EdgeId(u16)
);
id!(
    /// A route: its index in `Plan::settings`.
    RouteId(u16)
);
id!(
    /// A cluster: its index in `Plan::clusters`.
    ClusterId(u16)
);
id!(
    /// A key space: its index in `Plan::spaces`.
    SpaceId(u16)
);
