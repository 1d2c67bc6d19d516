//! The ledger's rules as tables.

use super::*;
use proptest::prelude::*;

const DE: EdgeId = EdgeId(2);
const US: EdgeId = EdgeId(3);

const NOTHING: State = State { row: None, hold: None, import: None, refused: MoveId::NONE, claim: None };
const WAITING: State = State { claim: Some(Claim::Waiting), ..NOTHING };

fn row(row: Row) -> State {
    State { row: Some(row), ..NOTHING }
}

fn lost(to: EdgeId, epoch: u32) -> State {
    State { claim: Some(Claim::Lost { to, epoch }), ..NOTHING }
}

fn own(epoch: u32) -> Input {
    Input::Entry { home: Named::Own, epoch }
}

fn other(to: EdgeId, epoch: u32) -> Input {
    Input::Entry { home: Named::Other(to), epoch }
}

fn gone(epoch: u32) -> Input {
    Input::Entry { home: Named::Nobody, epoch }
}

#[test]
fn the_table_of_steps() {
    use Effect::{Clash, Record, Settle, Store};
    use Row::{Gone, Moved, Owned};
    let moved = |to, epoch| Moved { to, epoch };
    let cases: &[(State, Input, State, &[Effect])] = &[
        // Registration.
        (NOTHING, Input::Register, WAITING, &[Store]),
        (WAITING, Input::Register, WAITING, &[]),
        (row(Owned { epoch: 1 }), Input::Register, row(Owned { epoch: 1 }), &[]),
        (row(moved(DE, 2)), Input::Register, row(moved(DE, 2)), &[]),
        (lost(DE, 1), Input::Register, lost(DE, 1), &[]),
        // Entries that name us.
        (NOTHING, own(1), row(Owned { epoch: 1 }), &[Record(Owned { epoch: 1 })]),
        (WAITING, own(1), row(Owned { epoch: 1 }), &[Record(Owned { epoch: 1 }), Settle]),
        (lost(DE, 1), own(2), row(Owned { epoch: 2 }), &[Record(Owned { epoch: 2 }), Settle]),
        (row(moved(DE, 2)), own(3), row(Owned { epoch: 3 }), &[Record(Owned { epoch: 3 })]),
        // What was closed is not opened by an old entry.
        (row(moved(DE, 2)), own(1), row(moved(DE, 2)), &[]),
        (row(moved(DE, 2)), own(2), row(moved(DE, 2)), &[]),
        (row(Gone { epoch: 2 }), own(1), row(Gone { epoch: 2 }), &[]),
        // Entries that name another.
        (NOTHING, other(DE, 1), NOTHING, &[]),
        (row(Owned { epoch: 1 }), other(DE, 2), row(moved(DE, 2)), &[Record(moved(DE, 2))]),
        (row(Owned { epoch: 2 }), other(DE, 1), row(Owned { epoch: 2 }), &[]),
        (row(moved(DE, 2)), other(US, 3), row(moved(US, 3)), &[Record(moved(US, 3))]),
        (WAITING, other(DE, 1), lost(DE, 1), &[Clash { to: DE, epoch: 1 }]),
        (lost(DE, 1), other(DE, 1), lost(DE, 1), &[]),
        (lost(DE, 1), other(US, 2), lost(US, 2), &[Clash { to: US, epoch: 2 }]),
        // Entries that name nobody.
        (NOTHING, gone(2), NOTHING, &[]),
        (WAITING, gone(2), row(Gone { epoch: 2 }), &[Record(Gone { epoch: 2 }), Settle]),
        (row(Owned { epoch: 1 }), gone(2), row(Gone { epoch: 2 }), &[Record(Gone { epoch: 2 })]),
        // Central's answer to a claim.
        (WAITING, Input::Denied { to: DE, epoch: 1 }, lost(DE, 1), &[Clash { to: DE, epoch: 1 }]),
        (NOTHING, Input::Denied { to: DE, epoch: 1 }, NOTHING, &[]),
        (row(Owned { epoch: 2 }), Input::Denied { to: DE, epoch: 1 }, row(Owned { epoch: 2 }), &[]),
    ];
    for (state, input, after, effects) in cases {
        let (next, done) = state.step(*input);
        assert_eq!((next, &done[..]), (*after, *effects), "{state:?} {input:?}");
    }
}

#[test]
fn who_accepts() {
    for (state, expected) in [
        (NOTHING, None),
        (WAITING, Some((1, true))),
        (lost(DE, 1), None),
        (row(Row::Owned { epoch: 7 }), Some((7, false))),
        (row(Row::Moved { to: DE, epoch: 7 }), None),
        (row(Row::Gone { epoch: 7 }), None),
        (State { row: Some(Row::Gone { epoch: 7 }), ..WAITING }, Some((1, true))),
        (State { row: Some(Row::Moved { to: DE, epoch: 7 }), ..WAITING }, None),
    ] {
        assert_eq!(state.accepts(), expected, "{state:?}");
    }
}

fn inputs() -> impl Strategy<Value = Input> {
    prop_oneof![
        Just(Input::Register),
        (1..6u32).prop_map(own),
        (2..4u16, 1..6u32).prop_map(|(to, epoch)| other(EdgeId(to), epoch)),
        (1..6u32).prop_map(gone),
        (2..4u16, 1..6u32).prop_map(|(to, epoch)| Input::Denied { to: EdgeId(to), epoch }),
    ]
}

proptest! {
    #[test]
    fn epochs_only_rise_and_repetitions_change_nothing(inputs in prop::collection::vec(inputs(), 0..40)) {
        let mut state = NOTHING;
        for input in inputs {
            let (next, _) = state.step(input);
            let epoch = |state: State| state.row.map_or(0, Row::epoch);
            prop_assert!(epoch(next) >= epoch(state), "{:?} {:?}", state, input);
            if let (Some(old), Some(new)) = (state.row, next.row) && old.epoch() == new.epoch() {
                prop_assert_eq!(old, new);
            }
            if let Input::Entry { .. } = input {
                prop_assert_eq!(next.step(input), (next, Effects::new()));
            }
            state = next;
        }
    }
}
