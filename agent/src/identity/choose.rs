//! Which identity is tried first, and which slot the next one is written to. Pure: what was found is an argument.

use common::tls::Identity;

use super::schedule::Validity;

/// One of the two places for certificates that were renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Slot {
    A,
    B,
}

impl Slot {
    /// Both of them.
    pub(crate) const ALL: [Self; 2] = [Self::A, Self::B];

    /// The name of its folder.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }
}

/// Where an identity lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    /// The files that the configuration names: written by `join` or by an operator, never by a renewal.
    Configured,
    /// Written by a renewal.
    Slot(Slot),
}

/// What is known of an identity that was found whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) place: Place,
    pub(crate) identity: Identity,
    pub(crate) validity: Validity,
}

/// Orders what was found: the youngest first. What belongs to another bearer than the configured files is left out: those
/// were written by somebody who wanted this host to be someone else from then on.
pub(crate) fn order(configured: &Known, slots: &[Known]) -> Vec<Place> {
    let ours = slots.iter().filter(|slot| slot.identity == configured.identity);
    let mut all: Vec<_> = ours.chain([configured]).collect();
    all.sort_by_key(|known| (known.validity, known.place));
    all.into_iter().rev().map(|known| known.place).collect()
}

/// Chooses the slot for the next identity: never the one in use, and of two others the one that is the smaller loss.
/// `usable` are the candidates, youngest first.
pub(crate) fn target(current: Place, usable: &[Place]) -> Slot {
    let rank = |slot: &Slot| usable.iter().position(|place| *place == Place::Slot(*slot)).unwrap_or(usize::MAX);
    let free = Slot::ALL.into_iter().filter(|slot| Place::Slot(*slot) != current);
    // The first of equals, so that an empty house begins with `a`.
    free.min_by_key(|slot| usize::MAX - rank(slot)).unwrap_or(Slot::A)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    const A: Place = Place::Slot(Slot::A);
    const B: Place = Place::Slot(Slot::B);

    fn known(place: Place, uri: &str, from_ms: u64) -> Known {
        Known { place, identity: uri.parse().unwrap(), validity: Validity { from_ms, until_ms: from_ms + 100 } }
    }

    #[test]
    fn the_youngest_identity_of_the_same_bearer_comes_first() {
        let ours = "paprika://c1/agent/web1/3";
        let configured = known(Place::Configured, ours, 10);
        let find = |slots: &[Known]| order(&configured, slots);
        assert_eq!(find(&[]), [Place::Configured]);
        assert_eq!(find(&[known(A, ours, 20), known(B, ours, 30)]), [B, A, Place::Configured]);
        assert_eq!(find(&[known(A, ours, 20), known(B, ours, 5)]), [A, Place::Configured, B]);
        assert_eq!(find(&[known(A, ours, 10)]), [A, Place::Configured], "renewed in the second of its birth");
    }

    #[test]
    fn what_belongs_to_another_bearer_is_no_candidate() {
        let configured = known(Place::Configured, "paprika://c1/agent/web1/3", 10);
        for other in ["paprika://c2/agent/web1/3", "paprika://c1/agent/web2/3", "paprika://c1/agent/web1/2"] {
            assert_eq!(order(&configured, &[known(A, other, 99)]), [Place::Configured], "{other}");
        }
    }

    #[test]
    fn the_next_one_never_goes_where_the_current_one_lies() {
        for (current, usable, expected) in [
            (Place::Configured, vec![Place::Configured], Slot::A),
            (A, vec![A, Place::Configured], Slot::B),
            (B, vec![B, A, Place::Configured], Slot::A),
            (A, vec![A, B, Place::Configured], Slot::B),
            (A, vec![B, A, Place::Configured], Slot::B),
            (Place::Configured, vec![A, B, Place::Configured], Slot::B),
            (Place::Configured, vec![B, A, Place::Configured], Slot::A),
            (Place::Configured, vec![A, Place::Configured], Slot::B),
        ] {
            assert_eq!(target(current, &usable), expected, "{current:?} {usable:?}");
        }
    }
}
