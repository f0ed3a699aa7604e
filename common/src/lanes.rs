//! The order in which frames leave: strict lanes, one frame at a time. No I/O.
//!
//! Control always goes first, then output that somebody may be following, then bulk. A flood in a lower lane costs a
//! control frame at most the one frame that is being written (protocol R-LANE-1).

use std::collections::VecDeque;

use crate::wire::Frame;

/// How urgent a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Liveness, commands, cancels, answers, results.
    Control,
    /// Output of running commands.
    Followed,
    /// Output of commands that ended before the session began; files.
    Bulk,
}

/// Frames that wait to be written.
#[derive(Debug, Default)]
pub struct Lanes {
    control: VecDeque<Frame>,
    followed: VecDeque<Frame>,
    bulk: VecDeque<Frame>,
}

impl Lanes {
    /// Adds a frame behind the others of its lane.
    pub fn push(&mut self, lane: Lane, frame: Frame) {
        self.of(lane).push_back(frame);
    }

    /// Takes the most urgent frame.
    pub fn pop(&mut self) -> Option<Frame> {
        let lane = [Lane::Control, Lane::Followed, Lane::Bulk].into_iter().find(|lane| !self.of(*lane).is_empty())?;
        let queue = self.of(lane);
        let frame = queue.pop_front();
        if queue.is_empty() {
            // An idle session keeps no buffer: thousands of them live in one manager.
            *queue = VecDeque::new();
        }
        frame
    }

    /// Counts the frames that wait in a lane.
    #[must_use]
    pub fn len(&self, lane: Lane) -> usize {
        match lane {
            Lane::Control => self.control.len(),
            Lane::Followed => self.followed.len(),
            Lane::Bulk => self.bulk.len(),
        }
    }

    /// Tells whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.control.is_empty() && self.followed.is_empty() && self.bulk.is_empty()
    }

    fn of(&mut self, lane: Lane) -> &mut VecDeque<Frame> {
        match lane {
            Lane::Control => &mut self.control,
            Lane::Followed => &mut self.followed,
            Lane::Bulk => &mut self.bulk,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(seq: u64) -> Frame {
        Frame { seq, ..Frame::default() }
    }

    /// Protocol R-LANE-1.
    #[test]
    fn a_control_frame_overtakes_everything_that_waits_and_order_within_a_lane_stays() {
        let mut lanes = Lanes::default();
        for (seq, lane) in
            [(1, Lane::Bulk), (2, Lane::Followed), (3, Lane::Followed), (4, Lane::Control), (5, Lane::Control)]
        {
            lanes.push(lane, numbered(seq));
        }
        assert_eq!(lanes.len(Lane::Followed), 2);
        let order: Vec<_> = std::iter::from_fn(|| lanes.pop()).map(|frame| frame.seq).collect();
        assert_eq!(order, [4, 5, 2, 3, 1]);
        assert!(lanes.is_empty());
    }
}
