//! Central's rules as tables.

use super::*;

const FR: u16 = 0;
const DE: u16 = 1;
const M1: MoveId = MoveId { term: 1, count: 1 };
const M2: MoveId = MoveId { term: 1, count: 2 };

const NOBODYS: Record = Record { home: None, epoch: 0, moving: None, is_released: false };

fn at(home: u16, epoch: u32) -> Record {
    Record { home: Some(home), epoch, ..NOBODYS }
}

fn moving(mid: MoveId, to: Option<u16>, is_off: bool) -> Record {
    Record { moving: Some(Move { mid, to, is_off }), ..at(FR, 3) }
}

fn grant(home: Option<u16>, epoch: u32) -> Option<Grant> {
    Some(Grant { home, epoch })
}

#[test]
fn the_table_of_steps() {
    use Input::{Begin, CallOff, Claim, Force, NotReleased, Receipt, Recovered, Registered, Report, Restored};
    let receipt = |edge, epoch, mid| Receipt { edge, epoch, mid };
    let gone = Record { home: None, epoch: 4, ..NOBODYS };
    let released = Record { is_released: true, ..at(FR, 3) };
    let cases: &[(Record, Input, Record, Option<Grant>)] = &[
        // The first in the log wins; after a tombstone epochs go on.
        (NOBODYS, Claim { edge: FR }, at(FR, 1), grant(Some(FR), 1)),
        (at(FR, 1), Claim { edge: DE }, at(FR, 1), None),
        (gone, Claim { edge: DE }, at(DE, 5), grant(Some(DE), 5)),
        (Record { epoch: u32::MAX, ..gone }, Claim { edge: DE }, Record { epoch: u32::MAX, ..gone }, None),
        // One move at a time, to somebody else.
        (at(FR, 3), Begin { mid: M1, to: Some(DE) }, moving(M1, Some(DE), false), None),
        (at(FR, 3), Begin { mid: M1, to: Some(FR) }, at(FR, 3), None),
        (moving(M1, Some(DE), false), Begin { mid: M2, to: Some(DE) }, moving(M1, Some(DE), false), None),
        (gone, Begin { mid: M1, to: Some(DE) }, gone, None),
        // The receipt of the current move at the current epoch commits; of one called off it returns the key.
        (moving(M1, Some(DE), false), receipt(FR, 3, M1), at(DE, 4), grant(Some(DE), 4)),
        (moving(M1, Some(DE), true), receipt(FR, 3, M1), at(FR, 4), grant(Some(FR), 4)),
        (moving(M1, None, false), receipt(FR, 3, M1), gone, grant(None, 4)),
        (moving(M1, Some(DE), false), receipt(FR, 3, M2), moving(M1, Some(DE), false), None),
        (moving(M1, Some(DE), false), receipt(FR, 2, M1), moving(M1, Some(DE), false), None),
        (moving(M1, Some(DE), false), receipt(DE, 3, M1), moving(M1, Some(DE), false), None),
        (at(FR, 3), receipt(FR, 3, M1), at(FR, 3), None),
        // Ends without a commit.
        (moving(M1, Some(DE), false), CallOff, moving(M1, Some(DE), true), None),
        (moving(M1, Some(DE), true), NotReleased { edge: FR, mid: M1 }, at(FR, 3), None),
        (moving(M2, Some(DE), true), NotReleased { edge: FR, mid: M1 }, moving(M2, Some(DE), true), None),
        (moving(M1, Some(DE), false), Registered { edge: FR }, at(FR, 3), None),
        (moving(M1, Some(DE), false), Registered { edge: DE }, moving(M1, Some(DE), false), None),
        (moving(M1, Some(DE), false), Restored, at(FR, 3), None),
        (moving(M1, Some(DE), false), Force { to: Some(DE) }, at(DE, 4), grant(Some(DE), 4)),
        // What edges report: the highest epoch, and who released gets it back.
        (NOBODYS, Report { home: Some(FR), epoch: 2, is_released: false }, at(FR, 2), None),
        (at(DE, 3), Report { home: Some(FR), epoch: 2, is_released: false }, at(DE, 3), None),
        (at(FR, 3), Report { home: Some(FR), epoch: 3, is_released: true }, released, None),
        (at(DE, 3), Report { home: Some(FR), epoch: 3, is_released: true }, at(DE, 3), None),
        (released, Recovered, at(FR, 4), grant(Some(FR), 4)),
        (at(FR, 3), Recovered, at(FR, 3), None),
    ];
    for (record, input, after, entry) in cases {
        assert_eq!(record.step(*input), (*after, *entry), "{record:?} {input:?}");
    }
}

#[test]
fn a_second_incarnation_needs_a_word_or_a_proof() {
    let (a, b, c, d) = (Boot(1), Boot(2), Boot(3), Boot(4));
    let mut crew = Crew::default();
    assert_eq!(crew.judge(a, Proof::None), Registration::Entered { replaces: false });
    crew.enter(a, 5, &[]);
    assert_eq!(crew.judge(a, Proof::None), Registration::Known { at: 5 });
    assert_eq!(crew.judge(b, Proof::None), Registration::NeedsWord);
    assert_eq!(crew.judge(b, Proof::Replaces(c)), Registration::NeedsWord, "nobody knows that one");
    // A sibling that shares the disk.
    assert_eq!(crew.judge(b, Proof::Beside(a)), Registration::Entered { replaces: false });
    crew.enter(b, 6, &[]);
    assert!(crew.is_current(a) && crew.is_current(b));
    // The lock of the old one's folder.
    assert_eq!(crew.judge(c, Proof::Replaces(a)), Registration::Entered { replaces: true });
    let ends = crew.ends(Proof::Replaces(a));
    crew.enter(c, 7, &ends);
    assert_eq!((crew.is_current(a), crew.is_current(b), crew.is_current(c)), (false, true, true));
    assert_eq!(crew.judge(a, Proof::Beside(c)), Registration::Ended);
    // The operator's word ends all, and counts once.
    crew.replace();
    assert_eq!(crew.judge(d, Proof::None), Registration::Entered { replaces: true });
    let ends = crew.ends(Proof::None);
    crew.enter(d, 8, &ends);
    assert_eq!(crew.current().collect::<Vec<_>>(), [d]);
    assert_eq!(crew.judge(c, Proof::None), Registration::Ended);
    assert_eq!(crew.judge(Boot(9), Proof::None), Registration::NeedsWord);
}

#[test]
fn a_restored_office_opens_once_all_have_reported() {
    let mut office = Office::first();
    let before = office.next_move(Guards::ALL);
    office.restored([FR, DE].into_iter(), Guards::ALL);
    assert_eq!((office.term, office.is_open()), (2, false));
    assert!(!office.heard(FR) && !office.is_open() && office.awaits(DE) && !office.awaits(FR));
    assert!(!office.heard(FR), "one that reports twice is no second one");
    assert!(office.heard(DE) && office.is_open());
    assert!(!office.heard(DE));
    assert!(office.next_move(Guards::ALL) > before, "ids are never used twice");
}
