//! What the checkpoints say the audit must hold: pure.
//!
//! A store that was restored from an older copy has lost rows by what it is, and its next life gives their numbers out
//! again. What an earlier life signed behind the point where the next one began is therefore not looked for; it is
//! counted and named.

use super::checkpoint::Checkpoint;

/// What must stand in the audit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Expected {
    /// Rows whose hashes are known, by number.
    pub(crate) rows: Vec<(u64, [u8; 32])>,
    /// Checkpoints of earlier lives of the store that a restore took away.
    pub(crate) restored_away: usize,
}

/// Sorts the checkpoints, in the order of their writing.
pub(crate) fn expected(checkpoints: &[Checkpoint]) -> Expected {
    let mut expected = Expected::default();
    // From the newest life back: what a later one began with bounds all earlier ones.
    let mut most = u64::MAX;
    let mut life: Option<(u64, u64)> = None;
    for checkpoint in checkpoints.iter().rev() {
        let (incarnation, began) = life.unwrap_or((checkpoint.incarnation, checkpoint.seq));
        if checkpoint.incarnation == incarnation {
            life = Some((incarnation, began.min(checkpoint.seq)));
        } else {
            most = most.min(began);
            life = Some((checkpoint.incarnation, checkpoint.seq));
        }
        if checkpoint.seq < most {
            expected.rows.push((checkpoint.seq, checkpoint.hash));
        } else {
            expected.restored_away += 1;
        }
    }
    expected.rows.reverse();
    expected
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seq: u64, incarnation: u64) -> Checkpoint {
        Checkpoint { seq, hash: [seq as u8; 32], at: 0, incarnation, signature: [0; 64] }
    }

    #[test]
    fn all_of_one_life_are_looked_for() {
        let all = expected(&[at(3, 1), at(9, 1)]);
        assert_eq!((all.rows.iter().map(|row| row.0).collect::<Vec<_>>(), all.restored_away), (vec![3, 9], 0));
        assert_eq!(expected(&[]), Expected::default());
    }

    #[test]
    fn what_a_restore_took_away_is_counted_and_the_rest_still_looked_for() {
        let all = expected(&[at(3, 1), at(9, 1), at(12, 1), at(5, 2), at(20, 2), at(30, 3)]);
        assert_eq!(all.rows.iter().map(|row| row.0).collect::<Vec<_>>(), [3, 5, 20, 30]);
        assert_eq!(all.restored_away, 2);
    }
}
