//! What is on its way out of a connection: written behind what waits, sent from the front.
//!
//! Invariant: it holds memory only while something waits, and nothing is written behind more that has gone than waits.

use super::buffers;

/// See the module.
#[derive(Default)]
pub(super) struct Outbox {
    octets: Vec<u8>,
    /// How many of them have gone; fewer than there are, unless there are none.
    gone: usize,
}

impl Outbox {
    /// What waits.
    pub(super) fn unsent(&self) -> &[u8] {
        self.octets.get(self.gone..).unwrap_or_default()
    }

    /// How much waits.
    pub(super) fn len(&self) -> usize {
        self.octets.len() - self.gone
    }

    /// Where more is appended: with room for a head and a small body, if nothing waits.
    pub(super) fn end(&mut self) -> &mut Vec<u8> {
        if self.octets.capacity() == 0 {
            self.octets = buffers::draft();
        } else if self.gone > self.len() {
            self.octets.drain(..self.gone);
            self.gone = 0;
        }
        &mut self.octets
    }

    /// So much has gone.
    pub(super) fn sent(&mut self, octets: usize) {
        self.gone += octets;
        if self.gone == self.octets.len() {
            self.gone = 0;
            buffers::put_draft_aside(std::mem::take(&mut self.octets));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_goes_in_order_and_memory_stays_small() {
        let (mut outbox, mut written, mut sent) = (Outbox::default(), 0u32, 0u32);
        for round in 0..2000 {
            let waits = outbox.len();
            let end = outbox.end();
            assert!(end.len() <= 2 * waits, "{} for {waits}", end.len());
            end.extend((written..written + 100).flat_map(u32::to_le_bytes));
            written += 100;
            let whole = outbox.len() / 4;
            let take = if round % 100 == 99 { whole } else { whole.saturating_sub(700) };
            for (at, octets) in outbox.unsent().as_chunks::<4>().0.iter().take(take).enumerate() {
                assert_eq!(u32::from_le_bytes(*octets), sent + at as u32);
            }
            sent += take as u32;
            outbox.sent(4 * take);
        }
        assert_eq!((outbox.len(), outbox.octets.capacity(), sent), (0, 0, written));
    }
}
